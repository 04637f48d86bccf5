"""The options of vLLM that a recipe may set under `generation.vllm`, read from vLLM's source."""

from functools import lru_cache
from typing import Any

from selm.errors import UserError
from selm.recipe.source_text import annotations, literals, package_folder
from selm.recipe.typed import Between, typed

# Arguments of vLLM that another part of the recipe decides, and which part that is.
VLLM_DECIDED_ELSEWHERE = {
    "model": "model.name_or_path",
    "revision": "model.revision",
    "tokenizer": "model.name_or_path",
    "trust_remote_code": "model.trust_remote_code",
    "dtype": "model.dtype",
    "seed": "seed",
    "generation_config": "generation",
    "override_generation_config": "generation",
    "tensor_parallel_size": "generation.tensor_parallel_size",
    "data_parallel_size": "generation.workers",
    "pipeline_parallel_size": "generation.workers: the GPUs of one worker are tensor-parallel",
    "skip_tokenizer_init": "the stage: engines get token ids",
    "hf_token": "`hf auth login` or HF_TOKEN; a token is never written to a file",
}


@lru_cache(maxsize=1)
def vllm_keys() -> dict[str, str]:
    """Fields of vLLM's EngineArgs and their annotations; empty if vLLM is not installed."""
    folder = package_folder("vllm")
    if folder is None:
        return {}
    named: dict[str, str] = {}
    others = ("model_executor/model_loader", "model_executor/layers/quantization")
    for path in [*(folder / "config").glob("*.py"), *(folder / f / "__init__.py" for f in others)]:
        named |= literals(path)
    fields = annotations(folder / "engine/arg_utils.py", "EngineArgs")
    return {key: _resolved(text, named) for key, text in fields.items() if key[0] != "_"}


def _resolved(annotation: str, named: dict[str, str]) -> str:
    """`CacheDType | None` with the name's choices in its place; other text is then not allowed."""
    text = annotation.strip("'")
    parts = [text] if "[" in text else [part.strip() for part in text.split("|")]
    parts = [named.get(part, part) for part in parts]
    chosen = any(part.startswith("Literal[") for part in parts)
    return " | ".join(part for part in parts if not chosen or part != "str")


def vllm_value(key: str, value: Any) -> Any:
    """The value in vLLM's type."""
    dotted = f"generation.vllm.{key}"
    if key in VLLM_DECIDED_ELSEWHERE:
        raise UserError(f"{dotted}: decided by {VLLM_DECIDED_ELSEWHERE[key]}")
    # Without vLLM, the options that have a range are still known to be numbers.
    known = dict.fromkeys(_RANGES, "int | float | None") | vllm_keys()
    value = typed(dotted, value, known.get(key, ""))
    if key in _RANGES and value is not None:
        _RANGES[key].check(dotted, value)
    return value


_RANGES = {
    "gpu_memory_utilization": Between(0, 1, above=True),
    "max_model_len": Between(-1, 10**9),
    "max_num_seqs": Between(1, 10**6),
    "max_num_batched_tokens": Between(1, 10**9),
    "cpu_offload_gb": Between(0, 10**6),
    "block_size": Between(1, 10**6),
}
