"""The stages of the benchmarks, which are no part of the run: answers, if any, and results."""

from collections.abc import Sequence
from itertools import groupby

from selm.evaluation.kinds import BENCHMARKS
from selm.recipe.schema import Recipe
from selm.run.stages import benchmarked_iterations


def stages_of(name: str) -> list[str]:
    """The stages of one benchmark, in order."""
    parts = ["results"] if BENCHMARKS[name].answer is None else ["answers", "results"]
    return [f"benchmarks/{name}/{part}" for part in parts]


def results(recipe: Recipe) -> list[tuple[str, int]]:
    """The results that the recipe asks for, by iteration."""
    return [
        (f"benchmarks/{name}/results", t)
        for t in benchmarked_iterations(recipe)
        for name in recipe.benchmarks.names
    ]


def groups(names: Sequence[str]) -> list[list[str]]:
    """The benchmarks that one process measures: those that load the policy share it.

    A policy and a judge never share a process, nor a GPU.

    >>> groups(["gsm8k", "hellaswag", "alpaca_eval"])
    [['gsm8k', 'hellaswag'], ['alpaca_eval']]
    """
    together = groupby(names, key=lambda name: "" if BENCHMARKS[name].asks_policy else name)
    return [list(group) for _, group in together]
