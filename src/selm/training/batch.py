"""How a global batch is made up: processes, rows per device, accumulation steps."""

from typing import Any

from selm.errors import UserError
from selm.recipe import accelerate_config
from selm.recipe.schema import Recipe, Training


def rows_per_process(recipe: Recipe, world_size: int) -> int:
    """Rows of a step on one process; UserError if the global batch cannot be divided equally."""
    wanted = recipe.training.global_batch_size
    if wanted % world_size == 0:
        return wanted // world_size
    raise UserError(
        f"training.global_batch_size: {wanted} rows cannot be divided equally among {world_size} "
        f"processes; make it a multiple of {world_size}"
    )


def gradient_accumulation_steps(recipe: Recipe, world_size: int) -> int:
    """global = processes x per device x accumulation; raises UserError if no whole number fits."""
    per_device = recipe.training.per_device_train_batch_size
    rows = rows_per_process(recipe, world_size)
    if rows % per_device == 0:
        return rows // per_device
    valid = [str(b) for b in range(1, rows + 1) if rows % b == 0]
    raise UserError(
        f"training.global_batch_size: {recipe.training.global_batch_size} is not {world_size} "
        f"processes x {per_device} rows x a whole number of accumulation steps; "
        f"valid training.per_device_train_batch_size: {', '.join(valid)}"
    )


def num_processes(recipe: Recipe) -> int:
    """How many training processes the plan starts: the recipe's number, else the config's."""
    if recipe.training.num_processes is not None:
        return recipe.training.num_processes
    return int(accelerate_setting(recipe.training, "num_processes"))


def accelerate_setting(training: Training, key: str) -> Any:
    """The value of `key` in the recipe's accelerate config; raises UserError if it has none."""
    return accelerate_config.setting(training.accelerate_config, key)


def batch_arithmetic(recipe: Recipe) -> str:
    """`256 = 8 processes x 8 rows x 4 accumulation steps`"""
    training, processes = recipe.training, num_processes(recipe)
    text = f"{training.global_batch_size} = {processes} processes x "
    if training.tokens_per_micro_batch is not None:
        rows = rows_per_process(recipe, processes)
        return f"{text}{rows} rows, in micro-batches of {training.tokens_per_micro_batch:,} tokens"
    steps = gradient_accumulation_steps(recipe, processes)
    return f"{text}{training.per_device_train_batch_size} rows x {steps} accumulation steps"
