"""Let a policy answer the held-out prompts greedily.

    python scripts/answer.py recipes/smollm2-135m-instruct/selm.yaml --iteration 1 [key=value ...]

Iteration 0 is the base model. Writes runs/<run_name>/iter-<T>/answers, which `scripts/evaluate.py`
scores. If it is killed, the same command continues at the last shard.
"""

from selm.cli import Stage, parse_iteration, run_main


def main() -> None:
    run, t = parse_iteration(__doc__, first=0)
    stage = Stage(run, "answers", t)
    if stage.is_done():
        return
    stage.begin()

    from selm.data.parquet import save_rows
    from selm.data.schemas import ResponseRow
    from selm.evaluation.base import greedy
    from selm.evaluation.kinds import benchmark_of
    from selm.generation.respond import respond
    from selm.run import artifacts

    rows, dropped = benchmark_of(run.recipe).prompts(run.recipe)
    policy = artifacts.policy_path(run.recipe, t)
    partial = artifacts.partial_folder(run, "answers", t)
    answered = respond(rows, policy, greedy(run.recipe), t, partial, f"iteration {t}: answering")

    with stage.writing() as record:
        save_rows(answered.rows, ResponseRow, record.folder / "test.parquet")
        record.rows, record.tokens = len(answered.rows), answered.tokens
        record.dropped = dropped + answered.dropped


if __name__ == "__main__":
    run_main(main)
