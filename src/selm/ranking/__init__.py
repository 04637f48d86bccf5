"""Rankers: prompts and candidates in, scores out (higher is better)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from selm.chat import Message
from selm.errors import UserError
from selm.recipe import Ranking

Prompt = Sequence[Message]
Columns = Mapping[str, Any]


class Ranker(Protocol):
    """Judges candidates of the same prompt against each other.

    `pairwise` is True if a score has a meaning only beside the other candidates of its prompt
    (PairRM), False if it stands alone (a reward).
    """

    pairwise: bool

    def score(
        self,
        prompt_ids: Sequence[str],
        prompts: Sequence[Prompt],
        candidates: Sequence[list[str]],
        columns: Sequence[Columns] | None = None,
    ) -> list[list[float]]:
        """`scores_P_N[p][n]` for candidate n of prompt p; N may differ from prompt to prompt.

        Args:
            columns: what else the rows hold (`data.columns`), by prompt; most rankers ignore it.
        """
        ...


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
    raise UserError("ranking.ranker: pairrm cannot be loaded yet; use function or random")


_RANKERS: dict[str, Callable[[Ranking, int], Ranker]] = {
    "pairrm": _pairrm,
    "function": _function,
    "random": _random,
}
