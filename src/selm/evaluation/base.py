"""The interface of benchmarks: prompts, and a way to score the answers to them."""

from collections.abc import Callable
from dataclasses import dataclass

from selm.data.drops import Drops
from selm.data.schemas import DatasetRow, ResponseRow
from selm.recipe.schema import Recipe


@dataclass(frozen=True)
class Benchmark:
    """What the rest of the code knows of a benchmark. Reading it imports nothing heavy.

    Attributes:
        revision: raise it if the prompts or the scoring change; older artifacts are then stale.
        prompts: the rows to answer, and the dropped ones.
        score: the score of a row with its one answer, which has a meaning by itself; higher is
            better. None if the recipe's ranker scores the answers beside the base model's.
    """

    revision: int
    prompts: Callable[[Recipe], tuple[list[DatasetRow], Drops]]
    score: Callable[[ResponseRow], float] | None = None


def greedy(recipe: Recipe) -> Recipe:
    """The recipe as evaluation generates with it: one greedy response per prompt."""
    settings = {"temperature": 0.0, "top_p": 1.0, "num_samples": 1}
    return recipe.model_copy(update={"generation": recipe.generation.model_copy(update=settings)})
