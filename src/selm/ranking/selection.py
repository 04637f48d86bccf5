"""From scores to a preference pair: pure functions with worked examples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from selm.data.columns import columns_of
from selm.data.prompts import as_text
from selm.data.schemas import ResponseRow
from selm.ranking.base import Candidate, Pool


@dataclass(frozen=True)
class Pair:
    """Indices of the chosen and the rejected candidate."""

    chosen: int
    rejected: int


def distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The first candidate with each text; identical texts could be both chosen and rejected.

    >>> [c.text for c in distinct([Candidate("a", "chosen"), Candidate("a", "policy")])]
    ['a']
    """
    kept: dict[str, Candidate] = {}
    for candidate in candidates:
        kept.setdefault(candidate.text, candidate)
    return list(kept.values())


def pool_of(row: ResponseRow, which: str) -> Pool:
    """The distinct candidates of a row; `which` is the recipe's `ranking.pool`.

    `dataset_and_samples`: {y_w, y_l, y, ...}, the dataset's first, as in the paper. `samples`: only
    the policy's, as for a dataset without pairs.
    """
    of_dataset = [
        Candidate(text, source)
        for source in ("chosen", "rejected")
        if (text := as_text(row[source])) is not None
    ]
    of_policy = [
        Candidate(text, "policy", finish_reason)
        for text, finish_reason in zip(row["responses"], row["finish_reasons"], strict=True)
    ]
    candidates = distinct(of_policy if which == "samples" else of_dataset + of_policy)
    return Pool(row["prompt_id"], row["prompt"], candidates, columns_of(row))


def best_worst(candidates: Sequence[Candidate], scores: Sequence[float]) -> Pair | None:
    """Algorithm 1, step 2: the best of the pool is chosen, the worst is rejected; None for a tie.

    >>> pool = [Candidate("w", "chosen"), Candidate("l", "rejected"), Candidate("y", "policy")]
    >>> best_worst(pool, [0.2, 0.5, 0.9])
    Pair(chosen=2, rejected=0)
    """
    order = range(len(candidates))
    chosen = max(order, key=lambda i: scores[i])
    rejected = min(order, key=lambda i: scores[i])
    return Pair(chosen, rejected) if scores[chosen] > scores[rejected] else None


def replace(candidates: Sequence[Candidate], scores: Sequence[float]) -> Pair | None:
    """The paper's second rule compares y with y_w: a better y replaces y_w, a worse y replaces y_l.

    >>> pool = [Candidate("w", "chosen"), Candidate("l", "rejected"), Candidate("y", "policy")]
    >>> replace(pool, [0.2, 0.5, 0.9]), replace(pool, [0.5, 0.2, 0.1])
    (Pair(chosen=2, rejected=1), Pair(chosen=0, rejected=2))
    """
    of = {candidate.source: i for i, candidate in reversed(list(enumerate(candidates)))}
    if not {"chosen", "rejected", "policy"} <= of.keys():
        return best_worst(candidates, scores)
    explored, chosen, rejected = of["policy"], of["chosen"], of["rejected"]
    if scores[explored] == scores[chosen]:
        return None
    if scores[explored] > scores[chosen]:
        return Pair(explored, rejected)
    return Pair(chosen, explored)


UPDATE_RULES: dict[str, Callable[[Sequence[Candidate], Sequence[float]], Pair | None]] = {
    "best_worst": best_worst,
    "replace": replace,
}


def role(
    pair: Pair, texts: Sequence[str], explored: str
) -> Literal["chosen", "rejected", "neither"]:
    """What a response became; it may be none of the pool's distinct texts.

    >>> role(Pair(chosen=2, rejected=0), ["l", "w", "y"], "w")
    'neither'
    """
    if explored == texts[pair.chosen]:
        return "chosen"
    return "rejected" if explored == texts[pair.rejected] else "neither"
