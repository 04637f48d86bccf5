"""Where an interrupted training goes on, and whether this launch can."""

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from selm.errors import UserError
from selm.escape import one_line
from selm.files import write_text
from selm.run.hashes import sha256
from selm.training.finite import all_finite, first_not_finite

# What is written into a save last: the hash of every file of it.
FILES = "files.json"


def seal(saved: Path) -> None:
    """Note what a save consists of, once all processes have written their part of it."""
    write_text(saved / FILES, json.dumps(_hashes(saved), indent=1) + "\n")


def _hashes(saved: Path) -> dict[str, str]:
    """Several files at a time: a 7B model's optimizer has 84 GB, and GPUs wait."""
    files = sorted(path for path in saved.rglob("*") if path.is_file() and path.name != FILES)
    with ThreadPoolExecutor() as threads:
        found = threads.map(sha256, files)
        return {
            str(file.relative_to(saved)): digest for file, digest in zip(files, found, strict=True)
        }


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The latest `checkpoint-<step>` to go on from; of each that is passed over a line says why."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1]))
    for path in found:
        why = why_not(path)
        if why is None:
            return path
        print(one_line(f"{path}: not gone on from, {why}"))
    return None


def why_not(saved: Path) -> str | None:
    """What keeps a training from going on here: not written to its end, damaged, or diverged.

    What DeepSpeed and FSDP shard was looked at before it was written.
    """
    if not (saved / FILES).is_file():
        return "it was not written to its end"
    if not _is_as_written(saved):
        return "damaged: its files are not those that were written"
    name = first_not_finite(saved)
    if (saved / "optimizer.pt").is_file():
        state = torch.load(saved / "optimizer.pt", "cpu", weights_only=True, mmap=True)["state"]
        if not all_finite(_tensors(state.values())):
            name = "its optimizer's state"
    return None if name is None else f"{name} is not finite: the policy had diverged"


def _tensors(of_weights: Iterable[dict[str, Any]]) -> Iterator[torch.Tensor]:
    for means in of_weights:
        yield from (value for value in means.values() if isinstance(value, torch.Tensor))


def _is_as_written(saved: Path) -> bool:
    try:
        written = json.loads((saved / FILES).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return False
    return written == _hashes(saved)


def check_resumable(saved: Path, kind: str, processes: int) -> None:
    """A whole optimizer state goes on with any number of processes, a sharded one only as it was.

    Args:
        kind: what shards the optimizer in this launch: DeepSpeed, FSDP or none.

    Raises:
        UserError: this launch cannot read what that one saved.
    """
    now = (kind, processes if kind == "DeepSpeed" else 0)
    then = _sharding(saved)
    if then != now:
        raise UserError(
            f"training.accelerate_config: {saved} holds an optimizer state {_said(*then)}, this "
            f"launch has one {_said(*now)}; launch it as before, or delete {saved.parent} to begin "
            "the iteration again"
        )


def _sharding(saved: Path) -> tuple[str, int]:
    """How a checkpoint's optimizer was sharded, and over how many processes where that matters."""
    parts = len(list(saved.glob("global_step*/*_optim_states.pt")))
    if parts:
        return "DeepSpeed", parts
    return ("FSDP" if any(saved.glob("pytorch_model_fsdp*")) else "none"), 0


def _said(kind: str, processes: int) -> str:
    if kind == "none":
        return "in one piece"
    return f"sharded by {kind}" + (f" over {processes} processes" if processes else "")
