"""Scores answers: the ranker compares each with the base model's answer to the same prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selm.data.columns import columns_of
from selm.data.drops import Drops, row_name
from selm.data.schemas import EvaluationRow, ResponseRow, ScoreRow
from selm.ranking.base import Candidate, Pool
from selm.ranking.kinds import ranking_facts
from selm.ranking.refused import REASON
from selm.ranking.scoring import score_pools
from selm.recipe.schema import Recipe


@dataclass(frozen=True)
class Evaluated:
    """The output of the stage.

    Attributes:
        dropped: reason -> answers without a reward.
        facts: counts from the scoring, see `ranking_facts`.
    """

    rows: list[EvaluationRow]
    dropped: Drops
    facts: dict[str, dict[str, int | float]]


def evaluate(
    answers: Sequence[ResponseRow],
    of_base: Sequence[ResponseRow],
    recipe: Recipe,
    folder: Path,
    verdicts: Path,
    what: str,
) -> Evaluated:
    """Score each answer beside the base model's to the same prompt.

    A pairwise ranker's score has a meaning only beside that answer; a reward does not change.

    Args:
        answers: one response each.
        of_base: those of iteration 0.
        folder, verdicts, what: see `score_pools`.
    """
    ranking = recipe.held_out_ranking()
    pools = beside_base(answers, of_base)
    scored = score_pools(pools, ranking, recipe.seed, folder, verdicts, what)
    rows, dropped = with_rewards(answers, scored)
    return Evaluated(rows, dropped, ranking_facts(ranking, pools, verdicts))


def beside_base(answers: Sequence[ResponseRow], of_base: Sequence[ResponseRow]) -> list[Pool]:
    """The pools to score: an answer and the base model's answer, for prompts that have both."""
    base = {row["prompt_id"]: row["responses"][0] for row in of_base}
    return [
        Pool(
            row["prompt_id"],
            row["prompt"],
            [Candidate(row["responses"][0], "policy"), Candidate(base[row["prompt_id"]], "base")],
            columns_of(row),
        )
        for row in answers
        if row["prompt_id"] in base
    ]


def with_rewards(
    answers: Sequence[ResponseRow], scored: Sequence[ScoreRow]
) -> tuple[list[EvaluationRow], Drops]:
    """Rows with a reward, and the answers without one.

    Args:
        scored: the pools that `beside_base` made.
    """
    scores = {row["prompt_id"]: row["scores"] for row in scored}
    rows, dropped = [], Drops()
    for row in answers:
        if row["prompt_id"] not in scores:
            dropped.add("not_answered_by_base", row_name(row))
        elif not scores[row["prompt_id"]]:
            dropped.add(REASON, row_name(row))
        else:
            reward, reward_of_base = scores[row["prompt_id"]]
            rows.append(
                {
                    "prompt_id": row["prompt_id"],
                    "prompt": row["prompt"],
                    "response": row["responses"][0],
                    "finish_reason": row["finish_reasons"][0],
                    "num_tokens": row["num_tokens"][0],
                    "reward": reward,
                    "reward_of_base": reward_of_base,
                }
            )
    return rows, dropped
