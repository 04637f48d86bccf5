"""Greedy answers to held-out prompts, and what the recipe's ranker thinks of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from selm.data.columns import columns_of
from selm.data.drops import Drops, row_name
from selm.data.schemas import EvaluationRow, ResponseRow
from selm.ranking.base import Ranker
from selm.ranking.kinds import ranking_facts
from selm.ranking.refused import REASON, of_the_others
from selm.recipe.schema import Recipe


def greedy(recipe: Recipe) -> Recipe:
    """The recipe as evaluation generates with it: one greedy response per prompt."""
    settings = {"temperature": 0.0, "top_p": 1.0, "num_samples": 1}
    return recipe.model_copy(update={"generation": recipe.generation.model_copy(update=settings)})


def with_rewards(
    answered: Sequence[ResponseRow], base_responses: Mapping[str, str], ranker: Ranker
) -> list[EvaluationRow]:
    """The answers with their rewards.

    Each response is scored beside the base model's response to the same prompt: a pairwise
    ranker's score has a meaning only there, a reward does not change by it. A response that is the
    base model's is not sent to a pairwise ranker: it is a tie. Rows of prompts that the ranker
    cannot read are left out, and those that the base model has no response to.

    Args:
        answered: one response each.
        base_responses: prompt_id -> the base model's greedy response.
    """
    answered = _answered_by_both(answered, base_responses)
    pools = _pools(answered, base_responses)
    sent = [n for n, (text, of_base) in enumerate(pools) if text != of_base or not ranker.pairwise]

    def score(at: Sequence[int]) -> list[list[float]]:
        rows = [answered[sent[i]] for i in at]
        return ranker.score(
            [row["prompt_id"] for row in rows],
            [row["prompt"] for row in rows],
            [pools[sent[i]] for i in at],
            [columns_of(row) for row in rows],
        )

    found = of_the_others([answered[n]["prompt_id"] for n in sent], score)
    rewards = {sent[i]: scores for i, scores in found.items()}
    rewards |= {n: [ranker.tie] * 2 for n in set(range(len(answered))) - set(sent)}
    return [
        {
            "prompt_id": row["prompt_id"],
            "prompt": row["prompt"],
            "response": row["responses"][0],
            "finish_reason": row["finish_reasons"][0],
            "num_tokens": row["num_tokens"][0],
            "reward": rewards[n][0],
            "reward_of_base": rewards[n][1],
        }
        for n, row in enumerate(answered)
        if n in rewards
    ]


def without_reward(answered: Sequence[ResponseRow], scored: Sequence[EvaluationRow]) -> Drops:
    """The rows that `with_rewards` left out."""
    kept, drops = {row["prompt_id"] for row in scored}, Drops()
    for row in answered:
        if row["prompt_id"] not in kept:
            drops.add(REASON, row_name(row))
    return drops


def facts(
    answered: Sequence[ResponseRow],
    base_responses: Mapping[str, str],
    recipe: Recipe,
    verdicts: Path,
) -> dict[str, dict[str, int | float]]:
    """What scoring these rows came to: see `ranking_facts`."""
    answered = _answered_by_both(answered, base_responses)
    prompts = [row["prompt"] for row in answered]
    return ranking_facts(
        recipe.held_out_ranking(), prompts, _pools(answered, base_responses), verdicts
    )


def _answered_by_both(
    answered: Sequence[ResponseRow], base_responses: Mapping[str, str]
) -> Sequence[ResponseRow]:
    return [row for row in answered if row["prompt_id"] in base_responses]


def _pools(answered: Sequence[ResponseRow], base_responses: Mapping[str, str]) -> list[list[str]]:
    return [[row["responses"][0], base_responses[row["prompt_id"]]] for row in answered]


def base_responses(rows: Sequence[EvaluationRow]) -> dict[str, str]:
    """From rows of the base model's evaluation."""
    return {row["prompt_id"]: row["response"] for row in rows}
