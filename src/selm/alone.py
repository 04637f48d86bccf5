"""A stage of a run is made by one process, or one launch of several, at a time."""

import ctypes
import fcntl
import os
import signal
import socket
import time
from pathlib import Path
from typing import TextIO

from selm.errors import OutsideError

PATIENCE = 150  # seconds; NFS lets go of a lost machine's locks after 90

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def lock(path: Path) -> TextIO:
    """Hold this file for as long as the result is open; the kernel lets go of a dead process's.

    Raises:
        OutsideError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+", encoding="utf-8")
    until = time.monotonic() + PATIENCE
    while not _try(file):
        holder = path.read_text(encoding="utf-8").strip() or "another process"
        elsewhere = not holder.endswith(f" on {socket.gethostname()}")
        if not elsewhere or time.monotonic() > until:
            raise OutsideError(f"{path}: {holder} makes this already; wait for it or end it")
        time.sleep(1)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def _try(file: TextIO) -> bool:
    try:
        # not flock: forked children would share it
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def end_with_launcher() -> None:
    """Be killed when `accelerate launch` is: a kill -9 leaves it no time to end its processes.

    Without a launcher nothing is changed: a shell may end before what it has started.
    """
    if "ACCELERATE_MIXED_PRECISION" in os.environ:  # which every launch sets
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
