"""Runs another stage as a process of its own, whose memory and GPU are free afterwards."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

from selm.run.parents import GRACE, RUN_SH


def run_to_end(words: Sequence[str]) -> None:
    """Run a Python script with its arguments; exit with its code if it fails.

    It ends with this process, whatever ends that, and prints what is kept of its own work.
    """
    environment = os.environ | {RUN_SH: f"{os.getpid()}@{socket.gethostname()}"}
    child = subprocess.Popen([sys.executable, *words], env=environment)
    try:
        code = child.wait()
    except BaseException:  # a signal: it may have reached this process alone
        child.send_signal(signal.SIGTERM)
        try:
            code = child.wait(timeout=2 * GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
        if code == 0:
            raise
    if code:
        sys.exit(code if code > 0 else 128 - code)
