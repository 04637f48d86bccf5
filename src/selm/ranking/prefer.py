"""Responses in, preference pairs out: step 2 of Algorithm 1."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from selm import data
from selm.data import Row
from selm.errors import UserError
from selm.ranking import Ranker, in_words, load_ranker, member_labels, ranking_facts
from selm.ranking.ensemble import EnsembleRanker, combined
from selm.ranking.selection import UPDATE_RULES, Pair, pool, role
from selm.ranking.summary import Ranked, summary
from selm.recipe import Ranking, Recipe
from selm.shards import run_shards
from selm.workers import Work, Workers

_ON_GPU = {"pairrm", "reward_model"}


@dataclass(frozen=True)
class Preferences:
    """What the stage writes.

    Attributes:
        rows: of the schema `PREFERENCES`.
        dropped: reason -> rows without a pair.
        summary: see `selm.ranking.summary`; of all rows that were ranked, dropped ones too.
    """

    rows: list[Row]
    dropped: Counter[str]
    summary: dict[str, Any]


def prefer(
    rows: Sequence[Row], recipe: Recipe, folder: Path, verdicts: Path | None = None
) -> Preferences:
    """Rank each row's pool {y_w, y_l, y, ...} and keep a pair; ties are dropped and counted.

    Args:
        rows: of the schema `RESPONSES`.
        folder: where finished shards are kept; the ranker is only loaded if one is missing.
        verdicts: see `load_ranker`; by default in `folder`.
    """
    verdicts = verdicts or folder / "verdicts"
    ranked = _rank(_choosable(rows, recipe.ranking), recipe, folder, verdicts)
    chosen = [_select(one, recipe.ranking) for one in ranked]
    dropped = Counter(found for found in chosen if isinstance(found, str))
    dropped["identical_candidates"] = len(rows) - len(ranked)
    preferred = [
        _preference(one, pair)
        for one, pair in zip(ranked, chosen, strict=True)
        if isinstance(pair, Pair)
    ]
    if not preferred:
        said = in_words(facts(rows, recipe, verdicts))
        raise UserError(
            f"ranking: no pair is left of {len(rows)} rows ({dict(+dropped)})"
            + (f"; {said}" if said else "")
        )
    return Preferences(preferred, +dropped, summary(ranked, member_labels(recipe.ranking)))


def facts(rows: Sequence[Row], recipe: Recipe, verdicts: Path) -> dict[str, dict[str, int | float]]:
    """What ranking these rows came to: see `ranking_facts`."""
    choosable = _choosable(rows, recipe.ranking)
    texts = [[candidate.text for candidate in pool(r, recipe.ranking.pool)] for r in choosable]
    return ranking_facts(recipe.ranking, [row["prompt"] for row in choosable], texts, verdicts)


def _choosable(rows: Sequence[Row], ranking: Ranking) -> list[Row]:
    """Rows with two distinct candidates or more: the others are not sent to a ranker."""
    return [row for row in rows if len(pool(row, ranking.pool)) > 1]


def _rank(rows: Sequence[Row], recipe: Recipe, folder: Path, verdicts: Path) -> list[Ranked]:
    """The rows with their scores; only this takes time, and is kept shard by shard."""
    ranking = recipe.ranking

    what = f"ranking with {ranking.ranker}"
    load = partial(_load, ranking, recipe.seed, verdicts.resolve())
    size = ranking.shard_size
    scored = run_shards(rows, load, data.SCORES, folder, size, what, _workers(ranking))
    return [
        Ranked(row, pool(row, ranking.pool), found["scores"], found["member_scores"])
        for row, found in zip(rows, scored, strict=True)
    ]


def _load(ranking: Ranking, seed: int, verdicts: Path) -> Work:
    """A worker: the ranker, and each shard put before it."""
    ranker = load_ranker(ranking, seed, verdicts)
    return lambda shard: _score(shard, ranker, ranking)


def _workers(ranking: Ranking) -> Workers:
    """Where `auto` means one per GPU: not for a judge, whose limits hold for each worker."""
    kinds = {member.ranker for member in ranking.rankers or (ranking,)}
    one = ranking.workers == "auto" and ("judge" in kinds or not kinds & _ON_GPU)
    return Workers(1 if one else ranking.workers, gpus=1, key="ranking.workers")


def _score(shard: list[Row], ranker: Ranker, ranking: Ranking) -> list[Row]:
    """Rows of the schema `SCORES`."""
    ids = [row["prompt_id"] for row in shard]
    asked = (
        ids,
        [row["prompt"] for row in shard],
        [[candidate.text for candidate in pool(row, ranking.pool)] for row in shard],
        [data.columns(row) for row in shard],
    )
    if isinstance(ranker, EnsembleRanker):
        by_member = ranker.score_by_member(*asked)
        scores = [combined(scores_R_N) for scores_R_N in by_member]
    else:
        scores = ranker.score(*asked)
        by_member = [[scores_N] for scores_N in scores]
    return [
        {"prompt_id": prompt_id, "scores": scores_N, "member_scores": scores_R_N}
        for prompt_id, scores_N, scores_R_N in zip(ids, scores, by_member, strict=True)
    ]


def _select(ranked: Ranked, ranking: Ranking) -> Pair | str:
    """The pair, or the reason why there is none."""
    pair = UPDATE_RULES[ranking.update_rule](ranked.pool, ranked.scores)
    if pair is None:
        return "tie"
    margin = ranked.scores[pair.chosen] - ranked.scores[pair.rejected]
    wanted = ranking.min_margin
    return "margin_too_small" if wanted is not None and margin < wanted else pair


def _preference(ranked: Ranked, pair: Pair) -> Row:
    """A row of the schema `PREFERENCES`; the explored response is the policy's first sample."""
    row = ranked.row
    chosen, rejected = ranked.pool[pair.chosen], ranked.pool[pair.rejected]
    return {
        "prompt_id": row["prompt_id"],
        "prompt": row["prompt"],
        "tools": row.get("tools"),
        "chosen": data.as_messages(chosen.text),
        "rejected": data.as_messages(rejected.text),
        "explored": row["responses"][0],
        "explored_role": role(pair, ranked.explored),
        "chosen_finish_reason": chosen.finish_reason,
        "rejected_finish_reason": rejected.finish_reason,
        "explored_finish_reason": row["finish_reasons"][0],
        "scores": ranked.scores,
    }
