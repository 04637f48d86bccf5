"""Let a policy answer the held-out prompts greedily, or the questions of a benchmark.

    python scripts/answer.py recipes/smollm2-135m-instruct/selm.yaml --iteration 1 [key=value ...]

Iteration 0 is the base model. Writes runs/<run_name>/iter-<T>/answers, which `scripts/evaluate.py`
scores. With --benchmark NAME it writes runs/<run_name>/iter-<T>/benchmarks/NAME/answers, which
`scripts/benchmark.py` measures. If it is killed, the same command continues at the last shard.
"""

from selm.cli import Stage, parse_answer, run_main


def main() -> None:
    run, t, benchmark = parse_answer(__doc__)
    stage = Stage(run, "answers" if benchmark is None else f"benchmarks/{benchmark}/answers", t)
    if stage.is_done():
        return
    stage.begin()

    from selm.data.parquet import save_rows
    from selm.data.schemas import ResponseRow
    from selm.evaluation.base import Answering
    from selm.evaluation.held_out import answer_held_out
    from selm.evaluation.kinds import BENCHMARKS
    from selm.run import artifacts

    answer = answer_held_out if benchmark is None else BENCHMARKS[benchmark].answer
    policy = artifacts.policy_path(run.recipe, t)
    partial = artifacts.partial_folder(run, stage.name, t)
    what = f"iteration {t}: answering {benchmark or ''}".strip()
    answered = answer(Answering(run.recipe, t, policy, partial, what))

    with stage.writing() as record:
        save_rows(answered.rows, ResponseRow, record.folder / "test.parquet")
        record.rows, record.tokens = len(answered.rows), answered.tokens
        record.dropped = answered.dropped


if __name__ == "__main__":
    run_main(main)
