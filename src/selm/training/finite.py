"""Whether numbers are finite: a policy that diverged is never saved, and never gone on from."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch.distributed.tensor import DTensor

from selm.errors import SharedError


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Of what lies in this process of them; whole numbers, such as 4-bit weights, are finite."""
    local = (tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors)
    return all(_is_finite(part) for part in local if part.is_floating_point() and part.numel() > 0)


def _is_finite(tensor: torch.Tensor) -> bool:
    """By its extremes, which are NaN if anything is: no copy, where isfinite makes two."""
    return all(math.isfinite(extreme) for extreme in torch.aminmax(tensor.detach()))


def in_optimizer(state: Mapping[torch.Tensor, Mapping[str, Any]]) -> Iterable[torch.Tensor]:
    """The weights that it moves, DeepSpeed's own copies among them, and its means."""
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
    """The error where no learning rate is to blame: no weight was moved yet."""
    return SharedError(
        f"training: {what} is not finite before any weight was moved: the model's weights are not, "
        "or it overflows on these rows; set model.dtype to bfloat16 or float32, or start from "
        "another checkpoint"
    )


def require_finite_reference(columns: Mapping[str, Sequence[float]]) -> None:
    """Refuse to train against log-probs that are no numbers; each value is one row's."""
    for key, column in columns.items():
        bad = [row for row, value in enumerate(column) if not math.isfinite(value)]
        if bad:
            raise overflowed(f"{key} of the reference, row {bad[0]} ({len(bad)} of {len(column)}),")


def require_finite_files(folder: Path) -> None:
    """Refuse a saved model one of whose weights is not finite, as it lies on the disk."""
    name = first_not_finite(folder)
    if name is not None:
        raise SharedError(
            f"training: {name} of the trained policy is not finite in model.dtype, so it is not "
            "kept; lower the iteration's learning_rate, or set model.dtype to bfloat16"
        )


def first_not_finite(folder: Path) -> str | None:
    """The first weight of a model's folder that is not finite."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118, it is no dict
                if not all_finite([file.get_tensor(name)]):
                    return name
    return None
