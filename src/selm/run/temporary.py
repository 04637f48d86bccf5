"""Temporary folders that are deleted when their process has ended, however it ended."""

import atexit
import fcntl
import getpass
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "selm-tmp-"


def own_folder() -> None:
    """Put all temporary files of this process, its libraries and its children into one folder.

    It is deleted at the end of the process. After a kill -9 the next stage deletes it. The
    processes of one launch share that of their launcher.
    """
    general = tempfile.gettempdir()
    if os.path.basename(general).startswith(PREFIX):
        return
    # A cache of compiled kernels, not a leftover: where torch itself would put it.
    cache = os.path.join(general, f"torchinductor_{getpass.getuser()}")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", cache)
    path, descriptor = _make(general)
    os.environ["TMPDIR"] = tempfile.tempdir = path
    atexit.register(_drop, path, descriptor, os.getpid())


def drop_launchers() -> None:
    """Delete the folder that torch's launcher makes for logs, at the end of this process."""
    for path in Path(os.environ.get("TORCHELASTIC_ERROR_FILE", "")).parents:
        if path.name.startswith("torchelastic_"):
            atexit.register(shutil.rmtree, path, ignore_errors=True)


@contextmanager
def folder(place: str) -> Iterator[str]:
    """A temporary folder in `place`, until the end of the block."""
    path, descriptor = _make(place)
    try:
        yield path
    finally:
        _drop(path, descriptor, os.getpid())


def _make(place: str) -> tuple[str, int]:
    """A new folder, and a descriptor with its lock, which marks the folder as in use."""
    _clean(place)
    while True:
        path = tempfile.mkdtemp(prefix=PREFIX, dir=place)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        if _lock(descriptor) and os.path.isdir(path):
            return path, descriptor
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock the folder; False if another stage is just deleting it as a leftover."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a disk without locks: there nobody deletes leftovers either
        return True
    return True


def _clean(place: str) -> None:
    """Delete folders that stages left after a kill -9."""
    for path in Path(place).glob(f"{PREFIX}*"):
        with suppress(OSError):  # somebody else's, or in use, or gone by now
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(descriptor).st_uid == os.geteuid():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _delete(str(path))
            finally:
                os.close(descriptor)


def _drop(path: str, descriptor: int, owner: int) -> None:
    if os.getpid() == owner:  # not a forked child that ends the ordinary way
        _delete(path)
        os.close(descriptor)


def _delete(path: str) -> None:
    """Delete the folder; retry for a moment, because ending processes may still write."""
    for _ in range(20):
        shutil.rmtree(path, ignore_errors=True)
        if not os.path.lexists(path):
            return
        time.sleep(0.1)
