"""Checks the file `training.accelerate_config` early: accelerate reads it only for training."""

import math
from functools import cache
from pathlib import Path
from typing import Any

from selm.errors import UserError
from selm.recipe.source_text import annotations, options, source_file
from selm.recipe.typed import one_of, typed
from selm.recipe.yaml_tree import Written, as_text, plain, read

KEY = "training.accelerate_config"

# Supported values of distributed_type; accelerate's others are for devices never tried here.
DISTRIBUTED = ("NO", "MULTI_GPU", "DEEPSPEED", "FSDP")

# The recipe's dtype decides; the file must not contradict it.
_PRECISION = {"bfloat16": "bf16", "float16": "fp16", "float32": "no"}

_BOOLEAN = ("use_cpu", "debug", "same_network", "enable_cpu_affinity")
_NUMBERS = {
    "num_processes": (1, 100_000),
    "num_machines": (1, 100_000),
    "machine_rank": (0, 100_000),
    "main_process_port": (0, 65_535),
}
_WORDS = {
    "compute_environment": ("LOCAL_MACHINE",),
    "rdzv_backend": ("static", "c10d", "etcd", "etcd-v2"),
}
# Keys that `accelerate config` writes into every file; they must be empty.
_EMPTY_ONLY = {
    *("fp8_config", "parallelism_config", "megatron_lm_config", "mpirun_config", "dynamo_config"),
    *("tpu_name", "tpu_zone", "tpu_use_cluster", "tpu_use_sudo", "tpu_vm", "tpu_env"),
    *("command_file", "commands", "downcast_bf16"),
}

_ZERO_WORDS = {
    **dict.fromkeys(("offload_optimizer_device", "offload_param_device"), ("none", "cpu", "nvme")),
    "deepspeed_multinode_launcher": ("standard", "pdsh", "openmpi", "mvapich", "mpich", "nossh"),
    "zero3_init_flag": ("true", "false"),
    "zero3_save_16bit_model": ("true", "false"),
    "zero_stage": ("0", "1", "2", "3"),
}
_TRUTHS = ("true", "false")
_FSDP_WORDS = {
    "fsdp_version": ("1", "2"),
    "fsdp_state_dict_type": ("FULL_STATE_DICT",),
    "fsdp_auto_wrap_policy": ("TRANSFORMER_BASED_WRAP", "SIZE_BASED_WRAP", "NO_WRAP"),
    "fsdp_backward_prefetch": ("BACKWARD_PRE", "BACKWARD_POST", "NO_PREFETCH"),
    "fsdp_sharding_strategy": ("FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD", "HYBRID_SHARD"),
    **dict.fromkeys(("fsdp_reshard_after_forward", "fsdp_cpu_ram_efficient_loading"), _TRUTHS),
    **dict.fromkeys(("fsdp_offload_params", "fsdp_sync_module_states"), _TRUTHS),
    **dict.fromkeys(("fsdp_use_orig_params", "fsdp_activation_checkpointing"), _TRUTHS),
    "fsdp_forward_prefetch": _TRUTHS,
}


def read_config(path: str) -> dict[str, Any]:
    """The file's settings; raises UserError if it is not a mapping in YAML."""
    if not Path(path).is_file():
        raise UserError(f"{KEY}: no such file: {path} (looked from {Path.cwd().name}/)")
    about = Path(path).stat()
    try:
        tree = _read_once(path, about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
    except UserError as error:
        raise UserError(f"{KEY}: {error}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{KEY}: {path} is not a mapping of settings; compare it with single.yaml")
    return tree


@cache
def _read_once(path: str, *_same_file: int) -> Any:
    """The tree of a file, which the estimates of a sweep ask for thousands of times."""
    return read(path)


def setting(path: str, key: str) -> Any:
    """The value of `key` in the file; raises UserError if it has none."""
    config = read_config(path)
    if config.get(key) is None:
        fix = ", or set training.num_processes" if key == "num_processes" else ""
        raise UserError(f"{KEY}: {path} has no {key}; add it there{fix}")
    return plain(config[key])


def check_config(path: str, dtype: str, num_processes: int | None) -> None:
    """Refuse settings that accelerate would refuse or ignore.

    Args:
        num_processes: the recipe's number, which takes precedence over the file's.
    """
    config = read_config(path)
    for key, value in config.items():
        _check_setting(path, key, value)
    kind = _distributed(path, config)
    precision = as_text(config.get("mixed_precision"))
    wanted = _PRECISION[dtype]
    if precision not in (None, "no", wanted):
        raise UserError(
            f"{KEY}: {path}: mixed_precision: {precision} contradicts model.dtype: {dtype}; write "
            '"no", and the recipe decides'
        )
    processes = num_processes or plain(config.get("num_processes")) or 1
    if kind == "NO" and processes > 1:
        where = "training.num_processes" if num_processes else f"{KEY}: {path}: num_processes"
        raise UserError(
            f"{where}: {processes} processes, but distributed_type NO starts only one; use "
            "accelerate_configs/ddp.yaml (or zero3.yaml, fsdp2.yaml)"
        )
    rank, machines = plain(config.get("machine_rank")) or 0, plain(config.get("num_machines")) or 1
    if rank >= machines:
        raise UserError(f"{KEY}: {path}: machine_rank: must be below num_machines {machines}")
    if kind == "DEEPSPEED":
        _check_section(path, config, "deepspeed_config", _ZERO_WORDS)
        _check_zero(path, config.get("deepspeed_config") or {})
    if kind == "FSDP":
        _check_section(path, config, "fsdp_config", _FSDP_WORDS)


def _distributed(path: str, config: dict[str, Any]) -> str:
    value = config.get("distributed_type")
    if value is None:
        raise UserError(f"{KEY}: {path} has no distributed_type; add it: {', '.join(DISTRIBUTED)}")
    if isinstance(value, Written):
        raise UserError(
            f'{KEY}: {path}: distributed_type: {value} is true or false in YAML; write it as "NO"'
        )
    return one_of(f"{KEY}: {path}: distributed_type", str(value), DISTRIBUTED)


def _check_setting(path: str, key: str, value: Any) -> None:
    where = f"{KEY}: {path}: {key}"
    known = [*_fields(), "fp16", "dynamo_backend"]
    if key not in known:
        one_of(f"{KEY}: {path}", key, known)
    if value is None:
        return
    if key in _BOOLEAN:
        typed(where, value, "bool")
    elif key in _NUMBERS:
        low, high = _NUMBERS[key]
        if isinstance(value, str) or not low <= typed(where, value, "int") <= high:
            raise UserError(f"{where}: must be a whole number, {low} or more, got {value!r}")
    elif key in _WORDS:
        one_of(where, str(as_text(value)), _WORDS[key])
    elif key == "mixed_precision":
        one_of(where, str(as_text(value)), ("no", "bf16", "fp16"))
    elif key == "gpu_ids":
        _check_gpu_ids(where, str(as_text(value)))
    elif key in _EMPTY_ONLY and plain(value) not in (False, "no", "NO", "", {}, []):
        raise UserError(f"{where}: not supported here; remove it")
    elif key in ("fp16", "dynamo_backend") and plain(value) not in (False, "no", "NO"):
        fix = "model.dtype decides" if key == "fp16" else "remove it"
        raise UserError(f"{where}: not supported here; {fix}")
    elif key in ("main_process_ip", "main_training_function"):
        typed(where, value, "str")
    elif key in ("deepspeed_config", "fsdp_config") and not isinstance(value, dict):
        raise UserError(f"{where}: must be a mapping of settings, got {value!r}")


def _fields() -> list[str]:
    path = source_file("accelerate", "commands/config/config_args.py")
    return [*annotations(path, "BaseConfig"), *annotations(path, "ClusterConfig")]


def _check_gpu_ids(where: str, value: str) -> None:
    ids = value.split(",")
    if value != "all" and not all(part.strip().isdigit() for part in ids):
        raise UserError(f"{where}: must be all, or numbers such as 0,1, got {value!r}")


def _check_section(
    path: str, config: dict[str, Any], section: str, words: dict[str, tuple[str, ...]]
) -> None:
    """Refuse unknown keys, which accelerate ignores, and values that end in a traceback there."""
    prefix = "fsdp_" if section == "fsdp_config" else ""
    known = sorted(options(source_file("accelerate", "commands/launch.py")))
    for name, value in (config.get(section) or {}).items():
        where = f"{KEY}: {path}: {section}.{name}"
        full = name if name.startswith(prefix) else prefix + name
        if full not in known:
            one_of(f"{KEY}: {path}: {section}", full, [*words])
        if full in words and value is not None:
            text = str(as_text(value))
            low = text.lower() if words[full] in (_TRUTHS, _ZERO_WORDS["zero_stage"]) else text
            one_of(where, low if low in words[full] else text, words[full])
        elif isinstance(plain(value), float) and not math.isfinite(plain(value)):
            raise UserError(f"{where}: must be a finite number, got {value!r}")


def _check_zero(path: str, section: dict[str, Any]) -> None:
    where = f"{KEY}: {path}: deepspeed_config"
    file = section.get("deepspeed_config_file")
    if file is not None:
        if not Path(str(as_text(file))).is_file():
            raise UserError(f"{where}.deepspeed_config_file: no such file: {as_text(file)}")
        return
    stage = plain(section.get("zero_stage", 2))
    if str(stage) == "3" and plain(section.get("zero3_save_16bit_model")) is not True:
        raise UserError(
            f"{where}.zero3_save_16bit_model: must be true, otherwise the whole model is not "
            "saved at the end"
        )
