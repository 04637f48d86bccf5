"""Packages that only some recipes need."""

import importlib.util

from selm.errors import UserError
from selm.recipe.schema import Recipe
from selm.recipe.trl_values import TRACKER_PACKAGES, optimizer_package
from selm.training.batch import accelerate_setting


def check_packages(recipe: Recipe) -> None:
    """Refuse a recipe whose packages are missing; called where stages run, not for a plan."""
    training = recipe.training
    wanted = {}
    for tracker in training.trl_overrides().get("report_to", ["tensorboard"]):
        if tracker not in ("none", "all"):
            wanted[f"training.report_to: {tracker}"] = (TRACKER_PACKAGES.get(tracker, tracker),)
    optimizer = training.trl_overrides().get("optim", "adamw_torch_fused")
    package = optimizer_package(optimizer)
    if package is not None:
        wanted[f"training.optim: {optimizer}"] = (package,)
    if training.lora is not None and training.lora.load_in_4bit:
        wanted["training.lora.load_in_4bit"] = ("bitsandbytes",)
    if accelerate_setting(training, "distributed_type") == "DEEPSPEED":
        wanted[f"training.accelerate_config: {training.accelerate_config}"] = ("deepspeed",)
    if recipe.model.attn_implementation == "flash_attention_2":
        wanted["model.attn_implementation: flash_attention_2"] = ("flash_attn", "kernels")
    for key, packages in wanted.items():
        if not any(importlib.util.find_spec(package) for package in packages):
            names = " or ".join(name.replace("_", "-") for name in packages)
            raise UserError(
                f"{key}: the package {names} is not installed; run .venv/bin/pip install "
                f"{packages[0].replace('_', '-')}, or choose another value"
            )
