"""The estimate of training, for each GPU.

Memory, in bytes per trained parameter: weights 4, gradients 4, Adam's moments 8, and 2 for the bf16
copies of autocast; DDP holds the gradients once more. ZeRO-3 and FSDP2 divide by the number
of processes, and gather a part to compute with (Rajbhandari et al., arXiv 1910.02054, section 3);
ZeRO-3 also keeps the bf16 copies, so it takes 18 bytes.
LoRA trains only the adapter, above frozen weights. Activations are those of the fullest
micro-batch: see `layer_bytes`. The reference needs no memory: its log-probs are computed before the
first step.

Time: a forward takes 2 FLOPs per parameter and token, a backward 4, with LoRA 2 (Kaplan et al.,
arXiv 2001.08361, section 2.1); gradient checkpointing 2 more. FLOPs of attention are left out: 2 %
of a 7B model's at 1,024 tokens. Beside them: the start, calls of kernels, and the disk.

The estimate assumes that half of the explored responses are neither chosen nor rejected, so that
training reads them too (by chance it would be a third, in the quickstart it is three quarters).
"""

import math

from selm.cost.devices import device_of
from selm.cost.quantities import (
    DISK_BYTES_PER_SECOND,
    Cost,
    Memory,
    longest_of,
    model_shape,
    portion_rows,
)
from selm.model.shape import Shape
from selm.recipe.schema import Recipe
from selm.training.batch import accelerate_setting, gradient_accumulation_steps, num_processes
from selm.training.choice import Facts, decide, obstacle
from selm.training.objective import reads_explored
from selm.training.steps import optimizer_steps, saved_steps

THIRD_RESPONSES = 0.5  # explored responses that are neither chosen nor rejected
HEAD_CHUNK_TOKENS = 512  # whose logits exist at one time (`training/head.py`)
LOGIT_BYTES = 20  # of each: bf16 and fp32, exponentials, gradients
MASK_TILE = 128  # positions of a tile of the mask (`training/flex.py`)
LORA_SLOWDOWN = 1.7  # times a pass without: its many small products, measured at 135M
MOST_GATHERED = 1e9  # parameters that ZeRO-3 and FSDP2 hold gathered at one time


def cost(recipe: Recipe, t: int) -> Cost:
    """The estimate of `scripts/train.py`."""
    shape, rows, explores = model_shape(recipe), portion_rows(recipe, t), reads_explored(recipe, t)
    batch, settings = recipe.training.global_batch_size, recipe.training.trl_overrides()
    steps = optimizer_steps(rows, batch, settings)
    steps_of_epoch = max(optimizer_steps(rows, batch, {}), 1)
    epochs = steps / steps_of_epoch
    tokens = rows * tokens_per_row(recipe, explores)
    saves = len(saved_steps(steps, steps_of_epoch, settings))
    saved_bytes = _trained(recipe, shape) * (14 if _distributed(recipe) == "DEEPSPEED" else 12)
    moved_bytes = 4 * shape.parameters + saves * saved_bytes  # the model's are read and written
    kept = (
        settings.get("save_total_limit", 1) or saves
    ) + 1  # the oldest is deleted when the next is whole
    return Cost(
        rows=rows,
        tokens=tokens * epochs,
        memory=memory(recipe, shape, explores),
        disk_bytes=2 * shape.parameters,
        scratch_bytes=min(saves, kept) * saved_bytes,
        seconds=device_of(recipe).start_seconds
        + _forward_seconds(recipe, shape, tokens)  # of the reference
        + _step_seconds(recipe, shape, tokens * epochs, steps)
        + moved_bytes / DISK_BYTES_PER_SECOND,
    )


def _forward_seconds(recipe: Recipe, shape: Shape, tokens: float) -> float:
    devices = 1 if recipe.estimate.device == "cpu" else num_processes(recipe)
    slower = 2 if recipe.model.dtype == "float32" else 1
    return device_of(recipe).seconds(2 * shape.multiplied * tokens * slower / devices)


def _step_seconds(recipe: Recipe, shape: Shape, tokens: float, steps: int) -> float:
    """A step is 1 forward, 2 forwards' worth of backward (LoRA: 1), and 1 that is recomputed."""
    training, processes = recipe.training, num_processes(recipe)
    if training.lora is None:
        forwards = 3 + _checkpoints(recipe)
    else:
        forwards = LORA_SLOWDOWN * (2 + _checkpoints(recipe))
    if training.tokens_per_micro_batch is None:
        micro_batches = steps * gradient_accumulation_steps(recipe, processes)
    else:
        micro_batches = max(tokens / processes / training.tokens_per_micro_batch, steps)
    calls_seconds = micro_batches * shape.layers * device_of(recipe).layer_seconds
    return forwards * _forward_seconds(recipe, shape, tokens) + calls_seconds


def _checkpoints(recipe: Recipe) -> bool:
    """Whether the backward pass computes activations again; TRL's default is true."""
    return bool(recipe.training.trl_overrides().get("gradient_checkpointing", True))


def _distributed(recipe: Recipe) -> str:
    """NO, MULTI_GPU, FSDP or DEEPSPEED."""
    return str(accelerate_setting(recipe.training, "distributed_type"))


def _trained(recipe: Recipe, shape: Shape) -> int:
    lora = recipe.training.lora
    return shape.parameters if lora is None else shape.adapter_parameters(lora.r)


def forward_of(recipe: Recipe) -> tuple[bool, str]:
    """Whether the trainer will take the shared path, and why; its self-check may still refuse it.

    Raises:
        UserError: the recipe asks for `shared`, but its model cannot take that path.
    """
    shape, training = model_shape(recipe), recipe.training
    trusted = shape.own_code and recipe.model.trust_remote_code
    model = Facts(
        family=shape.family,
        window=shape.window,
        dropout=shape.dropout,
        foreign="its code is on the Hub" if trusted else None,
    )
    weighting = bool(training.trl_overrides().get("use_weighting", False))
    device = "cpu" if recipe.estimate.device == "cpu" else "cuda"
    return decide(training.forward, obstacle(model, training.max_length, weighting, device))


def is_shared(recipe: Recipe) -> bool:
    """Whether the forward computes each prompt once."""
    return forward_of(recipe)[0]


def tokens_per_row(recipe: Recipe, explores: bool) -> float:
    """The mean number of tokens that the model computes for a row, padding included."""
    given, limit = recipe.estimate, recipe.training.max_length
    responses = 2 + THIRD_RESPONSES * explores
    if is_shared(recipe):
        response = max(min(given.response_tokens, limit - given.prompt_tokens), 1)
        return min(given.prompt_tokens, limit) + responses * response
    rows: float = recipe.training.per_device_train_batch_size
    if recipe.training.tokens_per_micro_batch is not None:
        rows = max(1, round(recipe.training.tokens_per_micro_batch / _once(recipe, responses)))
    mean = given.prompt_tokens + given.response_tokens
    width = (mean + longest_of(mean, rows * responses)) / 2  # a sum of two texts varies less
    return responses * min(width, limit)


def _once(recipe: Recipe, responses: float) -> float:
    """Tokens of a row, its prompt counted once: what `tokens_per_micro_batch` counts."""
    return recipe.estimate.prompt_tokens + responses * recipe.estimate.response_tokens


def fullest_batch(recipe: Recipe, explores: bool) -> float:
    """Tokens of the largest micro-batch: its budget, if there is one and the longest row is in it.

    Without a budget, all texts are as long as the longest. On the shared path, where lengths add
    up, the sum is two standard deviations above its mean; the deviation of a row is half its mean.
    """
    given, training, responses = recipe.estimate, recipe.training, 3 if explores else 2
    budget = training.tokens_per_micro_batch
    rows = training.per_device_train_batch_size if budget is None else 1
    if is_shared(recipe):
        longest = rows * tokens_per_row(recipe, explores) * (1 + 1 / math.sqrt(rows))
        return max(budget or 0, longest)
    response = max(recipe.generation.max_tokens, given.response_tokens)
    width = min(training.max_length, 2 * given.prompt_tokens + response)
    repeated = responses * (given.prompt_tokens + given.response_tokens) / _once(recipe, responses)
    return max((budget or 0) * repeated, rows * responses * width)


def memory(recipe: Recipe, shape: Shape, explores: bool) -> Memory:
    """Peak of one training process; see the top of this file."""
    trained, how = _trained(recipe, shape), _distributed(recipe)
    shards = num_processes(recipe) if how in ("FSDP", "DEEPSPEED") else 1
    autocasts = recipe.model.dtype != "float32"
    weights = (4 * trained + _frozen_bytes(recipe, shape)) / shards
    if how == "DEEPSPEED":  # the model's own weights beside the fp32 ones that it steps
        weights += (2 if autocasts else 4) * trained / shards
    if _gathers(recipe):
        weights += 2 * min(shape.parameters, MOST_GATHERED)
    elif autocasts and recipe.training.lora is None:
        weights += 2 * shape.multiplied
    return device_of(recipe).memory(
        weights=weights,
        gradients=(8 if how == "MULTI_GPU" else 4) * trained / shards,
        optimizer=8 * trained / shards,
        activations=_activations(recipe, shape, fullest_batch(recipe, explores)),
    )


def _frozen_bytes(recipe: Recipe, shape: Shape) -> float:
    """Bytes of the weights below a LoRA adapter: in the recipe's dtype, or 4 bits plus scales."""
    lora = recipe.training.lora
    if lora is None:
        return 0.0
    each = 4 if recipe.model.dtype == "float32" else 2
    if not lora.load_in_4bit:
        return each * shape.parameters
    in_layers = shape.multiplied - shape.vocab * shape.hidden
    return 0.52 * in_layers + each * (shape.parameters - in_layers)


def _activations(recipe: Recipe, shape: Shape, tokens: float) -> float:
    """Kept for the backward of one micro-batch: its layers, or what goes between them, and logits.

    Beside them the backward of one MLP has three gradients at one time: of the two tensors that
    are multiplied there, and of what is passed from layer to layer.
    """
    layer, each = layer_bytes(recipe, shape), 4 if recipe.model.dtype == "float32" else 2
    between = (2 if _computes_in_bf16(recipe) else 4) * shape.hidden
    gradients = between + 2 * each * shape.intermediate
    logits = min(tokens, HEAD_CHUNK_TOKENS) * shape.vocab * LOGIT_BYTES
    if is_shared(recipe):
        logits += shared_bytes(recipe, shape, tokens)
    kept = shape.layers * layer
    if _checkpoints(recipe):
        kept = shape.layers * between + layer
    return tokens * (kept + gradients) + logits


def shared_bytes(recipe: Recipe, shape: Shape, tokens: float) -> float:
    """The mask of `training/flex.py`, and the sum of the head's gradients of `training/head.py`.

    The mask has four numbers of four bytes for each tile, and two of eight for each position. The
    sum is in fp32, beside the gradient of one chunk; all activations are still there.
    """
    mask = 16 * (tokens / MASK_TILE) ** 2 + 16 * tokens
    if recipe.training.lora is not None:
        return mask
    return mask + (8 if recipe.model.dtype == "float32" else 6) * shape.vocab * shape.hidden


def layer_bytes(recipe: Recipe, shape: Shape) -> float:
    """Bytes per token that one layer keeps for its backward; tests count PyTorch's.

    Of each of the two norms: its input and the normalised input, in fp32 (8 per hidden unit), or
    where the weights are in 16 bits the second of them in 16 bits (6). Behind the norms the result:
    2 of each, where both weights and result have 16 bits (together 16); under autocast over fp32
    weights a 16-bit copy for each of five matrices (26); in fp32 one for all (24).
    The MLP keeps four tensors: two results, the activation, and the product.
    """
    hidden, inner = shape.hidden, shape.intermediate
    if recipe.model.dtype == "float32":
        return 24 * hidden + 16 * inner + _attention_bytes(recipe, shape)
    of_norms = 16 if _computes_in_bf16(recipe) else 26
    return of_norms * hidden + 8 * inner + _attention_bytes(recipe, shape)


def _attention_bytes(recipe: Recipe, shape: Shape) -> float:
    """The part of `layer_bytes` that depends on the kernel.

    On a GPU FlexAttention keeps queries, keys, values and result; under autocast the result goes
    through fp32, and its bf16 copy is kept too. The padded path repeats keys and values for each
    head of the queries. On a CPU attention is computed in fp32.
    """
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    in_fp32 = recipe.model.dtype == "float32"
    each = 4 if in_fp32 else 2
    if recipe.estimate.device == "cpu":
        return (26 if in_fp32 else 11) * queries
    if not is_shared(recipe):
        return each * 4 * queries
    copy = 0 if in_fp32 or _computes_in_bf16(recipe) else 2 * queries
    return each * (2 * queries + 2 * keys) + copy


def _computes_in_bf16(recipe: Recipe) -> bool:
    """Whether the weights that a layer computes with are in 16 bits: ZeRO-3 and FSDP2 gather so."""
    return _gathers(recipe) and recipe.model.dtype != "float32"


def _gathers(recipe: Recipe) -> bool:
    """Whether weights are sharded over processes, and gathered to compute with."""
    how = _distributed(recipe)
    return how == "DEEPSPEED" or (how == "FSDP" and num_processes(recipe) > 1)
