"""Prompts that a ranker cannot read cost their own rows, not the stage."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from tqdm import tqdm

from selm.errors import UserError
from selm.escape import one_line

REASON = "refused_by_ranker"  # as dropped rows are counted

T = TypeVar("T")


class PromptRefused(UserError):
    """A ranker cannot read this prompt, whatever else it reads: a stage drops the row."""

    def __init__(self, message: str, prompt_id: str = "") -> None:
        super().__init__(message)
        self.prompt_id = prompt_id


def of_the_others(
    prompt_ids: Sequence[str], score: Callable[[Sequence[int]], Sequence[T]]
) -> dict[int, T]:
    """What `score` gives for the prompts at these indices, of those that are not refused.

    Args:
        score: of a list of indices; raises `PromptRefused` at the first that it cannot read.

    Returns:
        index -> result; indices of refused prompts are missing. A line says why, for the first.
    """
    left = list(range(len(prompt_ids)))
    while left:
        try:
            return dict(zip(left, score(left), strict=True))
        except PromptRefused as error:
            if len(left) == len(prompt_ids):
                tqdm.write(one_line(f"{error}: the prompt is dropped"))
            kept = [i for i in left if prompt_ids[i] != error.prompt_id]
            if kept == left:
                raise
            left = kept
    return {}
