"""What every benchmark is: prompts, and a way to score the answers to them."""

from collections.abc import Callable
from dataclasses import dataclass

from selm.data.drops import Drops
from selm.data.schemas import DatasetRow, ResponseRow
from selm.recipe.schema import Recipe


@dataclass(frozen=True)
class Benchmark:
    """What the rest of the code knows of a benchmark. Reading it imports nothing heavy.

    Attributes:
        revision: another one for other prompts or another scoring: what was made before is stale.
        prompts: the rows that are answered, and what was dropped of them.
        score: of a row with its one answer, higher is better; it has a meaning by itself. None
            for a benchmark whose answers the recipe's ranker scores beside the base model's.
    """

    revision: int
    prompts: Callable[[Recipe], tuple[list[DatasetRow], Drops]]
    score: Callable[[ResponseRow], float] | None = None


def greedy(recipe: Recipe) -> Recipe:
    """The recipe as evaluation generates with it: one greedy response per prompt."""
    settings = {"temperature": 0.0, "top_p": 1.0, "num_samples": 1}
    return recipe.model_copy(update={"generation": recipe.generation.model_copy(update=settings)})
