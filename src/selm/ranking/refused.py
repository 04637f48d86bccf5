"""Drops the rows of prompts that a ranker cannot read, so that the stage continues."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from selm import progress
from selm.errors import UserError
from selm.escape import one_line
from selm.ranking.base import Pool

REASON = "refused_by_ranker"  # as dropped rows are counted

T = TypeVar("T")


class PromptRefused(UserError):
    """A ranker cannot read this prompt but may read others: a stage drops the row."""

    def __init__(self, message: str, prompt_id: str = "") -> None:
        super().__init__(message)
        self.prompt_id = prompt_id


def of_the_others(
    pools: Sequence[Pool], score: Callable[[Sequence[Pool]], Sequence[T]]
) -> dict[str, T]:
    """prompt_id -> what `score` gives for its pool, of those that are not refused.

    Args:
        score: raises `PromptRefused` at the first pool that it cannot read. A line says why.
    """
    left = list(pools)
    while left:
        try:
            found = score(left)
            return {pool.prompt_id: one for pool, one in zip(left, found, strict=True)}
        except PromptRefused as error:
            if len(left) == len(pools):
                progress.say(one_line(f"{error}: the prompt is dropped"))
            kept = [pool for pool in left if pool.prompt_id != error.prompt_id]
            if len(kept) == len(left):
                raise
            left = kept
    return {}
