"""Answer the prompts of one portion with the current policy.

    python scripts/generate.py recipes/smollm2-135m-instruct/selm.yaml --iteration 1 [key=value ...]

Reads portion T of the dataset and the checkpoint of iteration T - 1 (the base model for T = 1).
Writes runs/<run_name>/iter-<T>/responses. If it is killed, the same command continues at the last
shard.
"""

from selm.cli import Stage, parse_iteration, run_main


def main() -> None:
    run, t = parse_iteration(__doc__)
    stage = Stage(run, "responses", t)
    if stage.is_done():
        return
    stage.begin()

    from selm.data.parquet import save_rows
    from selm.data.portions import training_portion
    from selm.data.schemas import ResponseRow
    from selm.generation.respond import respond
    from selm.run import artifacts

    rows, dropped = training_portion(run.recipe, t)
    policy = artifacts.policy_path(run.recipe, t - 1)
    partial = artifacts.partial_folder(run, "responses", t)
    answered = respond(rows, policy, run.recipe, t, partial, f"iteration {t}: generating")

    with stage.writing() as record:
        save_rows(answered.rows, ResponseRow, record.folder / "train.parquet")
        record.rows, record.tokens = len(answered.rows), answered.tokens
        record.dropped = dropped + answered.dropped


if __name__ == "__main__":
    run_main(main)
