"""A stage's script that is killed at a certain point: `kill -9` of its process and its launcher.

    python tests/end_to_end/dies.py POINT TIMES SCRIPT ...

At the end of the TIMES-th time that the script gets to POINT, one of `POINTS`: not a moment
earlier or later, however busy the machine is. It must be in a process group of its own.
"""

import os
import runpy
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from transformers import Trainer

from selm import artifacts


def is_shard(temporary: Any, path: Any) -> bool:
    return "shard-" in str(path)


# What is called, by its owner and name, and which of its calls count.
POINTS: dict[str, tuple[Any, str, Callable[..., bool]]] = {
    "shard": (os, "replace", is_shard),
    "save": (Trainer, "_save_checkpoint", lambda *args: True),
    "push_save": (artifacts, "push_save", lambda *args: True),
}


def die_at(point: str, times: int) -> None:
    owner, name, counts = POINTS[point]
    called = getattr(owner, name)
    left = times

    @wraps(called)
    def and_die(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        result = called(*args, **kwargs)
        left -= counts(*args)
        if left == 0:
            os.killpg(0, signal.SIGKILL)
        return result

    setattr(owner, name, and_die)


if __name__ == "__main__":
    die_at(sys.argv[1], int(sys.argv[2]))
    del sys.argv[:3]
    runpy.run_path(sys.argv[0], run_name="__main__")
