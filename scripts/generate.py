"""Answer the prompts of one portion with the current policy, or with the initial one.

    python scripts/generate.py recipes/smollm2-135m-instruct/selm.yaml --iteration 1 [key=value ...]

Reads portion T of the dataset and the checkpoint of iteration T - 1 (the base model for T = 1).
Writes runs/<run_name>/iter-<T>/responses. With --policy initial the base model answers each prompt
once, for the optimism term of XPO: that is iter-<T>/initial_responses. If it is killed, the same
command continues at the last shard.
"""

from selm.cli import Stage, parse_generate, run_main


def main() -> None:
    run, t, name = parse_generate(__doc__)
    stage = Stage(run, name, t)
    if stage.is_done():
        return
    stage.begin()

    from selm.data.parquet import save_rows
    from selm.data.portions import training_portion
    from selm.data.schemas import ResponseRow
    from selm.generation.respond import respond, with_one_sample
    from selm.run import artifacts

    rows, dropped = training_portion(run.recipe, t)
    initial = name == "initial_responses"
    policy = artifacts.policy_path(run.recipe, 0 if initial else t - 1)
    recipe = with_one_sample(run.recipe) if initial else run.recipe
    partial = artifacts.partial_folder(run, name, t)
    answered = respond(rows, policy, recipe, t, partial, f"iteration {t}: generating")

    with stage.writing() as record:
        save_rows(answered.rows, ResponseRow, record.folder / "train.parquet")
        record.rows, record.tokens = len(answered.rows), answered.tokens
        record.dropped = dropped + answered.dropped


if __name__ == "__main__":
    run_main(main)
