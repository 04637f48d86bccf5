"""Compute how likely a policy finds the held-out pairs: log-probs of chosen and rejected answers.

    python scripts/logps.py recipes/smollm2-135m-instruct/selm.yaml --iteration 1 [key=value ...]

Iteration 0 is the base model. Writes runs/<run_name>/iter-<T>/logps, from which
`scripts/compare.py --implicit T` makes implicit rewards. No part of the run's plan. If it is
killed, the same command continues at the last shard.
"""

from selm.cli import Stage, parse_iteration, run_main


def main() -> None:
    run, t = parse_iteration(__doc__, first=0)
    stage = Stage(run, "logps", t)
    if stage.is_done():
        return
    stage.begin()

    from selm.data.parquet import save_rows
    from selm.data.schemas import LogpsRow
    from selm.evaluation.logps import score_held_out
    from selm.run import artifacts

    policy = artifacts.policy_path(run.recipe, t)
    partial = artifacts.partial_folder(run, "logps", t)
    scored = score_held_out(run.recipe, policy, partial, f"iteration {t}: log-probs")

    with stage.writing() as record:
        save_rows(scored.rows, LogpsRow, record.folder / "test.parquet")
        record.rows, record.tokens = len(scored.rows), scored.tokens
        record.dropped = scored.dropped


if __name__ == "__main__":
    run_main(main)
