"""The engine `vllm`, for GPUs; `vllm_engine.py` is it."""

from selm.errors import UserError
from selm.generation.base import Engine, EngineKind
from selm.recipe.schema import Generation, Model

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


def _load(path: str, model: Model, generation: Generation, longest_prompt: int | None) -> Engine:
    try:
        from selm.generation.vllm_engine import VllmEngine
    except ImportError as error:
        raise UserError(f"generation.engine: vllm does not start ({error}); {OTHERWISE}") from error

    return VllmEngine(path, model, generation, longest_prompt)


VLLM = EngineKind(
    load=_load,
    options={"vllm": EXECUTION_OPTIONS},
    packages=("vllm",),
    otherwise=OTHERWISE,
    wants_longest_prompt=True,
)
