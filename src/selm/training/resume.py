"""Where an interrupted training goes on, and whether this launch can."""

import json
from pathlib import Path

from selm.errors import UserError


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The latest `checkpoint-<step>` that was written to its end; unfinished ones are skipped.

    transformers writes trainer_state.json last, so it is whole exactly if everything else is.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1]))
    return next((path for path in found if _is_json(path / "trainer_state.json")), None)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return True


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
