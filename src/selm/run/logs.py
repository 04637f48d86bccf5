"""One log file per attempt of a stage: everything that it prints, and what C libraries print."""

import atexit
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from selm import progress


def log_to(logs: Path, label: str) -> None:
    """Copy all further output, including that of C libraries, to a new file in `logs`.

    Our progress bars are not in it, but a line now and then. The file is `<label>.<attempt>.log`;
    attempts are numbered from 1. An earlier log of this process ends.
    """
    _finish()
    logs.mkdir(parents=True, exist_ok=True)
    attempts = [path.name.split(".")[-2] for path in logs.glob(f"{label}.*.log")]
    attempt = 1 + max((int(number) for number in attempts if number.isdecimal()), default=0)
    path = logs / f"{label}.{attempt}.log"
    path.touch()
    progress.copied(path, sys.stderr.fileno())
    _tees.extend(_tee(path, stream.fileno()) for stream in (sys.stdout, sys.stderr))


_tees: list[tuple[subprocess.Popen[bytes], int, int]] = []


def _tee(path: Path, descriptor: int) -> tuple[subprocess.Popen[bytes], int, int]:
    """Put a `tee` between a file descriptor and its target.

    The `tee` has its own session, so that a signal to the stage's processes does not end it
    before they have printed their last line.
    """
    original = os.dup(descriptor)
    tee = subprocess.Popen(
        ["tee", "-a", path], stdin=subprocess.PIPE, stdout=original, start_new_session=True
    )
    assert tee.stdin is not None
    os.dup2(tee.stdin.fileno(), descriptor)
    tee.stdin.close()
    return tee, original, descriptor


@atexit.register
def _finish() -> None:
    """Restore the descriptors and wait until the last line is written."""
    sys.stdout.flush()
    sys.stderr.flush()
    progress.uncopied()
    while _tees:
        tee, original, descriptor = _tees.pop(0)
        os.dup2(original, descriptor)
        with suppress(subprocess.TimeoutExpired):  # DeepSpeed keeps a copy of stderr open: then
            tee.wait(timeout=1)  # the tee, which has long written everything, ends with us
