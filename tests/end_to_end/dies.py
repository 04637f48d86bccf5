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
from importlib import import_module
from typing import Any


def is_shard(temporary: Any, path: Any) -> bool:
    return str(path).endswith(".parquet") and "shard-" in str(path)


def always(*args: Any) -> bool:
    return True


# What is called, by its module and name, and which of its calls count.
POINTS: dict[str, tuple[str, str, Callable[..., bool]]] = {
    "shard": ("os", "replace", is_shard),
    "save": ("selm.training.run", "seal", always),
    "push_save": ("selm.hub.every_save", "say_how_it_went", always),
}


def die_at(point: str, times: int) -> None:
    module, name, counts = POINTS[point]
    owner = import_module(module)
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
