"""Score a policy's answers to the held-out prompts, each beside the base model's answer.

    python scripts/evaluate.py recipes/smollm2-135m-instruct/selm.yaml --iteration 1 [key=value ...]

Iteration 0 is the base model. The trackers of training.report_to get its numbers, too. Reads
runs/<run_name>/iter-<T>/answers and iter-0/answers. Writes runs/<run_name>/iter-<T>/evaluation. If
it is killed, the same command continues at the last shard.
"""

from selm.cli import Stage, parse_iteration, run_main


def main() -> None:
    run, t = parse_iteration(__doc__, first=0)
    stage = Stage(run, "evaluation", t)
    if stage.is_done():
        return
    stage.begin()

    from selm.data.parquet import read_rows, save_rows
    from selm.data.schemas import EvaluationRow
    from selm.evaluation.scores import evaluate
    from selm.ranking.kinds import in_words
    from selm.report import tracked
    from selm.run import artifacts

    answers, of_base = (
        read_rows(artifacts.folder(run.recipe, "answers", i) / "test.parquet") for i in (t, 0)
    )
    partial = artifacts.partial_folder(run, "evaluation", t)
    verdicts = artifacts.verdicts_folder(run.recipe)
    what = f"iteration {t}: scoring"
    evaluated = evaluate(answers, of_base, run.recipe, partial, verdicts, what)

    with stage.writing() as record:
        save_rows(evaluated.rows, EvaluationRow, record.folder / "test.parquet")
        record.rows, record.dropped = len(evaluated.rows), evaluated.dropped
        record.facts = {"rankers": evaluated.facts}
        record.note = in_words(evaluated.facts)
    if evaluated.rows:
        tracked.report(run.recipe, t, evaluated.rows)


if __name__ == "__main__":
    run_main(main)
