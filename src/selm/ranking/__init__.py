"""Rankers: prompts and candidates in, scores out (higher is better)."""

from collections.abc import Callable, Sequence
from typing import Protocol

from selm.chat import Message
from selm.recipe import Ranking

Prompt = Sequence[Message]
Matrix = list[list[float]]


class Ranker(Protocol):
    """Judges candidates of the same prompt against each other.

    `pairwise` is True if a score has a meaning only beside the other candidates of its prompt
    (PairRM), False if it stands alone (a reward).
    """

    pairwise: bool

    def score(
        self, prompt_ids: Sequence[str], prompts: Sequence[Prompt], candidates: Sequence[list[str]]
    ) -> list[list[float]]:
        """`scores_P_N[p][n]` for candidate n of prompt p; N may differ from prompt to prompt."""
        ...


class PairwiseRanker(Ranker, Protocol):
    """A ranker with `pairwise` True; its scores are `scores_of` its comparisons."""

    def compare(
        self, prompt_ids: Sequence[str], prompts: Sequence[Prompt], candidates: Sequence[list[str]]
    ) -> list[Matrix]:
        """`comparisons_P_N_N[p][i][j]`, above 0 where candidate i, shown first, beats j."""
        ...


def scores_of(comparisons_N_N: Matrix) -> list[float]:
    """score_i = mean over j of M[i,j] - M[j,i]; the diagonal counts as a comparison of 0.

    >>> scores_of([[0.0, 3.0], [-1.0, 0.0]])
    [2.0, -2.0]
    """
    n = len(comparisons_N_N)
    return [
        sum(comparisons_N_N[i][j] - comparisons_N_N[j][i] for j in range(n)) / n for i in range(n)
    ]


def load_ranker(ranking: Ranking, seed: int) -> Ranker:
    """The recipe's ranker, loaded."""
    return _RANKERS[ranking.ranker](ranking, seed)


def _function(ranking: Ranking, seed: int) -> Ranker:
    from selm.ranking.function import FunctionRanker

    return FunctionRanker(ranking.name_or_path or "")


def _random(ranking: Ranking, seed: int) -> Ranker:
    from selm.ranking.random import RandomRanker

    return RandomRanker(seed)


def _pairrm(ranking: Ranking, seed: int) -> Ranker:
    from selm.ranking.pairrm import PairRMRanker

    name = ranking.name_or_path or "llm-blender/PairRM"
    return PairRMRanker(name, ranking.revision, ranking.dtype, ranking.tokens_per_batch)


_RANKERS: dict[str, Callable[[Ranking, int], Ranker]] = {
    "pairrm": _pairrm,
    "function": _function,
    "random": _random,
}
