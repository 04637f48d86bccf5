"""What DeepSpeed is told beside `training.accelerate_config`: to sum gradients in fp32."""

from typing import Any

# Gradients that are reduced together. DeepSpeed's 500 million would take 4 GB in fp32, in a buffer
# and a copy; 400 MB at a time keep NVLink as busy.
BUCKET = 100_000_000


def sum_in_fp32(deepspeed: dict[str, Any]) -> None:
    """Let ZeRO-3 add gradients of micro-batches and of processes in fp32, in place.

    By default it does both in the dtype of the weights. In bf16 the error of a sum grows with the
    number of its terms; each gradient itself is rounded only once. What a DeepSpeed file of the
    user's (`deepspeed_config_file`) says stays as it is. Other stages, which would keep whole
    gradients in fp32 on every GPU, are left alone.

    Args:
        deepspeed: DeepSpeed's config.
    """
    zero = deepspeed.get("zero_optimization", {})
    if zero.get("stage") != 3:
        return
    deepspeed.setdefault("data_types", {}).setdefault("grad_accum_dtype", "fp32")
    deepspeed.setdefault("communication_data_type", "fp32")
    zero.setdefault("reduce_bucket_size", BUCKET)
