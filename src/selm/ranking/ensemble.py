"""Several rankers as one: the mean of their scores, each put on the same scale."""

import math
from collections.abc import Sequence
from pathlib import Path

from selm.errors import UserError
from selm.ranking.base import Columns, Matrix, Prompt, Ranker
from selm.ranking.kinds import load_ranker
from selm.ranking.refused import PromptRefused
from selm.recipe.schema import Ranking


class EnsembleRanker:
    """Every member has an equal say in every prompt, whatever the unit of its scores."""

    pairwise = True  # normalised scores have a meaning within their pool alone
    tie = 0.0

    def __init__(self, members: Sequence[Ranking], seed: int, verdicts: Path | None) -> None:
        self.members = members
        self.rankers: list[Ranker] = []
        for i, member in enumerate(members):
            try:
                self.rankers.append(load_ranker(member, seed, verdicts))
            except UserError as error:
                raise self._named(i, error) from error

    def score(
        self,
        prompt_ids: Sequence[str],
        prompts: Sequence[Prompt],
        candidates: Sequence[list[str]],
        columns: Sequence[Columns] | None = None,
    ) -> list[list[float]]:
        """See `Ranker`."""
        scores_P_R_N = self.score_by_member(prompt_ids, prompts, candidates, columns)
        return [combined(scores_R_N) for scores_R_N in scores_P_R_N]

    def score_by_member(
        self,
        prompt_ids: Sequence[str],
        prompts: Sequence[Prompt],
        candidates: Sequence[list[str]],
        columns: Sequence[Columns] | None = None,
    ) -> list[list[list[float]]]:
        """`scores_P_R_N[p][r][n]`: what member r gave candidate n of prompt p, in its own unit.

        Raises:
            UserError: what a member raises, with the member's key before it.
        """
        scores_R_P_N: list[list[list[float]]] = []
        for i, ranker in enumerate(self.rankers):
            try:
                scores_R_P_N.append(ranker.score(prompt_ids, prompts, candidates, columns))
            except UserError as error:
                raise self._named(i, error) from error
        return [list(scores_R_N) for scores_R_N in zip(*scores_R_P_N, strict=True)]

    def compare(
        self,
        prompt_ids: Sequence[str],
        prompts: Sequence[Prompt],
        candidates: Sequence[list[str]],
        columns: Sequence[Columns] | None = None,
    ) -> list[Matrix]:
        """See `PairwiseRanker`: half the difference of the scores, in both orders."""
        scores_P_N = self.score(prompt_ids, prompts, candidates, columns)
        return [[[(a - b) / 2 for b in scores] for a in scores] for scores in scores_P_N]

    def _named(self, i: int, error: UserError) -> UserError:
        message = f"ranking.rankers.{i} ({self.members[i].ranker}): {error}"
        if isinstance(error, PromptRefused):
            return PromptRefused(message, error.prompt_id)
        return UserError(message)


def combined(scores_R_N: Sequence[Sequence[float]]) -> list[float]:
    """Mean over R rankers of the normalised scores of one prompt's N candidates.

    Rounded to nine digits, so that votes which cancel out are a tie and not a matter of rounding.

    >>> combined([[1.0, 2.0, 3.0], [70.0, 50.0, 60.0]])
    [0.0, -0.612372436, 0.612372436]
    """
    normalised = [normalise(scores_N) for scores_N in scores_R_N]
    return [round(sum(column) / len(column), 9) for column in zip(*normalised, strict=True)]


def normalise(scores_N: Sequence[float]) -> list[float]:
    """Standard scores within the pool: mean 0, standard deviation 1; zeros if all are equal.

    Within the pool, because a ranker's level and spread differ from prompt to prompt and only
    differences within a prompt decide. Standard scores instead of ranks, because two rankers who
    disagree by ranks often tie, and a tie is a row lost; the size of a difference settles those.

    >>> normalise([1.0, 2.0, 3.0])
    [-1.224744871391589, 0.0, 1.224744871391589]
    >>> normalise([5.0, 5.0]), normalise([0.1, 0.9])
    ([0.0, 0.0], [-1.0, 1.0])
    """
    if all(math.isclose(score, scores_N[0], rel_tol=1e-9, abs_tol=1e-12) for score in scores_N):
        return [0.0] * len(scores_N)  # what differs by rounding alone must not become a vote
    mean = sum(scores_N) / len(scores_N)
    deviation = math.sqrt(sum((score - mean) ** 2 for score in scores_N) / len(scores_N))
    return [(score - mean) / deviation for score in scores_N]
