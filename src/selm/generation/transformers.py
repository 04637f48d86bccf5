"""The description of the engine `transformers`, which runs anywhere (`transformers_engine.py`)."""

from selm.cost.devices import Device
from selm.cost.quantities import Memory, longest_of
from selm.generation.base import Engine, EngineKind, Harness
from selm.model.shape import Shape
from selm.recipe.schema import Generation, Model, Recipe

STEP_SECONDS, STEP_SECONDS_PER_LAYER = 0.005, 0.0005  # of its Python, for a token


def _load(path: str, model: Model, generation: Generation, longest_prompt: int | None) -> Engine:
    from selm.generation.transformers_engine import TransformersEngine

    return TransformersEngine(path, model, generation)


def _harness(path: str, recipe: Recipe, longest_text: int | None) -> Harness:
    from selm.generation.transformers_engine import load_harness

    return load_harness(path, recipe)


def _cost(
    recipe: Recipe, device: Device, shape: Shape, answers: float, response: float
) -> tuple[Memory, float]:
    """A batch runs until its longest answer ends; rows that have ended leave it."""
    prompt, limit = recipe.estimate.prompt_tokens, recipe.generation.max_tokens
    batch = min(recipe.generation.batch_size, max(answers, 1))
    weights = (4 if recipe.model.dtype == "float32" else 2) * shape.parameters
    step_seconds = STEP_SECONDS + shape.layers * STEP_SECONDS_PER_LAYER
    step_seconds += device.read_seconds(weights)
    longest = min(limit, longest_of(response, batch))
    batch_seconds = device.seconds(batch * prompt * 2 * shape.multiplied) + longest * step_seconds
    batch_seconds += response * device.decode_seconds(batch * 2 * shape.multiplied)
    logits = batch * shape.vocab * 4 * 3  # in fp32, and two tensors of their size
    cache = batch * (prompt + limit) * shape.cache_bytes
    memory = device.memory(weights=weights, activations=logits, cache=cache)
    return memory, answers / batch * batch_seconds


TRANSFORMERS = EngineKind(load=_load, cost=_cost, harness=_harness)
