"""Whether numbers are finite: a policy that diverged is never saved or resumed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch.distributed.tensor import DTensor

from selm.errors import SharedError


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Looks at this process's part; whole numbers, such as 4-bit weights, are finite."""
    local = (tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors)
    return all(
        math.isfinite(extreme)
        for part in local
        if part.is_floating_point() and part.numel() > 0
        for extreme in torch.aminmax(part.detach())  # NaN if any value is; `isfinite` copies twice
    )


def in_optimizer(state: Mapping[torch.Tensor, Mapping[str, Any]]) -> Iterable[torch.Tensor]:
    """The weights that the optimizer updates (DeepSpeed's own copies), and its means."""
    for weight, means in state.items():
        yield weight
        yield from (value for value in means.values() if isinstance(value, torch.Tensor))


def diverged(what: str, step: int, learning_rate: float) -> SharedError:
    """The error that ends a training at this step."""
    return SharedError(
        f"training: {what} of step {step} is not finite at a learning rate of {learning_rate:.3g}: "
        "the policy diverged and is not saved; lower the iteration's learning_rate, or raise "
        "training.warmup_steps"
    )


def overflowed(what: str) -> SharedError:
    """The error if no weight was updated yet, so that the learning rate cannot be the cause."""
    return SharedError(
        f"training: {what} is not finite before the first update: the model's weights are not "
        "finite, or it overflows on these rows; set model.dtype to bfloat16 or float32, or "
        "start from another checkpoint"
    )


def require_finite_reference(columns: Mapping[str, Sequence[float]]) -> None:
    """Refuse to train if a log-prob of the reference, one per row, is not finite."""
    for key, column in columns.items():
        bad = [row for row, value in enumerate(column) if not math.isfinite(value)]
        if bad:
            raise overflowed(f"{key} of the reference, row {bad[0]} ({len(bad)} of {len(column)}),")


def require_finite_files(folder: Path) -> None:
    """Refuse a model on disk if one of its weights is not finite."""
    name = first_not_finite(folder)
    if name is not None:
        raise SharedError(
            f"training: {name} of the trained policy is not finite in model.dtype, so it is not "
            "saved; lower the iteration's learning_rate, or set model.dtype to bfloat16"
        )


def first_not_finite(folder: Path) -> str | None:
    """The first weight of a model's folder that is not finite."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118, file is not a dict
                if not all_finite([file.get_tensor(name)]):
                    return name
    return None
