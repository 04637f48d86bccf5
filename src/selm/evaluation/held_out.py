"""Greedy answers to held-out prompts, and what the recipe's ranker thinks of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from selm import data
from selm.data import Row
from selm.ranking import Ranker, ranking_facts
from selm.recipe import Recipe


def greedy(recipe: Recipe) -> Recipe:
    """The recipe as evaluation generates with it: one greedy response per prompt."""
    settings = {"temperature": 0.0, "top_p": 1.0, "num_samples": 1}
    return recipe.model_copy(update={"generation": recipe.generation.model_copy(update=settings)})


def with_rewards(
    answered: Sequence[Row], base_responses: Mapping[str, str], ranker: Ranker
) -> list[Row]:
    """Rows of the schema `EVALUATION`.

    Each response is scored beside the base model's response to the same prompt: a pairwise
    ranker's score has a meaning only there, a reward does not change by it. A response that is the
    base model's is not sent to a pairwise ranker: it is a tie.

    Args:
        answered: of the schema `RESPONSES`, one response each.
        base_responses: prompt_id -> the base model's greedy response.
    """
    pools = _pools(answered, base_responses)
    sent = [n for n, (text, of_base) in enumerate(pools) if text != of_base or not ranker.pairwise]
    scores = ranker.score(
        [answered[n]["prompt_id"] for n in sent],
        [answered[n]["prompt"] for n in sent],
        [pools[n] for n in sent],
        [data.columns(answered[n]) for n in sent],
    )
    rewards = dict(zip(sent, scores, strict=True))
    rewards |= {n: [ranker.tie] * 2 for n in range(len(answered)) if n not in rewards}
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
    ]


def facts(
    answered: Sequence[Row], base_responses: Mapping[str, str], recipe: Recipe, verdicts: Path
) -> dict[str, dict[str, int | float]]:
    """What scoring these rows came to: see `ranking_facts`."""
    prompts = [row["prompt"] for row in answered]
    return ranking_facts(recipe.judge(), prompts, _pools(answered, base_responses), verdicts)


def _pools(answered: Sequence[Row], base_responses: Mapping[str, str]) -> list[list[str]]:
    return [[row["responses"][0], base_responses[row["prompt_id"]]] for row in answered]


def base_responses(rows: Sequence[Row]) -> dict[str, str]:
    """From rows of the base model's evaluation."""
    return {row["prompt_id"]: row["response"] for row in rows}
