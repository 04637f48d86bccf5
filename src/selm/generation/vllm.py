"""The description of the engine `vllm`, for GPUs (`vllm_engine.py`)."""

from selm.cost.devices import Device
from selm.cost.quantities import GB, Memory
from selm.errors import UserError
from selm.generation.base import Engine, EngineKind, Harness
from selm.model.shape import Shape
from selm.recipe.schema import Generation, Model, Recipe

OTHERWISE = "run `make setup VLLM=1`, or set generation.engine=transformers"

# Options that change how fast vLLM answers and how much memory it takes, not what it answers.
EXECUTION_OPTIONS = frozenset(
    {
        *("gpu_memory_utilization", "kv_cache_memory_bytes", "cpu_offload_gb", "enforce_eager"),
        *("enable_prefix_caching", "enable_chunked_prefill", "async_scheduling"),
        *("max_num_seqs", "max_num_batched_tokens", "max_num_scheduled_tokens"),
        *("distributed_executor_backend", "disable_custom_all_reduce", "download_dir"),
        *("load_format", "safetensors_load_strategy", "max_parallel_loading_workers"),
    }
)

MEMORY_SHARE = 0.9  # of a GPU: `gpu_memory_utilization`, whatever the model needs
SEQUENCES = 256  # that are decoded at a time, at most


def _load(path: str, model: Model, generation: Generation, longest_prompt: int | None) -> Engine:
    try:
        from selm.generation.vllm_engine import VllmEngine
    except ImportError as error:
        raise UserError(f"generation.engine: vllm does not start ({error}); {OTHERWISE}") from error

    return VllmEngine(path, model, generation, longest_prompt)


def _harness(path: str, recipe: Recipe, longest_text: int | None) -> Harness:
    try:
        from selm.generation.vllm_engine import load_harness
    except ImportError as error:
        raise UserError(f"generation.engine: vllm does not start ({error}); {OTHERWISE}") from error

    return load_harness(path, recipe, longest_text)


def _cost(
    recipe: Recipe, device: Device, shape: Shape, answers: float, response: float
) -> tuple[Memory, float]:
    """The cache decides how many sequences run at a time; it fits if one whole context fits.

    Each token of all of them reads the weights and their caches once, and takes 2 FLOPs per
    parameter (Pope et al., arXiv 2211.05102, section 2).
    """
    prompt, parallel = recipe.estimate.prompt_tokens, recipe.generation.tensor_parallel_size
    weights, other = 2 * shape.parameters / parallel, device.other_gb * GB
    token_bytes = shape.cache_bytes / parallel
    room = MEMORY_SHARE * device.memory_gb * GB - other - weights
    cache = max(room, (prompt + recipe.generation.max_tokens) * token_bytes)
    mean_bytes = (prompt + response / 2) * token_bytes  # of a sequence's cache, half-way
    at_a_time = max(min(SEQUENCES, cache / mean_bytes, answers), 1)
    step_seconds = device.read_seconds(weights + at_a_time * mean_bytes)
    step_seconds += device.decode_seconds(at_a_time * 2 * shape.multiplied) / parallel
    prefill_seconds = device.seconds(answers * prompt * 2 * shape.multiplied) / parallel
    seconds = prefill_seconds + answers * response / at_a_time * step_seconds
    return Memory(weights=weights, cache=cache, other=other), seconds


VLLM = EngineKind(
    load=_load,
    cost=_cost,
    options={"vllm": EXECUTION_OPTIONS},
    packages=("vllm",),
    otherwise=OTHERWISE,
    wants_longest_prompt=True,
    harness=_harness,
)
