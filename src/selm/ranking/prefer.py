"""Responses in, preference pairs out: step 2 of Algorithm 1."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from selm import data
from selm.data import Row
from selm.errors import UserError
from selm.ranking import Ranker, in_words, load_ranker, ranking_facts
from selm.ranking.selection import UPDATE_RULES, Candidate, distinct, role
from selm.recipe import Recipe
from selm.shards import run_shards


def prefer(
    rows: Sequence[Row], recipe: Recipe, folder: Path, verdicts: Path | None = None
) -> tuple[list[Row], Counter[str]]:
    """Rank each row's pool {y_w, y_l, y, ...} and keep a pair; ties are dropped and counted.

    Args:
        rows: of the schema `RESPONSES`.
        folder: where finished shards are kept; the ranker is only loaded if one is missing.
        verdicts: see `load_ranker`; by default in `folder`.
    """
    verdicts = verdicts or folder / "verdicts"

    @cache
    def ranker() -> Ranker:
        return load_ranker(recipe.ranking, recipe.seed, verdicts)

    choosable = [row for row in rows if len(distinct(pool(row))) > 1]

    def work(shard: list[Row]) -> list[Row]:
        return _prefer(shard, ranker(), recipe.ranking.update_rule)

    what = f"ranking with {recipe.ranking.ranker}"
    size = recipe.ranking.shard_size
    preferred = run_shards(choosable, work, data.PREFERENCES, folder, size, what)
    dropped = Counter(
        identical_candidates=len(rows) - len(choosable), tie=len(choosable) - len(preferred)
    )
    if not preferred:
        said = in_words(facts(rows, recipe, verdicts))
        raise UserError(
            f"ranking: no pair is left of {len(rows)} rows ({dict(+dropped)})"
            + (f"; {said}" if said else "")
        )
    return preferred, +dropped


def facts(rows: Sequence[Row], recipe: Recipe, verdicts: Path) -> dict[str, dict[str, int | float]]:
    """What ranking these rows came to: see `ranking_facts`."""
    pools = [distinct(pool(row)) for row in rows]
    choosable = [i for i, candidates in enumerate(pools) if len(candidates) > 1]
    texts = [[candidate.text for candidate in pools[i]] for i in choosable]
    return ranking_facts(recipe.ranking, [rows[i]["prompt"] for i in choosable], texts, verdicts)


def pool(row: Row) -> list[Candidate]:
    """All candidates of a row, the dataset's first; prompts-only rows have the policy's alone."""
    of_dataset = [
        Candidate(text, source)
        for source in ("chosen", "rejected")
        if (text := data.as_text(row[source])) is not None
    ]
    of_policy = [
        Candidate(text, "policy", finish_reason)
        for text, finish_reason in zip(row["responses"], row["finish_reasons"], strict=True)
    ]
    return of_dataset + of_policy


def _prefer(shard: list[Row], ranker: Ranker, update_rule: str) -> list[Row]:
    pools = [distinct(pool(row)) for row in shard]
    scores = ranker.score(
        [row["prompt_id"] for row in shard],
        [row["prompt"] for row in shard],
        [[candidate.text for candidate in candidates] for candidates in pools],
        [data.columns(row) for row in shard],
    )
    triples = zip(shard, pools, scores, strict=True)
    found = [_preference(row, candidates, s, update_rule) for row, candidates, s in triples]
    return [row for row in found if row is not None]


def _preference(
    row: Row, candidates: list[Candidate], scores: list[float], update_rule: str
) -> Row | None:
    """A row of the schema `PREFERENCES`; the explored response is the policy's first sample."""
    pair = UPDATE_RULES[update_rule](candidates, scores)
    if pair is None:
        return None
    chosen, rejected = candidates[pair.chosen], candidates[pair.rejected]
    explored = row["responses"][0]
    index = next(i for i, candidate in enumerate(candidates) if candidate.text == explored)
    return {
        "prompt_id": row["prompt_id"],
        "prompt": row["prompt"],
        "chosen": data.as_messages(chosen.text),
        "rejected": data.as_messages(rejected.text),
        "explored": explored,
        "explored_role": role(pair, index),
        "chosen_finish_reason": chosen.finish_reason,
        "rejected_finish_reason": rejected.finish_reason,
        "explored_finish_reason": row["finish_reasons"][0],
        "scores": scores,
    }
