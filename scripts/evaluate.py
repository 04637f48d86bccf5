"""Let a policy answer the held-out prompts greedily, and score the answers with the ranker.

    python scripts/evaluate.py recipes/smollm2-135m-instruct/selm.yaml --iteration 1 [key=value ...]

Iteration 0 is the base model. Writes runs/<run_name>/iter-<T>/evaluation.
"""

from selm.cli import Stage, parse_iteration, run_main


def main() -> None:
    run, t = parse_iteration(__doc__, first=0)
    stage = Stage(run, "evaluation", t)
    if stage.is_done():
        return
    stage.begin()

    from selm.data.parquet import read_rows, save_rows
    from selm.data.portions import held_out_portion
    from selm.data.schemas import EvaluationRow
    from selm.evaluation.held_out import (
        base_responses,
        facts,
        greedy,
        with_rewards,
        without_reward,
    )
    from selm.generation.respond import respond
    from selm.ranking.kinds import in_words, load_ranker, look
    from selm.run import artifacts

    rows, dropped = held_out_portion(run.recipe)
    look(run.recipe.held_out_ranking(), rows[:1])
    policy = artifacts.policy_path(run.recipe, t)
    partial = artifacts.partial_folder(run, "evaluation", t)
    answered = respond(rows, policy, greedy(run.recipe), t, partial, f"iteration {t}: evaluating")
    base = [{**row, "response": row["responses"][0]} for row in answered.rows]
    if t > 0:
        base = read_rows(artifacts.folder(run.recipe, "evaluation", 0) / "test.parquet")
    verdicts = artifacts.verdicts_folder(run.recipe)
    ranker = load_ranker(run.recipe.held_out_ranking(), run.recipe.seed, verdicts)
    scored = with_rewards(answered.rows, base_responses(base), ranker)
    found = facts(answered.rows, base_responses(base), run.recipe, verdicts)

    with stage.writing() as record:
        save_rows(scored, EvaluationRow, record.folder / "test.parquet")
        record.rows, record.tokens = len(scored), answered.tokens
        record.dropped = dropped + answered.dropped + without_reward(answered.rows, scored)
        record.facts, record.note = {"rankers": found}, in_words(found)


if __name__ == "__main__":
    run_main(main)
