"""The keys of TRL's DPOConfig: which ones a recipe may set, and which ones only say how to execute.

Names and types are read from the packages' source text, so torch is not imported.
"""

import re
from functools import lru_cache

from selm.errors import UserError
from selm.recipe.source_text import annotations, source_file

# Keys that another part of the recipe decides, and which part that is.
DECIDED_ELSEWHERE = {
    "learning_rate": "iterations[].learning_rate",
    "gradient_accumulation_steps": "training.global_batch_size",
    "output_dir": "output_dir",
    "run_name": "run_name",
    "seed": "seed",
    "data_seed": "seed",
    "bf16": "model.dtype",
    "fp16": "model.dtype",
    "model_init_kwargs": "model",
    "trust_remote_code": "model.trust_remote_code",
    "push_to_hub": "hub.push",
    "hub_model_id": "hub.namespace and run_name",
    "hub_private_repo": "hub.private",
    "hub_strategy": "hub.every_save",
    "hub_always_push": "hub.every_save",
    "hub_revision": "the run: each iteration has its own repository",
    "hub_token": "`hf auth login` or HF_TOKEN; a token is never written to a file",
    "precompute_ref_log_probs": "the trainer, which always precomputes them",
    "resume_from_checkpoint": "the train stage, which always resumes",
    "remove_unused_columns": "the trainer, which reads its own columns",
    "fsdp": "training.accelerate_config (accelerate_configs/fsdp2.yaml)",
    "fsdp_config": "training.accelerate_config (accelerate_configs/fsdp2.yaml)",
    "deepspeed": "training.accelerate_config (accelerate_configs/zero3.yaml)",
    "parallelism_config": "training.accelerate_config",
    "local_rank": "the launcher",
    "use_cpu": "the machine: a GPU is used if there is one",
    "ddp_backend": "the machine: NCCL between GPUs, Gloo between CPUs",
    "group_by_length": "the trainer: rows of similar length are always together within a step",
    "padding_free": "training.forward",
}

_EVALUATES = "the trainer does not evaluate; the evaluate stage does, see evaluation.*"

_LOADER = "the trainer itself distributes rows to micro-batches (training.train_sampling_strategy)"

_REFERENCE = "the reference is fixed, its log-probs are precomputed (see training.reference)"

_BEST = "a training has no evaluation that could find the best step; the last step is used"

_GONE = "transformers no longer has this key"

# Keys that cannot work here or would change nothing, with the reason.
NEVER = {
    **dict.fromkeys(("eval_strategy", "eval_steps", "eval_delay", "eval_on_start"), _EVALUATES),
    **dict.fromkeys(("eval_accumulation_steps", "eval_do_concat_batches"), _EVALUATES),
    **dict.fromkeys(("eval_use_gather_object", "batch_eval_metrics"), _EVALUATES),
    **dict.fromkeys(("per_device_eval_batch_size", "prediction_loss_only"), _EVALUATES),
    **dict.fromkeys(("include_for_metrics", "label_names", "do_eval", "do_predict"), _EVALUATES),
    **dict.fromkeys(("bf16_full_eval", "fp16_full_eval", "evaluation_strategy"), _EVALUATES),
    **dict.fromkeys(("load_best_model_at_end", "metric_for_best_model"), _BEST),
    "greater_is_better": _BEST,
    **dict.fromkeys(("dataloader_drop_last", "dataloader_in_order"), _LOADER),
    **dict.fromkeys(("dataloader_persistent_workers", "dataloader_prefetch_factor"), _LOADER),
    **dict.fromkeys(("dataloader_multiprocessing_context", "accelerator_config"), _LOADER),
    "length_column_name": _LOADER,
    "pad_to_multiple_of": _LOADER,
    **dict.fromkeys(("sync_ref_model", "ref_model_mixup_alpha"), _REFERENCE),
    "ref_model_sync_steps": _REFERENCE,
    "ld_alpha": "it compares the lengths of two responses, and SELM scores three",
    "do_train": "it changes nothing: the train stage trains",
    "auto_find_batch_size": "it would change the global batch; set per_device_train_batch_size",
    "torch_compile": "each micro-batch has its own shape and would be compiled again",
    "torch_compile_backend": "see torch_compile, which does not work here",
    "torch_compile_mode": "see torch_compile, which does not work here",
    "use_liger_kernel": "it exchanges layers that the trainer's own forward uses",
    "liger_kernel_config": "see use_liger_kernel, which does not work here",
    "use_cache": "it changes nothing: the trainer's forward never caches",
    "label_smoothing_factor": "it changes nothing: DPO's losses read training.label_smoothing",
    "average_tokens_across_devices": "it changes nothing: DPO's loss is a mean over rows",
    "dataset_num_proc": "it changes nothing: the trainer itself tokenizes the rows",
    "truncation_mode": "it changes nothing: only the end of a long response is truncated",
    "pad_token": "it changes nothing: the tokenizer's padding token is used",
    "include_num_input_tokens_seen": "it changes nothing: num_tokens is logged anyway",
    "save_only_model": "a training could not be resumed from its saves",
    "enable_jit_checkpoint": "a training that is stopped resumes from its last save anyway",
    "ignore_data_skip": "a resumed training would see its first rows twice",
    "restore_callback_states_from_checkpoint": "it changes nothing: no callback has a state",
    "debug": "it follows the forward of transformers, and the trainer has its own",
    "skip_memory_metrics": "it changes nothing: the numbers would be logged nowhere",
    # Keys of older versions, which recipes written elsewhere still have.
    "warmup_ratio": f"{_GONE}: training.warmup_steps below 1 is a share of all steps",
    "no_cuda": f"{_GONE}: a GPU is used if there is one",
    "per_gpu_train_batch_size": f"{_GONE}: it is training.per_device_train_batch_size",
    "max_prompt_length": f"{_GONE}: training.max_length counts prompt and response together",
    "max_completion_length": f"{_GONE}: training.max_length counts prompt and response together",
    "logging_dir": f"{_GONE}: curves are in <run>/tensorboard",
    "rpo_alpha": f"{_GONE}: training.loss_type=[sigmoid, sft] with training.loss_weights",
    "reference_free": f"{_GONE}: every loss here has a reference",
    "generate_during_eval": _EVALUATES,
    **dict.fromkeys(
        ("jit_mode_eval", "use_ipex", "use_mps_device", "half_precision_backend"), _GONE
    ),
    **dict.fromkeys(("fp16_opt_level", "fp16_backend", "tpu_num_cores", "past_index"), _GONE),
    **dict.fromkeys(("save_safetensors", "torchdynamo", "mp_parameters", "ray_scope"), _GONE),
    **dict.fromkeys(
        ("overwrite_output_dir", "include_inputs_for_metrics", "use_legacy_prediction_loop"), _GONE
    ),
}


@lru_cache(maxsize=1)
def trl_keys() -> dict[str, str]:
    """Fields of TRL's DPOConfig and their annotations, e.g. {"logging_steps": "float"}."""
    classes = (
        ("transformers", "training_args.py", "TrainingArguments"),
        ("trl", "trainer/base_config.py", "_BaseConfig"),
        ("trl", "trainer/dpo_config.py", "DPOConfig"),
    )
    fields: dict[str, str] = {}
    for package, file, class_name in classes:
        fields |= annotations(source_file(package, file), class_name)
    return fields


def usable_keys() -> list[str]:
    """The keys that a recipe may set."""
    return [key for key in trl_keys() if key not in DECIDED_ELSEWHERE and key not in NEVER]


# The name of a TRL key says what it is about. These groups only say how a training runs and what it
# shows: logs, saves, processes, loaders, memory.
_EXECUTION = re.compile(
    "(log|save|ddp|dataloader|gradient_checkpointing|trackio|torch_empty_cache)_?"
    "|(report_to|project|disable_tqdm|activation_offloading|precompute_ref_batch_size)$"
)


def is_execution(key: str) -> bool:
    """Whether a TRL key only says how to execute, so that checkpoints do not depend on it.

    >>> [is_execution(key) for key in ("logging_steps", "ddp_timeout", "weight_decay", "loss_type")]
    [True, True, False, False]
    """
    return _EXECUTION.match(key) is not None


def refuse_key(key: str) -> None:
    """Raises UserError, with the reason, for a TRL key that a recipe cannot set."""
    if key in DECIDED_ELSEWHERE:
        raise UserError(f"training.{key}: decided by {DECIDED_ELSEWHERE[key]}")
    if key in NEVER:
        raise UserError(f"training.{key}: remove it: {NEVER[key]}")
