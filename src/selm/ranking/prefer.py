"""Turns responses into preference pairs: step 2 of Algorithm 1."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selm.data.drops import Drops, row_name
from selm.data.prompts import as_messages
from selm.data.schemas import PreferenceRow, ResponseRow
from selm.errors import UserError
from selm.ranking.kinds import in_words, member_labels, ranking_facts
from selm.ranking.refused import REASON
from selm.ranking.scoring import score_pools
from selm.ranking.selection import UPDATE_RULES, Pair, pool_of, role
from selm.ranking.summary import Ranked, summary
from selm.recipe.schema import Ranking, Recipe


@dataclass(frozen=True)
class Preferences:
    """The output of the stage.

    Attributes:
        dropped: reason -> rows without a pair.
        summary: see `selm.ranking.summary`; covers all ranked rows, dropped ones too.
    """

    rows: list[PreferenceRow]
    dropped: Drops
    summary: dict[str, Any]


NO_INITIAL = "no_initial_response"  # a reason of dropped rows


def prefer(
    rows: Sequence[ResponseRow],
    recipe: Recipe,
    folder: Path,
    verdicts: Path | None = None,
    initial: Sequence[ResponseRow] | None = None,
) -> Preferences:
    """Rank each row's pool {y_w, y_l, y, ...} and select a pair; ties are dropped and counted.

    Args:
        folder: where finished shards are kept; the ranker is only loaded if one is missing.
        verdicts: see `load_ranker`; by default in `folder`.
        initial: rows whose first response is the explored one, in place of the policy's; they do
            not take part in the ranking.
    """
    verdicts = verdicts or folder / "verdicts"
    choosable = _choosable(rows, recipe.ranking)
    ranked = _rank(choosable, recipe, folder, verdicts)
    explored = {row["prompt_id"]: row for row in (rows if initial is None else initial)}
    dropped, preferred = Drops(), []
    for row, one in zip(choosable, ranked, strict=True):
        pair = REASON if one is None else _select(one, recipe.ranking)
        if one is None or isinstance(pair, str):
            dropped.add(str(pair), row_name(row))
        elif row["prompt_id"] not in explored:
            dropped.add(NO_INITIAL, row_name(row))
        else:
            preferred.append(_preference(one, pair, explored[row["prompt_id"]]))
    kept = {row["prompt_id"] for row in choosable}
    for row in rows:
        if row["prompt_id"] not in kept:
            dropped.add("identical_candidates", row_name(row))
    if not preferred:
        said = in_words(facts(rows, recipe, verdicts))
        raise UserError(
            f"ranking: none of the {len(rows)} rows gave a pair ({dict(dropped)})"
            + (f"; {said}" if said else "")
        )
    scored = [one for one in ranked if one is not None]
    return Preferences(preferred, dropped, summary(scored, member_labels(recipe.ranking)))


def facts(
    rows: Sequence[ResponseRow], recipe: Recipe, verdicts: Path
) -> dict[str, dict[str, int | float]]:
    """Counts from ranking these rows, see `ranking_facts`."""
    pools = [pool_of(row, recipe.ranking.pool) for row in _choosable(rows, recipe.ranking)]
    return ranking_facts(recipe.ranking, pools, verdicts)


def _choosable(rows: Sequence[ResponseRow], ranking: Ranking) -> list[ResponseRow]:
    """Rows with two or more distinct candidates; the others do not go to a ranker."""
    return [row for row in rows if len(pool_of(row, ranking.pool).candidates) > 1]


def _rank(
    rows: Sequence[ResponseRow], recipe: Recipe, folder: Path, verdicts: Path
) -> list[Ranked | None]:
    """The rows with their scores; this is the slow part, saved shard by shard.

    None for a row whose prompt the ranker cannot read.
    """
    ranking = recipe.ranking
    pools = [pool_of(row, ranking.pool) for row in rows]
    what = f"ranking with {ranking.ranker}"
    scored = score_pools(pools, ranking, recipe.seed, folder, verdicts, what)
    return [
        Ranked(row, pool, found["scores"], found["member_scores"]) if found["scores"] else None
        for row, pool, found in zip(rows, pools, scored, strict=True)
    ]


def _select(ranked: Ranked, ranking: Ranking) -> Pair | str:
    """The pair, or the reason why there is none."""
    pair = UPDATE_RULES[ranking.update_rule](ranked.pool.candidates, ranked.scores)
    if pair is None:
        return "tie"
    margin = ranked.scores[pair.chosen] - ranked.scores[pair.rejected]
    wanted = ranking.min_margin
    return "margin_too_small" if wanted is not None and margin < wanted else pair


def _preference(ranked: Ranked, pair: Pair, explored: ResponseRow) -> PreferenceRow:
    """The explored response is the first one of a row, which may be in the pool or not."""
    row, text = ranked.row, explored["responses"][0]
    chosen, rejected = (ranked.pool.candidates[i] for i in (pair.chosen, pair.rejected))
    return {
        "prompt_id": row["prompt_id"],
        "prompt": row["prompt"],
        "tools": row.get("tools"),
        "chosen": as_messages(chosen.text),
        "rejected": as_messages(rejected.text),
        "explored": text,
        "explored_role": role(pair, ranked.pool.texts, text),
        "chosen_finish_reason": chosen.finish_reason,
        "rejected_finish_reason": rejected.finish_reason,
        "explored_finish_reason": explored["finish_reasons"][0],
        "scores": ranked.scores,
    }
