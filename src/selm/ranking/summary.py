"""Summary of a ranking: does exploration help, do rankers agree, do they prefer length?

Pure functions over ranked rows. Their numbers go into the manifest of the preferences, so that the
report needs neither the ranker nor the rows that were dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from selm.data.schemas import ResponseRow
from selm.ranking.base import Candidate, Pool

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

# A ranker's scores of a pool; None for a candidate without a score.
Opinion = Sequence[float | None]


@dataclass(frozen=True)
class Ranked:
    """A row, its pool of distinct candidates and their scores."""

    row: ResponseRow
    pool: Pool
    scores: list[float]
    member_scores: list[list[float]]

    @property
    def explored(self) -> int:
        """Index of the policy's first sample; or of the dataset's response with the same text."""
        return self.pool.texts.index(self.row["responses"][0])

    def of(self, source: str) -> int | None:
        """Index of the first candidate with this source, if there is one."""
        candidates = enumerate(self.pool.candidates)
        return next((i for i, candidate in candidates if candidate.source == source), None)


def summary(ranked: Sequence[Ranked], rankers: Sequence[str]) -> dict[str, Any]:
    """The numbers, ready for JSON.

    Args:
        rankers: whose scores `member_scores` are; more than one for an ensemble.

    Returns:
        rows: how many were ranked.
        explored_against: `chosen` and `rejected` of the dataset -> {won, tied, lost} of the
            explored response; empty if the dataset's are not in the pool.
        scores: source -> quantiles 5, 25, 50, 75 and 95% of its candidates' scores.
        length_correlation: see there; None if it is not defined.
        agreement: one entry per two rankers; the dataset's own labels count as one.
    """
    opinions = {"the dataset": [_of_dataset(one.pool.candidates) for one in ranked]}
    opinions |= {name: [one.member_scores[r] for one in ranked] for r, name in enumerate(rankers)}
    return {
        "rows": len(ranked),
        "explored_against": {
            source: against
            for source in ("chosen", "rejected")
            if sum((against := explored_against(ranked, source)).values())
        },
        "scores": _quantiles(ranked),
        "length_correlation": length_correlation(
            [one.scores for one in ranked],
            [[len(text) for text in one.pool.texts] for one in ranked],
        ),
        "agreement": [
            {"rankers": [a, b], **counts}
            for a, b in combinations(opinions, 2)
            if (counts := agreement(opinions[a], opinions[b]))["pairs"]
        ],
    }


def explored_against(ranked: Sequence[Ranked], source: str) -> dict[str, int]:
    """How often the explored response scored above, equal to and below the dataset's."""
    counts = {"won": 0, "tied": 0, "lost": 0}
    for one in ranked:
        other = one.of(source)
        if other is not None:
            margin = one.scores[one.explored] - one.scores[other]
            counts["won" if margin > 0 else "lost" if margin < 0 else "tied"] += 1
    return counts


def agreement(a_P_N: Sequence[Opinion], b_P_N: Sequence[Opinion]) -> dict[str, int]:
    """Two rankers on the same rows: pairs of candidates that both order, and how many alike.

    >>> agreement([[3.0, 2.0, 1.0]], [[0.5, 0.9, 0.1]])  # 1st > 2nd is where they differ
    {'pairs': 3, 'alike': 2}
    """
    counts = {"pairs": 0, "alike": 0}
    for a_N, b_N in zip(a_P_N, b_P_N, strict=True):
        for i, j in combinations(range(len(a_N)), 2):
            signs = _sign(a_N[i], a_N[j]) * _sign(b_N[i], b_N[j])
            counts["pairs"] += signs != 0
            counts["alike"] += signs > 0
    return counts


def _sign(a: float | None, b: float | None) -> int:
    return 0 if a is None or b is None else (a > b) - (a < b)


def _of_dataset(pool: Sequence[Candidate]) -> Opinion:
    """The dataset's labels as an opinion: chosen above rejected, the rest unknown."""
    return [{"chosen": 1.0, "rejected": 0.0}.get(candidate.source) for candidate in pool]


def length_correlation(
    scores_P_N: Sequence[Sequence[float]], lengths_P_N: Sequence[Sequence[int]]
) -> float | None:
    """Pearson's correlation of score and length in characters, within prompts.

    Each prompt's mean is subtracted from both, because only differences within a prompt decide,
    and some prompts ask for longer answers. None if one of them never differs.

    >>> length_correlation([[1.0, 2.0], [8.0, 9.0]], [[10, 20], [70, 80]])
    1.0
    """
    scores, lengths = _centred(scores_P_N), _centred(lengths_P_N)
    scale = np.sqrt((scores**2).sum() * (lengths**2).sum())
    return round(float((scores * lengths).sum() / scale), 6) if scale > 0 else None


def _centred(values_P_N: Sequence[Sequence[float]]) -> np.ndarray:
    """Subtract each prompt's mean; relative to its first value, so equal values become 0."""
    from_first = [np.asarray(row, dtype=float) - row[0] for row in values_P_N]
    return np.concatenate([row - row.mean() for row in from_first])


def _quantiles(ranked: Sequence[Ranked]) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = {}
    for one in ranked:
        for candidate, score in zip(one.pool.candidates, one.scores, strict=True):
            scores.setdefault(candidate.source, []).append(score)
    return {
        source: [round(float(bound), 6) for bound in np.quantile(found, QUANTILES)]
        for source, found in scores.items()
    }
