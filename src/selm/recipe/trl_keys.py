"""The keys of TRL's DPOConfig that a recipe may set: which of them work here, with which values.

Said when a recipe is loaded, for a training that starts after hours of generation is too late. What
only a model or an installed package can tell is left to the preflight, which builds what training
builds. No torch is imported: names and kinds are read from the packages' source text.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from selm.errors import UserError
from selm.recipe.source_text import annotations, keys_of, source_file, words
from selm.recipe.typed import Between, one_of, typed
from selm.recipe.yaml_tree import Written, parse

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
    "hub_revision": "nothing: each iteration has a repository of its own",
    "hub_token": "nothing: it is taken from `hf auth login` or HF_TOKEN, and written nowhere",
    "precompute_ref_log_probs": "nothing: they always are",
    "resume_from_checkpoint": "nothing: a training always resumes",
    "remove_unused_columns": "nothing: the trainer reads its own columns",
    "fsdp": "training.accelerate_config (accelerate_configs/fsdp2.yaml)",
    "fsdp_config": "training.accelerate_config (accelerate_configs/fsdp2.yaml)",
    "deepspeed": "training.accelerate_config (accelerate_configs/zero3.yaml)",
    "parallelism_config": "training.accelerate_config",
    "local_rank": "the launcher",
    "use_cpu": "the machine: a GPU where there is one",
    "ddp_backend": "the machine: NCCL between GPUs, Gloo between CPUs",
    "group_by_length": "nothing: rows of like length always are together within a step",
    "padding_free": "training.forward",
}

_EVALUATES = "the trainer does not evaluate; the evaluate stage does, see evaluation.*"
_LOADER = "the trainer deals rows to micro-batches itself (training.train_sampling_strategy)"
_REFERENCE = "the reference is fixed, its log-probs are precomputed (see training.reference)"
_BEST = "a training has no evaluation to tell the best step by; the last one counts"
_GONE = "transformers has no such key any more"

# Keys that cannot work here, or would change nothing, and why.
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
    "torch_compile": "each micro-batch has a shape of its own, and would be compiled anew",
    "torch_compile_backend": "see torch_compile, which does not work here",
    "torch_compile_mode": "see torch_compile, which does not work here",
    "use_liger_kernel": "it replaces layers that the trainer's own forward computes with",
    "liger_kernel_config": "see use_liger_kernel, which does not work here",
    "use_cache": "it changes nothing: the trainer's forward never caches",
    "label_smoothing_factor": "it changes nothing: DPO's losses read training.label_smoothing",
    "average_tokens_across_devices": "it changes nothing: DPO's loss is a mean over rows",
    "dataset_num_proc": "it changes nothing: rows are tokenised by the trainer itself",
    "truncation_mode": "it changes nothing: the end of a long response is cut, never the prompt",
    "pad_token": "it changes nothing: the tokenizer's padding token is used",
    "include_num_input_tokens_seen": "it changes nothing: num_tokens is logged anyway",
    "save_only_model": "a training could not go on from its saves",
    "enable_jit_checkpoint": "a training that is stopped goes on from its last save anyway",
    "ignore_data_skip": "a training that goes on would see its first rows twice",
    "restore_callback_states_from_checkpoint": "it changes nothing: no callback has a state",
    "debug": "it follows the forward of transformers, and the trainer has its own",
    "skip_memory_metrics": "it changes nothing: the numbers would be logged nowhere",
    # Keys of older versions, which recipes of others still have.
    "warmup_ratio": f"{_GONE}: training.warmup_steps below 1 is a share of all steps",
    "no_cuda": f"{_GONE}: a GPU is used where there is one",
    "per_gpu_train_batch_size": f"{_GONE}: it is training.per_device_train_batch_size",
    "max_prompt_length": f"{_GONE}: training.max_length is of prompt and response together",
    "max_completion_length": f"{_GONE}: training.max_length is of prompt and response together",
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

LOSSES = (
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot"),
    *("aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
)
_SMOOTHED = {"robust", "exo_pair", "aot", "aot_unpaired"}
_DIVERGENT = {
    *("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"),
}
_DIVERGENCES = ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")

# What each schedule reads of lr_scheduler_kwargs, and the kinds; `*` marks what must be given.
SCHEDULES: dict[str, dict[str, str]] = {
    "linear": {},
    "cosine": {"num_cycles": "float"},
    "cosine_with_restarts": {"num_cycles": "int"},
    "polynomial": {"lr_end": "float", "power": "float"},
    "constant": {},
    "constant_with_warmup": {},
    "inverse_sqrt": {"timescale": "int"},
    "cosine_with_min_lr": {"num_cycles": "float", "min_lr": "float", "min_lr_rate": "float"},
    "cosine_warmup_with_min_lr": {
        **{"num_cycles": "float", "min_lr": "float", "min_lr_rate": "float"},
        "warmup_lr_rate": "float",
    },
    "warmup_stable_decay": {
        **{"num_decay_steps": "int", "num_stable_steps": "int", "min_lr_ratio": "float"},
        **{"num_cycles": "float", "warmup_type": "Literal['linear', 'cosine', '1-sqrt']"},
        "decay_type": "Literal['linear', 'cosine', '1-sqrt']",
    },
}

# The package that an optimizer is from, by the start of its name.
OPTIMIZER_PACKAGES = {
    **dict.fromkeys(("adamw_bnb", "adamw_8bit", "ademamix", "lion_", "paged_"), "bitsandbytes"),
    "rmsprop_bnb": "bitsandbytes",
    **dict.fromkeys(("adamw_torch_4bit", "adamw_torch_8bit"), "torchao"),
    "galore_": "galore_torch",
    "apollo_": "apollo_torch",
    "grokadamw": "grokadamw",
    "schedule_free_": "schedulefree",
    "stable_adamw": "optimi",
}
_NO_OPTIMIZER = {
    **dict.fromkeys(("adamw_torch_xla", "adamw_torch_npu_fused"), "is for other devices"),
    "adamw_anyprecision": "needs torchdistx, which is no longer made",
    **dict.fromkeys(("lomo", "adalomo"), "cannot sum the gradients of several micro-batches"),
}
# What the optimizers of torch read of optim_args; those of packages judge theirs themselves.
_OPTIM_ARGS = {
    "sgd": ("momentum", "dampening", "weight_decay", "nesterov"),
    "adagrad": ("lr_decay", "weight_decay", "eps"),
    "rmsprop": ("momentum", "alpha", "eps", "weight_decay", "centered"),
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adafactor"), ()),
}


_STEPS = 10**9
RANGES = {
    "num_train_epochs": Between(0, 10_000, above=True),
    "warmup_steps": Between(0, _STEPS, whole=True),
    "weight_decay": Between(0, 100),
    "adam_beta1": Between(0, 0.999999999),
    "adam_beta2": Between(0, 0.999999999),
    "adam_epsilon": Between(0, 1, above=True),
    "max_grad_norm": Between(0, 1e9),
    "neftune_noise_alpha": Between(0, 1e4),
    "torch_empty_cache_steps": Between(1, _STEPS),
    "logging_steps": Between(0, _STEPS, above=True, whole=True),
    "save_steps": Between(0, _STEPS, above=True, whole=True),
    "save_total_limit": Between(1, _STEPS),
    "dataloader_num_workers": Between(0, 512),
    "ddp_bucket_cap_mb": Between(1, 100_000),
    "ddp_timeout": Between(1, 10_000_000),
    "router_aux_loss_coef": Between(0, 1000),
    "precompute_ref_batch_size": Between(1, 100_000),
    "f_alpha_divergence_coef": Between(-100, 100),
    "label_smoothing": Between(0, 0.499999),
    "discopop_tau": Between(0, 1000, above=True),
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
    """Those that a recipe may set."""
    return [key for key in trl_keys() if key not in DECIDED_ELSEWHERE and key not in NEVER]


# TRL names its keys by what they are about. These families say how a training runs and what is
# shown of it: logs, saves, processes, loaders, memory.
_EXECUTION = re.compile(
    "(log|save|ddp|dataloader|gradient_checkpointing|trackio|torch_empty_cache)_?"
    "|(report_to|project|disable_tqdm|activation_offloading|precompute_ref_batch_size)$"
)


def is_execution(key: str) -> bool:
    """Whether a key of TRL's says only how to execute, so that no checkpoint depends on it.

    >>> [is_execution(key) for key in ("logging_steps", "ddp_timeout", "weight_decay", "loss_type")]
    [True, True, False, False]
    """
    return _EXECUTION.match(key) is not None


def refuse_key(key: str) -> None:
    """Raises UserError for a key of TRL's that cannot stand in a recipe, with the reason."""
    if key in DECIDED_ELSEWHERE:
        raise UserError(f"training.{key}: decided by {DECIDED_ELSEWHERE[key]}")
    if key in NEVER:
        raise UserError(f"training.{key}: take it out: {NEVER[key]}")


def trl_value(key: str, value: Any) -> Any:
    """The value as TRL wants it; raises UserError for one that TRL or the trainer would refuse."""
    dotted = f"training.{key}"
    if key in _SPECIAL:
        return _SPECIAL[key](dotted, value)
    value = typed(dotted, value, trl_keys()[key])
    if isinstance(value, str) and not (value.strip() and value.isprintable()):
        raise UserError(f"{dotted}: must be a word, got {value!r}")
    if key in RANGES and value is not None:
        RANGES[key].check(dotted, value)
    return value


def _choice(*choices: str) -> Callable[[str, Any], str]:
    return lambda key, value: one_of(key, typed(key, value, "str"), choices)


def _schedule(key: str, value: Any) -> str:
    known = words(source_file("transformers", "trainer_utils.py"), "SchedulerType")
    name = typed(key, value, "str")
    if name in known and name not in SCHEDULES:
        raise UserError(f"{key}: {name} follows an evaluation, which the trainer has none of")
    return one_of(key, name, list(SCHEDULES))


def _optimizer(key: str, value: Any) -> str:
    names = words(source_file("transformers", "training_args.py"), "OptimizerNames")
    name = one_of(key, typed(key, value, "str"), names)
    if name in _NO_OPTIMIZER:
        raise UserError(f"{key}: {name} {_NO_OPTIMIZER[name]}; adamw_torch_fused is the default")
    if name.endswith("_layerwise"):
        raise UserError(f"{key}: {name} cannot sum the gradients of several micro-batches")
    return name


def _losses(key: str, value: Any) -> list[str]:
    names = typed(key, value if isinstance(value, list) else [value], "list[str]")
    if not names:
        raise UserError(f"{key}: must be one loss or more; sigmoid is DPO's")
    return [one_of(key, name, LOSSES) for name in names]


def _weights(key: str, value: Any) -> list[float] | None:
    weights = typed(key, value, "list[float] | None")
    for i, weight in enumerate(weights or []):
        Between(-1e6, 1e6).check(f"{key}.{i}", weight)
    return weights


def _trackers(key: str, value: Any) -> list[str]:
    known = keys_of(
        source_file("transformers", "integrations/integration_utils.py"), "INTEGRATION_TO_CALLBACK"
    )
    given = "none" if value is None else value
    names = typed(key, given if isinstance(given, list) else [given], "list[str]")
    for name in names:
        one_of(key, name, ["none", "all", *known] if len(names) == 1 else known)
    return names


def _max_steps(key: str, value: Any) -> int:
    steps = typed(key, value, "int")
    if steps == -1:
        return -1
    Between(1, _STEPS).check(key, steps)
    return steps


def _schedule_settings(key: str, value: Any) -> dict[str, Any] | None:
    return _mapping(key, value)


def _mapping(key: str, value: Any) -> dict[str, Any] | None:
    """A mapping as such, or in a text."""
    if isinstance(value, str):
        value = parse(value)
    if value is None or isinstance(value, dict):
        return value
    raise UserError(f"{key}: must be a mapping, as in {key}='{{name: value}}', got {value!r}")


def _checkpointing(key: str, value: Any) -> dict[str, Any] | None:
    given = _mapping(key, value)
    for name, setting in (given or {}).items():
        one_of(key, name, ("use_reentrant", "preserve_rng_state"))
        if typed(f"{key}.{name}", setting, "bool") and name == "use_reentrant":
            raise UserError(f"{key}.use_reentrant: must be false for the trainer's forward")
    return None if given is None else {k: typed(key, v, "bool") for k, v in given.items()}


def _static_space(key: str, value: Any) -> str | bool | None:
    if isinstance(value, Written) and value.value is False:
        return False
    return typed(key, value, "str | None")


_SPECIAL: dict[str, Callable[[str, Any], Any]] = {
    "lr_scheduler_type": _schedule,
    "lr_scheduler_kwargs": _schedule_settings,
    "optim": _optimizer,
    "loss_type": _losses,
    "loss_weights": _weights,
    "report_to": _trackers,
    "max_steps": _max_steps,
    "gradient_checkpointing_kwargs": _checkpointing,
    "trackio_static_space_id": _static_space,
    "save_strategy": _choice("no", "steps", "epoch"),
    "logging_strategy": _choice("no", "steps", "epoch"),
    "train_sampling_strategy": _choice("random", "sequential"),
    "f_divergence_type": _choice(*_DIVERGENCES),
    "log_level": _choice("detail", "debug", "info", "warning", "error", "critical", "passive"),
    "log_level_replica": _choice(
        *("detail", "debug", "info", "warning", "error", "critical", "passive")
    ),
}


def check_together(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of which one only means something, or only works, with another.

    Raises:
        UserError: names the key that would fail or change nothing.
    """
    losses = set(settings.get("loss_type", ["sigmoid"]))
    _check_losses(settings, losses)
    _check_optimizer(settings)
    schedule = settings.get("lr_scheduler_type", "cosine")
    given = settings.get("lr_scheduler_kwargs")
    if given:
        settings = settings | {"lr_scheduler_kwargs": _schedule_kwargs(schedule, given)}
    if schedule == "warmup_stable_decay" and "num_decay_steps" not in (given or {}):
        raise UserError(
            "training.lr_scheduler_kwargs: warmup_stable_decay wants num_decay_steps, as in "
            "{num_decay_steps: 10}"
        )
    if schedule.endswith("_min_lr") and len({"min_lr", "min_lr_rate"} & set(given or {})) != 1:
        raise UserError(
            f"training.lr_scheduler_kwargs: {schedule} wants min_lr or min_lr_rate, one of them, "
            "as in {min_lr_rate: 0.1}"
        )
    return settings


def _schedule_kwargs(schedule: str, given: dict[str, Any]) -> dict[str, Any]:
    known = SCHEDULES[schedule]
    if not known:
        raise UserError(f"training.lr_scheduler_kwargs: {schedule} has none; take them out")
    made = {}
    for name, value in given.items():
        key = f"training.lr_scheduler_kwargs.{name}"
        one_of("training.lr_scheduler_kwargs", name, list(known))
        made[name] = typed(key, value, known[name])
        if isinstance(made[name], int | float):
            least = 1 if known[name] == "int" else 0
            Between(least, 1e9).check(key, made[name])
    if schedule == "polynomial" and made.get("power") == 0:
        raise UserError("training.lr_scheduler_kwargs.power: must be above 0")
    for name in ("min_lr_rate", "min_lr_ratio", "warmup_lr_rate"):
        if name in made:
            Between(0, 1).check(f"training.lr_scheduler_kwargs.{name}", made[name])
    return made


def _check_losses(settings: dict[str, Any], losses: set[str]) -> None:
    weights = settings.get("loss_weights")
    if weights is not None and len(weights) != len(settings.get("loss_type", ["sigmoid"])):
        raise UserError(
            f"training.loss_weights: {len(weights)} weights for "
            f"{len(settings.get('loss_type', ['sigmoid']))} losses (training.loss_type)"
        )
    smoothing = settings.get("label_smoothing", 0.0)
    if smoothing and not losses & _SMOOTHED:
        raise UserError(
            f"training.label_smoothing: no effect on {', '.join(sorted(losses))}; the losses that "
            f"read it are {', '.join(sorted(_SMOOTHED))} (robust is DPO's)"
        )
    if "exo_pair" in losses and not smoothing:
        raise UserError("training.label_smoothing: exo_pair wants it above 0; 0.001 is usual")
    divergence = settings.get("f_divergence_type", "reverse_kl")
    if divergence != "reverse_kl" and not losses <= _DIVERGENT:
        raise UserError(
            f"training.f_divergence_type: {divergence} does not go with "
            f"{', '.join(sorted(losses - _DIVERGENT))}; use reverse_kl"
        )
    if "f_alpha_divergence_coef" in settings and divergence != "alpha_divergence":
        raise UserError(
            "training.f_alpha_divergence_coef: no effect without "
            "training.f_divergence_type=alpha_divergence"
        )
    if "discopop_tau" in settings and "discopop" not in losses:
        raise UserError("training.discopop_tau: no effect without training.loss_type=discopop")
    if settings.get("use_weighting") and losses & {"aot", "aot_unpaired"}:
        raise UserError("training.use_weighting: does not go with the losses aot and aot_unpaired")


def _check_optimizer(settings: dict[str, Any]) -> None:
    name = settings.get("optim", "adamw_torch_fused")
    projected = name.startswith(("galore_", "apollo_"))
    if settings.get("optim_target_modules") is not None and not projected:
        raise UserError(
            f"training.optim_target_modules: no effect on {name}; galore_adamw and apollo_adamw "
            "read it"
        )
    if projected and settings.get("optim_target_modules") is None:
        raise UserError(f"training.optim_target_modules: missing; {name} wants it (all-linear)")
    text = settings.get("optim_args")
    if text is None:
        return
    for part in text.replace(" ", "").split(","):
        argument, equals, value = part.partition("=")
        if not argument or not equals or not value or "=" in value:
            raise UserError(f"training.optim_args: wants name=value,name=value, got {text!r}")
        if name in _OPTIM_ARGS:
            _check_optim_arg(name, argument, value)
    if "nesterov=true" in text.replace(" ", "").lower() and "momentum=" not in text:
        raise UserError("training.optim_args: nesterov wants momentum, as in momentum=0.9")


def _check_optim_arg(optimizer: str, argument: str, value: str) -> None:
    known = _OPTIM_ARGS[optimizer]
    if not known:
        raise UserError(f"training.optim_args: no effect on {optimizer}; see training.adam_beta1")
    one_of("training.optim_args", argument, known)
    if argument in ("nesterov", "centered"):
        one_of(f"training.optim_args: {argument}", value.lower(), ("true", "false"))
    else:
        Between(0, 1e6).check(
            f"training.optim_args: {argument}",
            typed(f"training.optim_args: {argument}", value, "float"),
        )


# Where the package of a tracker has another name than the tracker.
TRACKER_PACKAGES = {"azure_ml": "azureml", "flyte": "flytekit"}


def optimizer_package(name: str) -> str | None:
    """The package that must be installed for an optimizer; None: torch has it."""
    starts = [start for start in OPTIMIZER_PACKAGES if name.startswith(start)]
    return OPTIMIZER_PACKAGES[max(starts, key=len)] if starts else None
