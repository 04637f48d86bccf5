"""Rank each prompt's pool of responses, and keep the best and the worst as a preference pair.

    python scripts/rank.py recipes/smollm2-135m-instruct/selm.yaml --iteration 1 [key=value ...]

Reads runs/<run_name>/iter-<T>/responses; with the optimism of XPO initial_responses, too. Writes
runs/<run_name>/iter-<T>/preferences, which `datasets.load_dataset` reads. If it is killed, the same
command continues at the last shard.
"""

from selm.cli import Stage, parse_iteration, run_main


def main() -> None:
    run, t = parse_iteration(__doc__)
    stage = Stage(run, "preferences", t)
    if stage.is_done():
        return
    stage.begin()

    from selm.data.parquet import read_rows, save_rows
    from selm.data.schemas import PreferenceRow, ResponseRow
    from selm.ranking.kinds import in_words
    from selm.ranking.prefer import facts, prefer
    from selm.run import artifacts
    from selm.training.objective import initial_explores

    def rows_of(name: str) -> list[ResponseRow]:
        return read_rows(artifacts.folder(run.recipe, name, t) / "train.parquet")

    rows = rows_of("responses")
    initial = rows_of("initial_responses") if initial_explores(run.recipe, t) else None
    partial = artifacts.partial_folder(run, "preferences", t)
    verdicts = artifacts.verdicts_folder(run.recipe)
    preferences = prefer(rows, run.recipe, partial, verdicts, initial)
    found = facts(rows, run.recipe, verdicts)

    with stage.writing() as record:
        save_rows(preferences.rows, PreferenceRow, record.folder / "train.parquet")
        record.rows, record.dropped = len(preferences.rows), preferences.dropped
        record.facts = {"rankers": found, "summary": preferences.summary}
        record.note = in_words(found)


if __name__ == "__main__":
    run_main(main)
