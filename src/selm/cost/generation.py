"""What generation takes.

Decoding is arithmetic (2 FLOPs per parameter and token, at the share `decode_mfu`) and reads all
weights for each token, and the cache of each sequence (Pope et al., arXiv 2211.05102, section 2).
vLLM takes 90 % of a GPU whatever it needs: it fits if the weights and one whole context do.
"""

from selm.cost.devices import Device, device_of
from selm.cost.quantities import (
    DISK_BYTES_PER_SECOND,
    GB,
    Cost,
    Memory,
    longest_of,
    model_shape,
    portion_rows,
    text_bytes,
)
from selm.model.shape import Shape
from selm.recipe.schema import Recipe
from selm.training.batch import num_processes

VLLM_SHARE = 0.9  # of a GPU's memory
VLLM_SEQUENCES = 256  # that vLLM decodes at a time, at most
STEP_SECONDS, STEP_SECONDS_PER_LAYER = 0.005, 0.0005  # of transformers' Python, for a token
TOKENS_AT_A_TIME = 8  # after which ended answers leave a batch (`generation/transformers.py`)


def cost(recipe: Recipe, t: int) -> Cost:
    """The estimate of `scripts/generate.py`."""
    return answers_cost(recipe, portion_rows(recipe, t), recipe.generation.num_samples)


def answers_cost(recipe: Recipe, rows: int, samples: int) -> Cost:
    """Of so many answers to each of so many prompts."""
    response = min(recipe.estimate.response_tokens, recipe.generation.max_tokens)
    device, shape, answers = device_of(recipe), model_shape(recipe), rows * samples
    estimate = _vllm if recipe.generation.engine == "vllm" else _transformers
    memory, seconds = estimate(recipe, device, shape, answers, response)
    return Cost(
        rows=rows,
        tokens=answers * (recipe.estimate.prompt_tokens + response),
        memory=memory,
        disk_bytes=text_bytes(recipe, rows, response),
        seconds=device.start_seconds + 2 * shape.parameters / DISK_BYTES_PER_SECOND + seconds,
    )


def _workers(recipe: Recipe) -> int:
    """Engines at work at a time: as many as the GPUs of training carry, unless the recipe says."""
    if recipe.estimate.device == "cpu":
        return 1
    if recipe.generation.workers != "auto":
        return recipe.generation.workers
    return max(1, num_processes(recipe) // recipe.generation.tensor_parallel_size)


def _vllm(
    recipe: Recipe, device: Device, shape: Shape, answers: int, response: float
) -> tuple[Memory, float]:
    """As many sequences at a time as the cache holds."""
    prompt, parallel = recipe.estimate.prompt_tokens, recipe.generation.tensor_parallel_size
    weights, other = 2 * shape.parameters / parallel, device.other_gb * GB
    token_bytes = shape.cache_bytes / parallel
    room = VLLM_SHARE * device.memory_gb * GB - other - weights
    cache = max(room, (prompt + recipe.generation.max_tokens) * token_bytes)
    mean_bytes = (prompt + response / 2) * token_bytes  # of a sequence's cache, half-way
    answers_each = answers / _workers(recipe)
    at_a_time = max(min(VLLM_SEQUENCES, cache / mean_bytes, answers_each), 1)
    step_seconds = device.read_seconds(weights + at_a_time * mean_bytes)
    step_seconds += device.decode_seconds(at_a_time * 2 * shape.multiplied) / parallel
    prefill_seconds = device.seconds(answers_each * prompt * 2 * shape.multiplied) / parallel
    seconds = prefill_seconds + answers_each * response / at_a_time * step_seconds
    return Memory(weights=weights, cache=cache, other=other), seconds


def _transformers(
    recipe: Recipe, device: Device, shape: Shape, answers: int, response: float
) -> tuple[Memory, float]:
    """A batch goes on until its longest answer ends; rows leave it soon after they have ended."""
    prompt, limit = recipe.estimate.prompt_tokens, recipe.generation.max_tokens
    batch = min(recipe.generation.batch_size, max(answers, 1))
    weights = (4 if recipe.model.dtype == "float32" else 2) * shape.parameters
    step_seconds = STEP_SECONDS + shape.layers * STEP_SECONDS_PER_LAYER
    step_seconds += device.read_seconds(weights)
    longest = min(limit, longest_of(response, batch))
    computed = min(longest, response + TOKENS_AT_A_TIME / 2)
    batch_seconds = device.seconds(batch * prompt * 2 * shape.multiplied) + longest * step_seconds
    batch_seconds += computed * device.decode_seconds(batch * 2 * shape.multiplied)
    logits = batch * shape.vocab * 4 * 3  # in fp32, and two tensors of their size
    cache = batch * (prompt + limit) * shape.cache_bytes
    memory = device.memory(weights=weights, activations=logits, cache=cache)
    return memory, answers / batch * batch_seconds
