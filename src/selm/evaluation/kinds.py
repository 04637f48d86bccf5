"""The benchmarks: each one is a file beside this one and a line here."""

from selm.evaluation.base import Benchmark
from selm.evaluation.held_out import HELD_OUT
from selm.recipe.schema import Recipe

BENCHMARKS: dict[str, Benchmark] = {
    "held_out": HELD_OUT,
}


def benchmark_of(recipe: Recipe) -> Benchmark:
    return BENCHMARKS[recipe.evaluation.benchmark]
