"""What training takes, on each GPU.

Memory, in bytes per trained parameter: weights 4, gradients 4, Adam's moments 8, and 2 for the bf16
copies of autocast; DDP holds the gradients once more. ZeRO-3 and FSDP2 divide by the number
of processes, and gather a part to compute with (Rajbhandari et al., arXiv 1910.02054, section 3).
LoRA trains the adapter alone, beside frozen weights. Activations are those of the fullest
micro-batch: see `layer_bytes`. The reference takes nothing: its log-probs are computed before the
first step.

Time: a forward takes 2 FLOPs per parameter and token, a backward 4, with LoRA 2 (Kaplan et al.,
arXiv 2001.08361, section 2.1); gradient checkpointing 2 more. FLOPs of attention are left out: 2 %
of a 7B model's at 1,024 tokens. Beside them: the start, moving weights between memory and
processor, calls of kernels, and the disk.

Half of the explored responses are taken to be neither chosen nor rejected, so that training reads
them too (by chance it would be a third, in the quickstart it is three quarters).
"""

import math
from dataclasses import replace

from selm.cost.devices import device_of
from selm.cost.quantities import (
    DISK_BYTES_PER_SECOND,
    GB,
    Cost,
    Memory,
    longest_of,
    model_shape,
    portion_rows,
)
from selm.model.shape import Shape
from selm.recipe.schema import Recipe
from selm.training.batch import accelerate_setting, gradient_accumulation_steps, num_processes

THIRD_RESPONSES = 0.5  # explored responses that are neither chosen nor rejected
HEAD_CHUNK_TOKENS = 512  # whose logits exist at one time (`training/head.py`)
LOGIT_BYTES = 20  # of each: bf16 and fp32, exponentials, gradients
OPTIMIZER_BYTES = 28  # per weight that a step moves: weights, gradients and moments
MICRO_BATCH_BYTES = 20  # per weight that a micro-batch moves: casts, gradients, their sum
LORA_SLOWDOWN = 1.7  # times a pass without: its many small products, measured at 135M
MOST_GATHERED = 1e9  # parameters that ZeRO-3 and FSDP2 hold gathered at one time


def cost(recipe: Recipe, t: int) -> Cost:
    """The estimate of `scripts/train.py`."""
    shape, rows, explores = model_shape(recipe), portion_rows(recipe, t), recipe.alpha(t) > 0
    tokens = rows * tokens_per_row(recipe, explores) * _epochs(recipe)
    steps = -(-rows // recipe.training.global_batch_size) * _epochs(recipe)
    saved_bytes = _trained(recipe, shape) * (14 if _distributed(recipe) == "DEEPSPEED" else 12)
    moved_bytes = 4 * shape.parameters + _saves(recipe, steps) * saved_bytes
    return Cost(
        rows=rows,
        tokens=tokens,
        memory=memory(recipe, shape, explores),
        disk_bytes=2 * shape.parameters,
        scratch_bytes=2 * saved_bytes,  # the last one is deleted when the next one is whole
        seconds=_step_seconds(recipe, shape, tokens, steps) + moved_bytes / DISK_BYTES_PER_SECOND,
    )


def _step_seconds(recipe: Recipe, shape: Shape, tokens: float, steps: float) -> float:
    """Of the start, all steps, and the reference's forward, which reads every row once."""
    device, trained = device_of(recipe), _trained(recipe, shape)
    devices = 1 if recipe.estimate.device == "cpu" else num_processes(recipe)
    flops = 2 * shape.multiplied * tokens * (_forwards(recipe) + 1 / _epochs(recipe))
    flops *= 2 if recipe.model.dtype == "float32" else 1  # at half the speed
    micro_batches = _micro_batches(recipe, tokens, steps)
    moved_bytes = steps * OPTIMIZER_BYTES * trained / _shards(recipe)
    moved_bytes += micro_batches * MICRO_BATCH_BYTES * trained
    return (
        device.start_seconds
        + device.seconds(flops / devices)
        + device.read_seconds(moved_bytes)
        + micro_batches * shape.layers * device.layer_seconds
    )


def _forwards(recipe: Recipe) -> float:
    """Forwards' worth of a training step: 1 forward, 2 backward (LoRA: 1), 1 recomputed."""
    if recipe.training.lora is not None:
        return LORA_SLOWDOWN * (2 + _checkpoints(recipe))
    return 3 + _checkpoints(recipe)


def _micro_batches(recipe: Recipe, tokens: float, steps: float) -> float:
    """Of one process, one after the other."""
    training, processes = recipe.training, num_processes(recipe)
    if training.tokens_per_micro_batch is not None:
        return max(tokens / processes / training.tokens_per_micro_batch, steps)
    return steps * gradient_accumulation_steps(recipe, processes)


def _epochs(recipe: Recipe) -> float:
    return float(recipe.training.trl_overrides().get("num_train_epochs") or 1)


def _checkpoints(recipe: Recipe) -> bool:
    """Whether activations are computed anew in the backward; TRL's default is true."""
    return bool(recipe.training.trl_overrides().get("gradient_checkpointing", True))


def _saves(recipe: Recipe, steps: float) -> int:
    """How many resume points are written; `save_steps` below 1 is a share, a quarter by default."""
    every = float(recipe.training.trl_overrides().get("save_steps", 0.25))
    return int(steps // (every * steps if every < 1 else every)) if every * steps else 0


def _distributed(recipe: Recipe) -> str:
    """NO, MULTI_GPU, FSDP or DEEPSPEED."""
    return str(accelerate_setting(recipe.training, "distributed_type"))


def _shards(recipe: Recipe) -> int:
    """Among how many processes weights, gradients and moments are divided."""
    return num_processes(recipe) if _distributed(recipe) in ("FSDP", "DEEPSPEED") else 1


def _trained(recipe: Recipe, shape: Shape) -> int:
    lora = recipe.training.lora
    return shape.parameters if lora is None else shape.adapter_parameters(lora.r)


# --- tokens ---


def is_shared(recipe: Recipe) -> bool:
    """Whether the forward computes each prompt once (`training/forward.py`); `auto`: on a CPU."""
    forward = recipe.training.forward
    return forward == "shared" or (forward == "auto" and recipe.estimate.device == "cpu")


def tokens_per_row(recipe: Recipe, explores: bool) -> float:
    """That the model computes for a row on average, padding included."""
    given, limit = recipe.estimate, recipe.training.max_length
    responses = 2 + THIRD_RESPONSES * explores
    if is_shared(recipe):
        response = max(min(given.response_tokens, limit - given.prompt_tokens), 1)
        return min(given.prompt_tokens, limit) + responses * response
    rows = recipe.training.per_device_train_batch_size
    if recipe.training.tokens_per_micro_batch is not None:
        rows = max(1, round(recipe.training.tokens_per_micro_batch / _once(recipe, responses)))
    mean = given.prompt_tokens + given.response_tokens
    width = (mean + longest_of(mean, rows * responses)) / 2  # a sum of two texts varies less
    return responses * min(width, limit)


def _once(recipe: Recipe, responses: float) -> float:
    """Tokens of a row, its prompt counted once: what `tokens_per_micro_batch` counts."""
    return recipe.estimate.prompt_tokens + responses * recipe.estimate.response_tokens


def fullest_batch(recipe: Recipe, explores: bool) -> float:
    """Tokens of the largest micro-batch: the budget if there is one, or a row that exceeds it."""
    budget = recipe.training.tokens_per_micro_batch
    if budget is None:
        return _fullest(recipe, explores, recipe.training.per_device_train_batch_size)
    if not is_shared(recipe):  # the budget counts a prompt once
        given, responses = recipe.estimate, 3 if explores else 2
        repeated = responses * (given.prompt_tokens + given.response_tokens)
        budget *= repeated / _once(recipe, responses)
    return max(budget, _fullest(recipe, explores, rows=1))


def _fullest(recipe: Recipe, explores: bool, rows: int) -> float:
    """Tokens of so many rows, if all texts are at their longest; or on the shared path, where
    lengths add up, two standard deviations above the mean. Of a row one is half its mean."""
    if is_shared(recipe):
        return rows * tokens_per_row(recipe, explores) * (1 + 1 / math.sqrt(rows))
    given = recipe.estimate
    response = max(recipe.generation.max_tokens, given.response_tokens)
    width = min(recipe.training.max_length, 2 * given.prompt_tokens + response)
    return rows * (3 if explores else 2) * width


# --- memory ---


def memory(recipe: Recipe, shape: Shape, explores: bool) -> Memory:
    """Peak of one training process; see the top of this file."""
    device, trained = device_of(recipe), _trained(recipe, shape)
    how, shards = _distributed(recipe), _shards(recipe)
    gathers = how == "DEEPSPEED" or shards > 1
    autocasts = recipe.model.dtype != "float32"
    weights = (4 * trained + _frozen_bytes(recipe, shape)) / shards
    if gathers:
        weights += 2 * min(shape.parameters, MOST_GATHERED)
    elif autocasts and recipe.training.lora is None:
        weights += 2 * shape.multiplied
    peak = device.memory(
        weights=weights,
        gradients=(8 if how == "MULTI_GPU" else 4) * trained / shards,
        optimizer=8 * trained / shards,
        activations=_activations(recipe, shape, explores, 2 if gathers and autocasts else 4),
    )
    return replace(peak, other=peak.other + device.trainer_gb * GB)


def _frozen_bytes(recipe: Recipe, shape: Shape) -> float:
    """Of the weights below a LoRA adapter: the recipe's dtype, or 4 bits and their scales."""
    lora = recipe.training.lora
    if lora is None:
        return 0.0
    each = 4 if recipe.model.dtype == "float32" else 2
    if not lora.load_in_4bit:
        return each * shape.parameters
    in_layers = shape.multiplied - shape.vocab * shape.hidden
    return 0.52 * in_layers + each * (shape.parameters - in_layers)


def _activations(recipe: Recipe, shape: Shape, explores: bool, hidden_bytes: int) -> float:
    """Kept for the backward of one micro-batch: its layers, or what goes between them, and logits.

    hidden_bytes: of each number that goes from layer to layer.
    """
    tokens, layer = fullest_batch(recipe, explores), layer_bytes(recipe, shape)
    logits = min(tokens, HEAD_CHUNK_TOKENS) * shape.vocab * LOGIT_BYTES
    if not _checkpoints(recipe):
        return tokens * shape.layers * layer + logits
    return tokens * (shape.layers * hidden_bytes * shape.hidden + layer) + logits


def layer_bytes(recipe: Recipe, shape: Shape) -> float:
    """Bytes per token that one layer keeps for its backward; a test counts PyTorch's.

    Under bf16: the two norms keep inputs and results in fp32 (16 per hidden unit), the five
    matrices behind them a bf16 copy each (10); attention its queries, keys, values and result,
    some of them twice; the MLP four tensors. In fp32 the copies are the norms' results.
    """
    hidden, queries = shape.hidden, shape.heads * shape.head_dim
    if recipe.model.dtype == "float32":
        return 24 * hidden + 26 * queries + 16 * shape.intermediate
    return 26 * hidden + 11 * queries + 8 * shape.intermediate
