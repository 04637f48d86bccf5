"""What a run takes: tokens, memory, disk and time of every stage, estimated. Imports no torch.

    cost(recipe, "checkpoint", 2).memory.total      # bytes on each GPU

Arithmetic on the model's shape (`config.json`), the recipe, and its section `estimate`. Decimal
units: 1 GB is 1e9 bytes. What it rests on:

- **Tokens.** Prompts and responses have the mean lengths of `estimate`; the longest of n is taken
  as 1 + ln(n) / 2 means, within the recipe's limits. Half of the explored responses are neither
  chosen nor rejected (by chance it were a third, in the quickstart it is three quarters).
- **Memory of training**, in bytes per trained parameter: weights 4, gradients 4, Adam's moments 8,
  and 2 for autocast's bf16 copies; DDP's buckets hold the gradients once more. ZeRO-3 and FSDP2
  divide by the number of processes, and gather a part to compute with. LoRA trains the adapter
  alone, beside frozen weights. Activations: see `_layer_bytes`; they are those of the fullest
  micro-batch. The reference takes nothing: its log-probs are computed before the first step.
- **Memory of generation.** vLLM takes 90 % of a GPU whatever it needs; it fits if the weights and
  one whole context do.
- **Time.** Forward 2 FLOPs per parameter and token, backward 4 (LoRA: 2), gradient checkpointing 2
  more, at the share `mfu` of the device's peak. FLOPs of attention are left out: 2 % of a 7B
  model's at 1,024 tokens. Decoding comes to `decode_mfu`, and reads all weights for each token.
  Beside them: starting, reading and writing weights, the optimizer's steps.
"""

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from selm.data.counting import held_out_rows, portion, train_rows
from selm.errors import UserError
from selm.recipe.loading import load_recipe
from selm.recipe.places import is_local_path
from selm.recipe.schema import Ranking, Recipe
from selm.training.batch import gradient_accumulation_steps, num_processes, rows_per_process

GB = 1e9
THIRD_RESPONSES = 0.5  # explored responses that are neither chosen nor rejected
DISK_BYTES_PER_SECOND = 1e9
BYTES_PER_TOKEN_OF_TEXT = 5
VLLM_SHARE = 0.9  # of a GPU's memory
VLLM_SEQUENCES = 256  # that vLLM decodes at a time, at most
STEP_SECONDS, STEP_SECONDS_PER_LAYER = 0.005, 0.0005  # of transformers' Python, for a token
TOKENS_AT_A_TIME = 8  # after which ended answers leave a batch (`generation/transformers.py`)
HEAD_CHUNK = 512  # positions whose logits exist at one time (`training/head.py`)
PER_MICRO_BATCH = 20  # bytes per weight that are moved: casts, its gradient, the sum of gradients
WITH_ADAPTERS = 1.7  # times a pass without: LoRA's many small products, measured at 135M
GATHERED = 1e9  # parameters that ZeRO-3 and FSDP2 hold gathered at one time, at most
PAIRRM_PARAMETERS = 435e6
PAIRRM_TOKENS = 2048  # of one comparison, at most


@dataclass(frozen=True)
class Device:
    """What a GPU can do, by its maker: dense bf16 FLOPs, memory, bandwidth; and what we assume.

    mfu, decode_mfu: the share of `tflops` that training and decoding reach.
    start_seconds: until a stage works: imports, CUDA, vLLM's start; reading weights not counted.
    layer_seconds: what a layer takes for a micro-batch beside arithmetic: calls of its kernels.
    other_gb: what a process takes beside tensors: libraries, CUDA's context.
    trainer_gb: what training takes beside them, more than other stages: its libraries, and on a
        CPU the matrix kernels that are compiled for each number of tokens.
    gaps: what the allocator cannot use again, as a share of the tensors.
    """

    memory_gb: float
    tflops: float
    gb_per_second: float
    mfu: float = 0.4
    decode_mfu: float = 0.2
    start_seconds: float = 60
    layer_seconds: float = 0.002
    other_gb: float = 1.5
    trainer_gb: float = 0.0
    gaps: float = 0.1


# A core of an AMD EPYC with AVX-512 BF16 does 0.09 TFLOPS of training (bench/plan_cost.py), so
# that `mfu` is 1 here.
_CORES = len(os.sched_getaffinity(0))
_MEMORY_GB = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
DEVICES = {
    "a100": Device(80, 312, 2039),
    "h100": Device(80, 989, 3350, mfu=0.35),
    "h200": Device(141, 989, 4800, mfu=0.35),
    "l40s": Device(48, 362, 864),
    "rtx4090": Device(24, 165, 1008),
    "rtx3090": Device(24, 71, 936),
    "cpu": Device(
        _MEMORY_GB,
        0.09 * _CORES,
        gb_per_second=10,
        mfu=1.0,
        decode_mfu=0.9,
        start_seconds=4,
        layer_seconds=0.02,
        other_gb=0.5,
        trainer_gb=0.3,
        gaps=0.05,
    ),
}


def device(recipe: Recipe) -> Device:
    """The device of the recipe's `estimate`, with the numbers that it gives itself."""
    row, given = DEVICES[recipe.estimate.device], recipe.estimate
    return replace(
        row,
        memory_gb=given.memory_gb or row.memory_gb,
        tflops=given.tflops or row.tflops,
        mfu=given.mfu or row.mfu,
    )


@dataclass(frozen=True)
class Shape:
    """A decoder with gated MLPs, as `config.json` has it."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool = False

    @property
    def linears(self) -> list[tuple[int, int]]:
        """(in, out) of the matrices of one layer."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = [(self.hidden, queries), *[(self.hidden, keys)] * 2, (queries, self.hidden)]
        mlp = [*[(self.hidden, self.intermediate)] * 2, (self.intermediate, self.hidden)]
        return attention + mlp

    @property
    def multiplied(self) -> int:
        """Parameters that a token is multiplied with: all but the embedding of its input."""
        in_layers = self.layers * sum(rows * columns for rows, columns in self.linears)
        return in_layers + self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All of them, but for some biases and norms of queries: within 0.1 %."""
        norms = (2 * self.layers + 1) * self.hidden
        return self.multiplied + norms + (0 if self.tied else self.vocab * self.hidden)

    @property
    def cache_bytes(self) -> int:
        """Of the keys and values of one token, in 16 bits."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_dim

    def adapter_parameters(self, rank: int) -> int:
        """Of LoRA on all linear layers but the head."""
        return self.layers * rank * sum(rows + columns for rows, columns in self.linears)


# Of base models that recipes name, for a plan without a download.
SHAPES = {
    "HuggingFaceH4/mistral-7b-sft-beta": Shape(32, 4096, 14336, 32, 8, 128, 32000),
    "meta-llama/Meta-Llama-3-8B-Instruct": Shape(32, 4096, 14336, 32, 8, 128, 128256),
    "microsoft/Phi-3-mini-4k-instruct": Shape(32, 3072, 8192, 32, 32, 96, 32064),
    "models/smollm2-135m-instruct": Shape(30, 576, 1536, 9, 3, 64, 49152, tied=True),
    "Qwen/Qwen3-0.6B": Shape(28, 1024, 3072, 16, 8, 128, 151936, tied=True),
    "Qwen/Qwen3-1.7B": Shape(28, 2048, 6144, 16, 8, 128, 151936, tied=True),
    "Qwen/Qwen3-4B": Shape(36, 2560, 9728, 32, 8, 128, 151936, tied=True),
    "Qwen/Qwen3-8B": Shape(36, 4096, 12288, 32, 8, 128, 151936),
}


@lru_cache
def shape_of(name_or_path: str, revision: str = "main") -> Shape | None:
    """From `SHAPES`, or from the config.json of a folder or of the Hub's cache; None if unknown."""
    if name_or_path in SHAPES:
        return SHAPES[name_or_path]
    path = _config_path(name_or_path, revision)
    if path is None:
        return None
    config = json.loads(path.read_text(encoding="utf-8"))
    return _shape(config.get("text_config", config))


def _config_path(name_or_path: str, revision: str) -> Path | None:
    if is_local_path(name_or_path):
        path = Path(name_or_path) / "config.json"
        return path if path.is_file() else None
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name_or_path):
        return None  # the Hub has no such names, and its library raises
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name_or_path, "config.json", revision=revision)
    return Path(cached) if isinstance(cached, str) else None


def _shape(config: dict[str, Any]) -> Shape | None:
    """None for what is no dense decoder: mixtures of experts, and older layouts of the keys."""
    wanted = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
    experts = ("num_experts", "num_local_experts", "n_routed_experts")
    if any(key in config for key in experts) or any(key not in config for key in wanted):
        return None
    layers, hidden, intermediate, heads = (config[key] for key in wanted)
    return Shape(
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or hidden // heads,
        vocab=config["vocab_size"],
        tied=config.get("tie_word_embeddings", False),
    )


@dataclass(frozen=True)
class Memory:
    """Bytes of one process, on its GPU if it has one, at their peak."""

    weights: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    activations: float = 0.0
    cache: float = 0.0
    other: float = 0.0

    @property
    def total(self) -> float:
        return sum(vars(self).values())


def _peak(hardware: Device, **tensors: float) -> Memory:
    """Tensors by kind, and what a process takes beside them."""
    other = hardware.other_gb * GB + hardware.gaps * sum(tensors.values())
    return Memory(**tensors, other=other)


@dataclass(frozen=True)
class Cost:
    """Estimate of one stage.

    disk_bytes: that its artifact takes. scratch_bytes: more, while it runs.
    """

    rows: int
    tokens: float = 0.0
    memory: Memory = field(default_factory=Memory)
    disk_bytes: float = 0.0
    scratch_bytes: float = 0.0
    seconds: float = 0.0


def unknown(recipe: Recipe) -> str | None:
    """Why there can be no estimate, and how there can be one; None if nothing is missing."""
    model = recipe.model
    if shape_of(model.name_or_path, model.revision) is None:
        revision = "" if model.revision == "main" else f" --revision {model.revision}"
        fetch = f"`hf download {model.name_or_path} config.json{revision}`, then plan again"
        where = "it has no config.json of a dense decoder"
        hint = where if is_local_path(model.name_or_path) else fetch
        return f"the size of {model.name_or_path} is unknown ({hint})"
    if train_rows(recipe) is None:
        return "the number of rows is unknown (data.train_rows says it)"
    return None


def cost(recipe: Recipe, kind: str, t: int | None) -> Cost:
    """The estimate of one stage of the plan; only where `unknown` is None."""
    if kind == "report" or t is None:
        return Cost(rows=0, seconds=device(recipe).start_seconds)
    if kind == "responses":
        return _generation(recipe, _portion_rows(recipe, t), recipe.generation.num_samples)
    if kind == "preferences":
        pool = recipe.generation.num_samples
        pool += 2 if recipe.ranking.pool == "dataset_and_samples" else 0
        return _ranking(recipe, recipe.ranking, _portion_rows(recipe, t), pool)
    if kind == "checkpoint":
        return _training(recipe, t)
    return _evaluation(recipe, t)


def processes_on_a_device(recipe: Recipe, kind: str) -> int:
    """Training processes share the memory of the one CPU; every GPU has one of its own."""
    shared = kind == "checkpoint" and recipe.estimate.device == "cpu"
    return num_processes(recipe) if shared else 1


def peak_bytes(recipe: Recipe, kind: str, t: int | None) -> float:
    """What the stage takes of one device's memory."""
    return cost(recipe, kind, t).memory.total * processes_on_a_device(recipe, kind)


def fits(recipe: Recipe, kind: str, t: int | None) -> bool:
    return peak_bytes(recipe, kind, t) <= device(recipe).memory_gb * GB


# What may make a stage fit, as overrides. Of each kind of remedy the first that does is named.
_CHECKPOINTING = "training.gradient_checkpointing=true"
_ONE_ROW = (
    "training.tokens_per_micro_batch=null",
    "training.per_device_train_batch_size=1",
)
_ZERO3 = "training.accelerate_config=accelerate_configs/zero3.yaml"
_LORA = "training.lora={r: 16, target_modules: all-linear}"
_TRAINING_REMEDIES = (
    ((_CHECKPOINTING,), _ONE_ROW, (_CHECKPOINTING, *_ONE_ROW)),
    tuple(
        (_ZERO3, f"training.num_processes={n}", _CHECKPOINTING, *fewer_rows)
        for n in (2, 4, 8, 16, 32)
        for fewer_rows in ((), _ONE_ROW)
    ),
    ((_LORA,), (_LORA, _CHECKPOINTING), (_LORA, _CHECKPOINTING, *_ONE_ROW)),
)
_GENERATION_REMEDIES = (tuple((f"generation.tensor_parallel_size={n}",) for n in (2, 4, 8)),)
REMEDIES = {
    "checkpoint": _TRAINING_REMEDIES,
    "responses": _GENERATION_REMEDIES,
    "evaluation": _GENERATION_REMEDIES,
}


def remedies(
    path: str, overrides: Sequence[str], kind: str, t: int | None
) -> list[tuple[str, ...]]:
    """Sets of overrides under which the stage fits, each tried with the model of cost itself."""
    before = load_recipe(path, overrides)
    found = []
    for ways in REMEDIES.get(kind, ()):
        for way in ways:
            try:
                changes = [o for o in way if load_recipe(path, [*overrides, o]) != before]
                after = load_recipe(path, [*overrides, *changes])
            except UserError:  # this number of processes does not divide the batch
                continue
            if fits(after, kind, t):
                found.append(tuple(changes))
                break
    return found


def strategy(recipe: Recipe) -> str:
    """single, ddp, fsdp2 or zero3: what the recipe's accelerate config says."""
    return _strategy(Path(recipe.training.accelerate_config))


@lru_cache
def _strategy(accelerate_config: Path) -> str:
    kind = str(
        yaml.safe_load(accelerate_config.read_text(encoding="utf-8")).get("distributed_type", "NO")
    )
    known = {"NO": "single", "FSDP": "fsdp2", "DEEPSPEED": "zero3"}
    return known.get(kind, "ddp")


def _portion_rows(recipe: Recipe, t: int) -> int:
    return len(portion(train_rows(recipe) or 0, t, len(recipe.iterations)))


def _the_shape(recipe: Recipe) -> Shape:
    shape = shape_of(recipe.model.name_or_path, recipe.model.revision)
    assert shape is not None, "callers ask `unknown` first"
    return shape


def longest_of(mean: float, n: float) -> float:
    """Expected length of the longest of n texts.

    >>> longest_of(100, 1)
    100.0
    """
    return mean * (1 + math.log(max(n, 1)) / 2)


# --- training ---


def _training(recipe: Recipe, t: int) -> Cost:
    shape, hardware, rows = _the_shape(recipe), device(recipe), _portion_rows(recipe, t)
    explores = recipe.alpha(t) > 0
    tokens = rows * tokens_per_row(recipe, explores) * _epochs(recipe)
    trained = _trained(recipe, shape)
    state_bytes = trained * (14 if strategy(recipe) == "zero3" else 12)
    computed = tokens * 2 * shape.multiplied * (_passes(recipe) + 1 / _epochs(recipe))
    computed *= 2 if recipe.model.dtype == "float32" else 1  # at half the speed
    steps = -(-rows // recipe.training.global_batch_size) * _epochs(recipe)
    copies = num_processes(recipe) if strategy(recipe) in ("zero3", "fsdp2") else 1
    moved = steps * 28 * trained / copies  # weights, gradients and moments by the optimizer
    micro_batches = _micro_batches(recipe, tokens, steps)
    moved += micro_batches * PER_MICRO_BATCH * trained
    written = _saves(recipe, steps) * state_bytes + 2 * shape.parameters
    seconds = (
        hardware.start_seconds
        + computed / (_training_devices(recipe) * hardware.tflops * 1e12 * hardware.mfu)
        + moved / (hardware.gb_per_second * GB)
        + micro_batches * shape.layers * hardware.layer_seconds
        + (2 * shape.parameters + written) / DISK_BYTES_PER_SECOND
    )
    return Cost(
        rows=rows,
        tokens=tokens,
        memory=training_memory(recipe, shape, explores),
        disk_bytes=2 * shape.parameters,
        scratch_bytes=2 * state_bytes,  # the last one is deleted when the next one is whole
        seconds=seconds,
    )


def _micro_batches(recipe: Recipe, tokens: float, steps: float) -> float:
    """Of one process, one after the other."""
    training, processes = recipe.training, num_processes(recipe)
    if training.tokens_per_micro_batch is not None:
        return max(tokens / processes / training.tokens_per_micro_batch, steps)
    return steps * gradient_accumulation_steps(recipe, processes)


def _epochs(recipe: Recipe) -> float:
    return float(recipe.training.trl_overrides().get("num_train_epochs") or 1)


def _passes(recipe: Recipe) -> float:
    """Forwards' worth of a training step: 1 forward, 2 backward (LoRA: 1), 1 recomputed."""
    if recipe.training.lora is not None:
        return WITH_ADAPTERS * (2 + _checkpoints(recipe))
    return 3 + _checkpoints(recipe)


def _checkpoints(recipe: Recipe) -> bool:
    """TRL's default is true."""
    return bool(recipe.training.trl_overrides().get("gradient_checkpointing", True))


def _saves(recipe: Recipe, steps: float) -> int:
    """How many resume points are written; `save_steps` below 1 is a share, a quarter by default."""
    every = float(recipe.training.trl_overrides().get("save_steps", 0.25))
    return int(steps // (every * steps if every < 1 else every)) if every * steps else 0


def _training_devices(recipe: Recipe) -> int:
    return 1 if recipe.estimate.device == "cpu" else num_processes(recipe)


def is_shared(recipe: Recipe) -> bool:
    """Whether the forward computes each prompt once (`training/forward.py`); `auto`: on a CPU."""
    forward = recipe.training.forward
    return forward == "shared" or (forward == "auto" and recipe.estimate.device == "cpu")


def tokens_per_row(recipe: Recipe, explores: bool) -> float:
    """That the model computes for a row, padding included."""
    given, limit = recipe.estimate, recipe.training.max_length
    responses = 2 + THIRD_RESPONSES * explores
    if is_shared(recipe):
        return min(given.prompt_tokens, limit) + responses * _response(recipe)
    rows = recipe.training.per_device_train_batch_size
    if recipe.training.tokens_per_micro_batch is not None:
        rows = max(1, round(recipe.training.tokens_per_micro_batch / _once(recipe, responses)))
    mean = given.prompt_tokens + given.response_tokens
    width = (mean + longest_of(mean, rows * responses)) / 2  # a sum of two texts varies less
    return responses * min(width, limit)


def _once(recipe: Recipe, responses: float) -> float:
    """Tokens of a row, its prompt counted once: what `tokens_per_micro_batch` counts."""
    return recipe.estimate.prompt_tokens + responses * recipe.estimate.response_tokens


def _response(recipe: Recipe) -> float:
    given = recipe.estimate
    return max(min(given.response_tokens, recipe.training.max_length - given.prompt_tokens), 1)


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
    """Tokens of so many rows, of all texts at their longest, or on the shared path, where lengths
    add up, of two standard deviations above the mean, one being half of it."""
    if is_shared(recipe):
        return rows * tokens_per_row(recipe, explores) * (1 + 1 / math.sqrt(rows))
    given = recipe.estimate
    response = max(recipe.generation.max_tokens, given.response_tokens)
    width = min(recipe.training.max_length, 2 * given.prompt_tokens + response)
    return rows * (3 if explores else 2) * width


def _trained(recipe: Recipe, shape: Shape) -> int:
    lora = recipe.training.lora
    return shape.parameters if lora is None else shape.adapter_parameters(lora.r)


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


def training_memory(recipe: Recipe, shape: Shape, explores: bool) -> Memory:
    """Peak of one training process, by strategy; see the top of this file."""
    how, trained = strategy(recipe), _trained(recipe, shape)
    copies = num_processes(recipe) if how in ("zero3", "fsdp2") else 1
    weights = (4 * trained + _frozen_bytes(recipe, shape)) / copies
    if copies > 1 or how == "zero3":
        weights += 2 * min(shape.parameters, GATHERED)
        bf16_everywhere = recipe.model.dtype != "float32"
    else:
        in_fp32 = recipe.training.lora is None
        weights += 2 * shape.multiplied if in_fp32 and recipe.model.dtype != "float32" else 0
        bf16_everywhere = False
    hardware = device(recipe)
    peak = _peak(
        hardware,
        weights=weights,
        gradients=(8 if how == "ddp" else 4) * trained / copies,
        optimizer=8 * trained / copies,
        activations=_activations(recipe, shape, explores, bf16_everywhere),
    )
    return replace(peak, other=peak.other + hardware.trainer_gb * GB)


def _activations(recipe: Recipe, shape: Shape, explores: bool, bf16_everywhere: bool) -> float:
    """Kept for the backward of one micro-batch: its layers, and some logits."""
    tokens = fullest_batch(recipe, explores)
    layer = _layer_bytes(recipe, shape)
    logits = min(tokens, HEAD_CHUNK) * shape.vocab * 20  # bf16 and fp32, exponentials, gradients
    if not _checkpoints(recipe):
        return tokens * shape.layers * layer + logits
    between = (2 if bf16_everywhere else 4) * shape.hidden  # what goes from layer to layer
    return tokens * (shape.layers * between + layer) + logits


def _layer_bytes(recipe: Recipe, shape: Shape) -> float:
    """Bytes per token that one layer keeps for its backward; a test counts PyTorch's.

    Under bf16: the two norms keep inputs and results in fp32 (16 per hidden unit), the five
    matrices behind them a bf16 copy each (10); attention its queries, keys, values and result,
    some of them twice; the MLP four tensors. In fp32 the copies are the norms' results.
    """
    hidden, queries = shape.hidden, shape.heads * shape.head_dim
    if recipe.model.dtype == "float32":
        return 24 * hidden + 26 * queries + 16 * shape.intermediate
    return 26 * hidden + 11 * queries + 8 * shape.intermediate


# --- generation, ranking, evaluation ---


def _generation(recipe: Recipe, rows: int, samples: int) -> Cost:
    shape, given = _the_shape(recipe), recipe.estimate
    response = min(given.response_tokens, recipe.generation.max_tokens)
    answers = rows * samples
    estimate = _vllm if recipe.generation.engine == "vllm" else _transformers
    memory, seconds = estimate(recipe, shape, answers, response)
    return Cost(
        rows=rows,
        tokens=answers * (given.prompt_tokens + response),
        memory=memory,
        disk_bytes=BYTES_PER_TOKEN_OF_TEXT * rows * (given.prompt_tokens + 3 * response),
        seconds=seconds,
    )


def generating_workers(recipe: Recipe) -> int:
    """Engines at work at a time: as many as the GPUs of training carry, unless the recipe says."""
    if recipe.estimate.device == "cpu":
        return 1
    if recipe.generation.workers != "auto":
        return recipe.generation.workers
    return max(1, num_processes(recipe) // recipe.generation.tensor_parallel_size)


def _vllm(recipe: Recipe, shape: Shape, answers: int, response: float) -> tuple[Memory, float]:
    hardware, parallel = device(recipe), recipe.generation.tensor_parallel_size
    room = VLLM_SHARE * hardware.memory_gb * GB - hardware.other_gb * GB
    weights = 2 * shape.parameters / parallel
    context = recipe.estimate.prompt_tokens + recipe.generation.max_tokens
    one_context = context * shape.cache_bytes / parallel
    cache = max(room - weights, one_context)
    mean_context = recipe.estimate.prompt_tokens + response / 2
    at_a_time = min(VLLM_SEQUENCES, max(cache / (mean_context * shape.cache_bytes / parallel), 1))
    answers_each = answers / generating_workers(recipe)
    at_a_time = min(at_a_time, max(answers_each, 1))
    read = weights + at_a_time * mean_context * shape.cache_bytes / parallel
    step = read / (hardware.gb_per_second * GB) + _decode(hardware, shape, at_a_time) / parallel
    prefill = _compute(hardware, shape, answers_each * recipe.estimate.prompt_tokens) / parallel
    seconds = _start(hardware, shape) + prefill + answers_each * response / at_a_time * step
    return Memory(weights=weights, cache=cache, other=hardware.other_gb * GB), seconds


def _transformers(
    recipe: Recipe, shape: Shape, answers: int, response: float
) -> tuple[Memory, float]:
    """A batch goes on until its longest answer ends; rows leave it soon after they have ended."""
    hardware, batch = device(recipe), min(recipe.generation.batch_size, max(answers, 1))
    each = (4 if recipe.model.dtype == "float32" else 2) * shape.parameters
    limit, prompt = recipe.generation.max_tokens, recipe.estimate.prompt_tokens
    cache = batch * (prompt + limit) * shape.cache_bytes
    logits = batch * shape.vocab * 4 * 3
    step = each / (hardware.gb_per_second * GB) + STEP_SECONDS
    step += shape.layers * STEP_SECONDS_PER_LAYER
    longest = min(limit, longest_of(response, batch))
    computed = min(longest, response + TOKENS_AT_A_TIME / 2)
    one_batch = _compute(hardware, shape, batch * prompt) + longest * step
    one_batch += computed * _decode(hardware, shape, batch)
    seconds = answers / batch * one_batch + _start(hardware, shape)
    return _peak(hardware, weights=each, activations=logits, cache=cache), seconds


def _start(hardware: Device, shape: Shape) -> float:
    return hardware.start_seconds + 2 * shape.parameters / DISK_BYTES_PER_SECOND


def _compute(hardware: Device, shape: Shape, tokens: float) -> float:
    """Seconds of a forward over many tokens at once."""
    return tokens * 2 * shape.multiplied / (hardware.tflops * 1e12 * hardware.mfu)


def _decode(hardware: Device, shape: Shape, sequences: float) -> float:
    """Seconds of the arithmetic of one step for each of `sequences`."""
    return sequences * 2 * shape.multiplied / (hardware.tflops * 1e12 * hardware.decode_mfu)


def _ranking(recipe: Recipe, ranking: Ranking, rows: int, pool: int) -> Cost:
    """PairRM compares all ordered pairs, a reward model reads each response. What functions and
    judges take is theirs to say: 0 here."""
    hardware, given = device(recipe), recipe.estimate
    workers = 1 if given.device == "cpu" else num_processes(recipe)
    parameters, tokens = 0.0, 0.0
    for member in ranking.rankers or (ranking,):
        size, texts = _ranking_model(member), pool
        length = given.prompt_tokens + given.response_tokens
        if member.ranker == "pairrm":
            texts = pool * (pool - 1)
            length = min(length + given.response_tokens, PAIRRM_TOKENS)
        parameters += size
        tokens += rows * texts * length if size else 0
    seconds = tokens * 2 * parameters / (workers * hardware.tflops * 1e12 * hardware.mfu)
    bytes_each = 4 if given.device == "cpu" else 2
    return Cost(
        rows=rows,
        tokens=tokens,
        memory=_peak(hardware, weights=bytes_each * parameters),
        disk_bytes=BYTES_PER_TOKEN_OF_TEXT
        * rows
        * (given.prompt_tokens + 3 * given.response_tokens),
        seconds=hardware.start_seconds + seconds,
    )


def _ranking_model(ranking: Ranking) -> float:
    """Parameters of the model that ranks, if there is one whose size is known."""
    if ranking.ranker == "pairrm":
        return PAIRRM_PARAMETERS
    if ranking.ranker == "reward_model" and ranking.name_or_path:
        shape = shape_of(ranking.name_or_path, ranking.revision)
        return shape.parameters if shape else 0.0
    return 0.0


def _evaluation(recipe: Recipe, t: int) -> Cost:
    rows = held_out_rows(recipe)
    answers = _generation(recipe, rows, 1)
    ranks = _ranking(recipe, recipe.held_out_ranking(), rows, 1 if t == 0 else 2)
    larger = max(answers.memory, ranks.memory, key=lambda memory: memory.total)
    return Cost(
        rows=rows,
        tokens=answers.tokens + ranks.tokens,
        memory=larger,
        disk_bytes=answers.disk_bytes,
        seconds=answers.seconds + ranks.seconds - device(recipe).start_seconds,
    )


def total(recipe: Recipe, stages: Sequence[tuple[str, int | None]]) -> Cost:
    """Of the whole run: seconds and disk, resume points included; memory is that of training."""
    costs = [cost(recipe, kind, t) for kind, t in stages]
    training = [
        each.memory for each, (kind, _) in zip(costs, stages, strict=True) if kind == "checkpoint"
    ]
    download = 0 if is_local_path(recipe.model.name_or_path) else 2 * _the_shape(recipe).parameters
    return Cost(
        rows=sum(each.rows for each in costs),
        tokens=sum(each.tokens for each in costs),
        memory=max(training, key=lambda memory: memory.total),
        disk_bytes=download + sum(each.disk_bytes for each in costs),
        scratch_bytes=max(each.scratch_bytes for each in costs),
        seconds=sum(each.seconds for each in costs),
    )


def batch_arithmetic(recipe: Recipe) -> str:
    """`256 = 8 processes x 8 rows x 4 accumulation steps`"""
    training, processes = recipe.training, num_processes(recipe)
    if training.tokens_per_micro_batch is not None:
        rows = rows_per_process(recipe, processes)
        return (
            f"{training.global_batch_size} = {processes} processes x {rows} rows, in micro-batches "
            f"of {training.tokens_per_micro_batch:,} tokens"
        )
    rows = training.per_device_train_batch_size
    steps = gradient_accumulation_steps(recipe, processes)
    return (
        f"{training.global_batch_size} = {processes} processes x {rows} rows x "
        f"{steps} accumulation steps"
    )
