"""Estimates of the benchmarks, from what each says of its work (`Workload`).

Answers take what the engine's description says. A text whose log-probs alone are read takes 2 FLOPs
per parameter and token. The time of a judge that is an LLM elsewhere is not estimated.
"""

from dataclasses import replace

from selm.cost.devices import device_of
from selm.cost.generation import answers_cost
from selm.cost.quantities import DISK_BYTES_PER_SECOND, Cost, model_shape
from selm.cost.ranking import scores_cost
from selm.evaluation.base import Workload
from selm.evaluation.kinds import BENCHMARKS
from selm.ranking.kinds import kind_of
from selm.recipe.schema import Recipe
from selm.training.batch import num_processes


def workload(recipe: Recipe, name: str) -> Workload:
    """The benchmark's own; requests count only if an LLM judges."""
    load = BENCHMARKS[name].workload(recipe)
    return load if is_asked(recipe, name) else replace(load, requests=0, request_tokens=0.0)


def is_asked(recipe: Recipe, name: str) -> bool:
    """Whether the benchmark asks an LLM as its judge."""
    return BENCHMARKS[name].judged and kind_of(recipe.benchmark_judge()).asker is not None


def cost(recipe: Recipe, name: str) -> Cost:
    """The estimate of all that one benchmark takes for one policy."""
    load = BENCHMARKS[name].workload(recipe)
    asked = _reading_cost(recipe, load) if load.answer_tokens == 0 else _writing_cost(recipe, load)
    if not BENCHMARKS[name].judged or is_asked(recipe, name):
        return asked
    judged = scores_cost(recipe, recipe.benchmark_judge(), load.questions, pool=2)
    return Cost(load.questions, asked.tokens, asked.memory, seconds=asked.seconds + judged.seconds)


def start_seconds(recipe: Recipe) -> float:
    """To start and to load the policy, which benchmarks in one process do once."""
    read_seconds = 2 * model_shape(recipe).parameters / DISK_BYTES_PER_SECOND
    return device_of(recipe).start_seconds + read_seconds


def _writing_cost(recipe: Recipe, load: Workload) -> Cost:
    lengths = {
        "prompt_tokens": round(load.text_tokens),
        "response_tokens": round(load.answer_tokens),
    }
    estimate = recipe.estimate.model_copy(update=lengths)
    return answers_cost(recipe.model_copy(update={"estimate": estimate}), load.texts, samples=1)


def _reading_cost(recipe: Recipe, load: Workload) -> Cost:
    device, shape, tokens = device_of(recipe), model_shape(recipe), load.texts * load.text_tokens
    workers = 1 if recipe.estimate.device == "cpu" else num_processes(recipe)
    seconds = device.seconds(tokens * 2 * shape.multiplied) / workers
    seconds += start_seconds(recipe) if load.texts else 0
    memory = device.memory(weights=2 * shape.parameters)
    return Cost(load.questions, tokens, memory, seconds=seconds)
