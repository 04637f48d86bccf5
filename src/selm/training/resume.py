"""Which save an interrupted training resumes from, and whether this launch can read it."""

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from selm.errors import UserError
from selm.escape import one_line
from selm.files import write_text
from selm.model.finite import all_finite, first_not_finite
from selm.run.hashes import sha256

# Written into a save last: the hash of each of its files.
FILES = "files.json"


def seal(saved: Path) -> None:
    """Write down the files of a save, after all processes have written their part."""
    write_text(saved / FILES, json.dumps(_hashes(saved), indent=1) + "\n")


def _hashes(saved: Path) -> dict[str, str]:
    """Hashes several files at a time: the optimizer of a 7B model has 84 GB, and the GPUs wait."""
    files = sorted(path for path in saved.rglob("*") if path.is_file() and path.name != FILES)
    with ThreadPoolExecutor() as threads:
        found = threads.map(sha256, files)
        return {
            str(file.relative_to(saved)): digest for file, digest in zip(files, found, strict=True)
        }


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The latest `checkpoint-<step>` that can be resumed; prints why later ones are skipped."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1]))
    for path in found:
        why = why_not(path)
        if why is None:
            return path
        print(one_line(f"{path}: skipped, {why}"))
    return None


def why_not(saved: Path) -> str | None:
    """Why a training cannot resume from this save: incomplete, damaged or diverged; None if it can.

    The parts that DeepSpeed and FSDP shard were checked before they were written.
    """
    if not (saved / FILES).is_file():
        return "it is incomplete"
    if not _is_as_written(saved):
        return "damaged: its files have changed since they were written"
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
    """A whole optimizer state fits any number of processes, a sharded one only the same launch.

    Args:
        kind: what shards the optimizer in this launch: DeepSpeed, FSDP or none.

    Raises:
        UserError: this launch cannot read what the earlier launch saved.
    """
    now = (kind, processes if kind == "DeepSpeed" else 0)
    then = _sharding(saved)
    if then != now:
        raise UserError(
            f"training.accelerate_config: {saved} holds an optimizer state {_said(*then)}, but "
            f"this launch needs one {_said(*now)}; launch it as before, or delete {saved.parent} "
            "to start the iteration again"
        )


def _sharding(saved: Path) -> tuple[str, int]:
    """How a checkpoint's optimizer was sharded, and over how many processes if that matters."""
    parts = len(list(saved.glob("global_step*/*_optim_states.pt")))
    if parts:
        return "DeepSpeed", parts
    return ("FSDP" if any(saved.glob("pytorch_model_fsdp*")) else "none"), 0


def _said(kind: str, processes: int) -> str:
    if kind == "none":
        return "in one piece"
    return f"sharded by {kind}" + (f" over {processes} processes" if processes else "")
