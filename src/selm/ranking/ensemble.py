"""Several rankers as one: the mean of their scores, each put on the same scale."""

import math
from collections.abc import Sequence
from pathlib import Path

from selm.ranking.base import Matrix, Pool, Ranker, RankerKind, Scores
from selm.recipe.schema import SELECTION_KEYS, Ranking


class EnsembleRanker(Ranker):
    """Every member has the same weight in every prompt, whatever the unit of its scores."""

    pairwise = True  # normalised scores have a meaning only within their pool

    def __init__(self, ranking: Ranking, seed: int, verdicts: Path | None) -> None:
        from selm.ranking.kinds import load_ranker, naming  # which import this file

        self.members, self._naming = ranking.rankers, naming
        self.rankers = [load_ranker(member, seed, verdicts) for member in self.members]

    def score(self, pools: Sequence[Pool]) -> list[list[float]]:
        """See `Ranker`."""
        return [scores_N for scores_N, _ in self.score_by_member(pools)]

    def score_by_member(self, pools: Sequence[Pool]) -> list[Scores]:
        """See `Ranker`; a member's scores are in its own unit."""
        scores_R_P_N: list[list[list[float]]] = []
        for member, ranker in zip(self.members, self.rankers, strict=True):
            with self._naming(member):
                scores_R_P_N.append(ranker.score(pools))
        return [
            (combined(scores_R_N), list(scores_R_N))
            for scores_R_N in zip(*scores_R_P_N, strict=True)
        ]

    def compare(self, pools: Sequence[Pool]) -> list[Matrix]:
        """Half the difference of the scores, in both orders."""
        return [[[(a - b) / 2 for b in scores] for a in scores] for scores in self.score(pools)]


def combined(scores_R_N: Sequence[Sequence[float]]) -> list[float]:
    """Mean over R rankers of the normalised scores of one prompt's N candidates.

    Rounded to nine digits, so that votes which cancel each other are a tie.

    >>> combined([[1.0, 2.0, 3.0], [70.0, 50.0, 60.0]])
    [0.0, -0.612372436, 0.612372436]
    """
    normalised = [normalise(scores_N) for scores_N in scores_R_N]
    return [round(sum(column) / len(column), 9) for column in zip(*normalised, strict=True)]


def normalise(scores_N: Sequence[float]) -> list[float]:
    """Standard scores within the pool: mean 0, standard deviation 1; zeros if all are equal.

    Within the pool, because a ranker's level and spread differ from prompt to prompt and only
    differences within a prompt decide. Standard scores instead of ranks, because two rankers that
    disagree often tie by ranks, and a tie loses the row; the size of the differences breaks it.

    >>> normalise([1.0, 2.0, 3.0])
    [-1.224744871391589, 0.0, 1.224744871391589]
    >>> normalise([5.0, 5.0]), normalise([0.1, 0.9])
    ([0.0, 0.0], [-1.0, 1.0])
    """
    if all(math.isclose(score, scores_N[0], rel_tol=1e-9, abs_tol=1e-12) for score in scores_N):
        return [0.0] * len(scores_N)  # a difference from rounding must not become a vote
    mean = sum(scores_N) / len(scores_N)
    deviation = math.sqrt(sum((score - mean) ** 2 for score in scores_N) / len(scores_N))
    return [(score - mean) / deviation for score in scores_N]


def _check(ensemble: Ranking) -> None:
    if len(ensemble.rankers) < 2:
        raise ensemble.error("rankers", "an ensemble needs two rankers or more")
    for member in ensemble.rankers:
        if member.ranker == ensemble.ranker:
            raise member.error("ranker", "an ensemble cannot be a member of an ensemble")
        for key in sorted({*SELECTION_KEYS, "workers", "shard_size"}):
            if getattr(member, key) != Ranking.model_fields[key].default:
                there = f"{ensemble.section}.{key}"
                raise member.error(key, f"cannot be set for a member; set {there}")


ENSEMBLE = RankerKind(
    load=EnsembleRanker, pairwise=EnsembleRanker.pairwise, keys=frozenset({"rankers"}), check=_check
)
