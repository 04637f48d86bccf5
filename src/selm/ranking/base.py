"""What every ranker is: prompts and candidates in, scores out (higher is better)."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from selm.data.schemas import Message

Prompt = Sequence[Message]

Columns = Mapping[str, Any]

Matrix = list[list[float]]


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


class PairwiseRanker(Ranker, Protocol):
    """A ranker with `pairwise` True, which scores by comparing candidates two by two.

    `tie` is the score of a candidate beside none but its like.
    """

    tie: float

    def compare(
        self,
        prompt_ids: Sequence[str],
        prompts: Sequence[Prompt],
        candidates: Sequence[list[str]],
        columns: Sequence[Columns] | None = None,
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
