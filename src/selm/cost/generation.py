"""The estimate of generation: the start, plus the engine's own (`generation/<engine>.py`)."""

from selm.cost.devices import device_of
from selm.cost.quantities import (
    DISK_BYTES_PER_SECOND,
    Cost,
    model_shape,
    portion_rows,
    text_bytes,
)
from selm.generation.kinds import KINDS
from selm.recipe.schema import Recipe
from selm.training.batch import num_processes


def cost(recipe: Recipe, t: int) -> Cost:
    """The estimate of `scripts/generate.py`."""
    return answers_cost(recipe, portion_rows(recipe, t), recipe.generation.num_samples)


def initial_cost(recipe: Recipe, t: int) -> Cost:
    """The estimate of `scripts/generate.py --policy initial`: one response to each prompt."""
    return answers_cost(recipe, portion_rows(recipe, t), 1)


def answers_cost(recipe: Recipe, rows: int, samples: int) -> Cost:
    """The estimate for this many answers to each of this many prompts."""
    device, shape, answers = device_of(recipe), model_shape(recipe), rows * samples
    response = min(recipe.estimate.response_tokens, recipe.generation.max_tokens)
    estimate = KINDS[recipe.generation.engine].cost
    memory, seconds = estimate(recipe, device, shape, answers / _workers(recipe), response)
    return Cost(
        rows=rows,
        tokens=answers * (recipe.estimate.prompt_tokens + response),
        memory=memory,
        disk_bytes=text_bytes(recipe, rows, response),
        seconds=device.start_seconds + 2 * shape.parameters / DISK_BYTES_PER_SECOND + seconds,
    )


def _workers(recipe: Recipe) -> int:
    """The number of engines: as many as the training's GPUs hold, unless the recipe sets it."""
    if recipe.estimate.device == "cpu":
        return 1
    if recipe.generation.workers != "auto":
        return recipe.generation.workers
    return max(1, num_processes(recipe) // recipe.generation.tensor_parallel_size)
