"""Turns an out-of-memory error into one line with the keys to lower, instead of a traceback."""

# What libraries say, in lower case, if they have no exception class for this.
_SAYINGS = (
    "can't allocate memory",  # torch on a CPU
    "out of memory",  # CUDA, NCCL
    "bad_alloc",
    "cannot allocate memory",
    "alloc_failed",  # cuBLAS, cuDNN
    "no available memory for the cache blocks",  # vLLM, as the next two
    "less than desired gpu memory utilization",
    "larger than the available kv cache memory",
)

_ENGINE = (
    "lower generation.batch_size (transformers), generation.vllm.gpu_memory_utilization or "
    "generation.vllm.max_model_len (vllm), or raise generation.tensor_parallel_size"
)
_RANKER = "lower ranking.tokens_per_batch or the number of ranking.workers"

# By script: the keys of the recipe that decide how much memory it needs.
LOWER = {
    "train": "lower training.per_device_train_batch_size or training.tokens_per_micro_batch, set "
    "training.gradient_checkpointing=true, lower training.max_length, train an adapter "
    "(training.lora={}), or shard over GPUs with accelerate_configs/zero3.yaml",
    "generate": _ENGINE,
    "rank": _RANKER,
    "answer": _ENGINE,
    "logps": "set training.tokens_per_micro_batch to less than 16384 (if it is null, to 4096)",
    "evaluate": _RANKER,
}


def is_lack(error: BaseException | None) -> bool:
    """Whether an error means that the machine or a GPU is out of memory."""
    text = " ".join(str(error).split()).lower()
    return isinstance(error, MemoryError) or any(saying in text for saying in _SAYINGS)


def said(error: BaseException, script: str) -> str | None:
    """The line for an out-of-memory error; None for any other error.

    >>> said(RuntimeError("CUDA error: out of memory"), "rank").split(": ")[0]
    'out of memory'
    >>> said(RuntimeError("shapes differ"), "rank")
    """
    if not is_lack(error):
        return None
    text = " ".join(str(error).split())
    fix = LOWER.get(script, "use a machine with more memory")
    return f"out of memory: {fix}; finished work is kept. The error was: {text[:300] or 'no text'}"
