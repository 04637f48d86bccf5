"""Ends a stage when the processes that started it end, even after a kill -9."""

import ctypes
import os
import select
import signal
import socket
import threading
import time

GRACE = 5  # seconds between SIGTERM and SIGKILL

# Set by run.sh: `<process id>@<host>`. On another host, under Slurm, the id means nothing.
RUN_SH = "SELM_RUN_SH"

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_run_sh() -> None:
    """End when `run.sh` ends. A stage that was started by hand continues without its shell."""
    pid, _, host = os.environ.get(RUN_SH, "").partition("@")
    if pid.isdigit() and host == socket.gethostname():
        _end_with(int(pid))


def end_with_launcher(main: bool) -> None:
    """End when `accelerate launch` ends: a kill -9 leaves it no time to end its processes.

    The main process prints its line first; the others print nothing. Without a launcher this does
    nothing.
    """
    if "ACCELERATE_MIXED_PRECISION" not in os.environ:  # which every launch sets
        return
    if main:
        _end_with(os.getppid())
    else:
        die_with_parent()


def die_with_parent() -> None:
    """Let this process die at once when its parent ends, whatever the reason."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_with(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        os.kill(os.getpid(), signal.SIGTERM)
    except OSError:  # a kernel before 5.3, or a sandbox
        return
    else:
        threading.Thread(target=_wait, args=(descriptor,), daemon=True).start()


def _wait(descriptor: int) -> None:
    select.select([descriptor], [], [])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)  # the main thread is in the middle of a long computation
