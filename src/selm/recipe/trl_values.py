"""Checks the values of TRL's keys when a recipe is loaded.

A wrong value must not be found only after hours of generation. Values that need a model or an
installed package are checked in the preflight, which builds what the training builds.
"""

from collections.abc import Callable
from typing import Any

from selm.errors import UserError
from selm.recipe.source_text import keys_of, source_file, words
from selm.recipe.trl_keys import trl_keys
from selm.recipe.typed import Between, one_of, typed
from selm.recipe.yaml_tree import Written, parse

LOSSES = (
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot"),
    *("aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
)

_SMOOTHED = {"robust", "exo_pair", "aot", "aot_unpaired"}

_DIVERGENT = {
    *("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"),
}

_DIVERGENCES = ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")

# The lr_scheduler_kwargs of each schedule, and their types.
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

# The package of an optimizer, by the start of its name.
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
    "adamw_anyprecision": "needs torchdistx, which is no longer maintained",
    **dict.fromkeys(("lomo", "adalomo"), "cannot sum the gradients of several micro-batches"),
}

# The optim_args of torch's optimizers; those of other packages check their own.
_OPTIM_ARGS = {
    "sgd": ("momentum", "dampening", "weight_decay", "nesterov"),
    "adagrad": ("lr_decay", "weight_decay", "eps"),
    "rmsprop": ("momentum", "alpha", "eps", "weight_decay", "centered"),
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adafactor"), ()),
}

_LOG_LEVELS = ("detail", "debug", "info", "warning", "error", "critical", "passive")

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


def trl_value(key: str, value: Any) -> Any:
    """The value in TRL's type; raises UserError if TRL or the trainer would refuse it."""
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
        raise UserError(
            f"{key}: {name} needs an evaluation during training, which this trainer does not have"
        )
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
        raise UserError(f"{key}: must name at least one loss; sigmoid is the loss of DPO")
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


def _mapping(key: str, value: Any) -> dict[str, Any] | None:
    """A mapping, or a text that holds one."""
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
    "lr_scheduler_kwargs": _mapping,
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
    "log_level": _choice(*_LOG_LEVELS),
    "log_level_replica": _choice(*_LOG_LEVELS),
}


def check_together(settings: dict[str, Any]) -> dict[str, Any]:
    """Checks settings that have an effect, or work, only together with another.

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
            "training.lr_scheduler_kwargs: warmup_stable_decay needs num_decay_steps, as in "
            "{num_decay_steps: 10}"
        )
    if schedule.endswith("_min_lr") and len({"min_lr", "min_lr_rate"} & set(given or {})) != 1:
        raise UserError(
            f"training.lr_scheduler_kwargs: {schedule} needs either min_lr or min_lr_rate, "
            "as in {min_lr_rate: 0.1}"
        )
    return settings


def _schedule_kwargs(schedule: str, given: dict[str, Any]) -> dict[str, Any]:
    known = SCHEDULES[schedule]
    if not known:
        raise UserError(f"training.lr_scheduler_kwargs: {schedule} takes no arguments; remove them")
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
            f"read it are {', '.join(sorted(_SMOOTHED))} (robust is the one for DPO)"
        )
    if "exo_pair" in losses and not smoothing:
        raise UserError("training.label_smoothing: exo_pair needs a value above 0; 0.001 is usual")
    divergence = settings.get("f_divergence_type", "reverse_kl")
    if divergence != "reverse_kl" and not losses <= _DIVERGENT:
        raise UserError(
            f"training.f_divergence_type: {divergence} does not work with "
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
        raise UserError(
            "training.use_weighting: does not work with the losses aot and aot_unpaired"
        )


def _check_optimizer(settings: dict[str, Any]) -> None:
    name = settings.get("optim", "adamw_torch_fused")
    projected = name.startswith(("galore_", "apollo_"))
    if settings.get("optim_target_modules") is not None and not projected:
        raise UserError(
            f"training.optim_target_modules: no effect on {name}; galore_adamw and apollo_adamw "
            "read it"
        )
    if projected and settings.get("optim_target_modules") is None:
        raise UserError(
            f"training.optim_target_modules: missing; {name} needs it (all-linear is usual)"
        )
    text = settings.get("optim_args")
    if text is None:
        return
    for part in text.replace(" ", "").split(","):
        argument, equals, value = part.partition("=")
        if not argument or not equals or not value or "=" in value:
            raise UserError(f"training.optim_args: must be name=value,name=value, got {text!r}")
        if name in _OPTIM_ARGS:
            _check_optim_arg(name, argument, value)
    if "nesterov=true" in text.replace(" ", "").lower() and "momentum=" not in text:
        raise UserError("training.optim_args: nesterov needs momentum, as in momentum=0.9")


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


# Packages whose name differs from the tracker's.
TRACKER_PACKAGES = {"azure_ml": "azureml", "flyte": "flytekit"}


def optimizer_package(name: str) -> str | None:
    """The package that an optimizer needs; None if it is in torch."""
    starts = [start for start in OPTIMIZER_PACKAGES if name.startswith(start)]
    return OPTIMIZER_PACKAGES[max(starts, key=len)] if starts else None
