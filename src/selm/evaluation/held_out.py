"""The benchmark `held_out`: prompts of the recipe's test split, scored by its ranker."""

from selm.data.drops import Drops
from selm.data.schemas import DatasetRow
from selm.evaluation.base import Benchmark
from selm.recipe.schema import Recipe


def _prompts(recipe: Recipe) -> tuple[list[DatasetRow], Drops]:
    from selm.data.portions import held_out_portion

    return held_out_portion(recipe)


HELD_OUT = Benchmark(revision=1, prompts=_prompts)
