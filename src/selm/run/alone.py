"""A lock, so that only one process (or one launch of several) works on a stage at a time."""

import errno
import fcntl
import os
import socket
import stat
import struct
import time
from pathlib import Path
from typing import TextIO

from selm.errors import OutsideError, UserError
from selm.escape import one_line

PATIENCE = 150  # seconds; NFS releases the locks of a lost machine after 90

# The errors of a disk without locks, e.g. NFS without its lock service.
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


def lock(path: Path) -> TextIO:
    """Lock this file as long as the result is open; the kernel releases a dead process's lock.

    On a disk without locks, a line says that other processes are not kept out.

    Raises:
        OutsideError: another process holds it.
        UserError: there is a link or something else in its place.
    """
    file = _open(path)
    until = time.monotonic() + PATIENCE
    while not _try(file, path):
        holder = _holder(file)
        elsewhere = not holder.endswith(f" on {socket.gethostname()}")
        if not elsewhere or time.monotonic() > until:
            raise OutsideError(
                f"{path}: {holder} is already working on this stage; wait for it or end it"
            )
        time.sleep(1)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def holder(path: Path) -> str | None:
    """Who holds this lock, as `process 7 on host`; None if nobody does. Does not lock it.

    On a disk without locks it is always None.
    """
    # struct flock of Linux: type, whence, start, length, process
    asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # never locked, or not ours to look at
        return None
    with os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace") as file:
        try:
            found = fcntl.fcntl(file, fcntl.F_GETLK, asked)
        except OSError:
            return None
        kind = struct.unpack("hhqqi", found)[0]
        return None if kind == fcntl.F_UNLCK else _holder(file)


def _open(path: Path) -> TextIO:
    """Open the file, but no link: in a shared folder others could have placed links.

    The file that a link points to would be overwritten.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(path.name, flags, 0o666, dir_fd=folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR):
            raise _no_file(path) from error
        error.filename = str(path)
        raise
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1:
        os.close(descriptor)
        raise _no_file(path)
    return os.fdopen(descriptor, "a+", encoding="utf-8", errors="replace")


def _no_file(path: Path) -> UserError:
    return UserError(
        f"{path}: there is a link, or not a plain file, in the place of the lock; delete it"
    )


def _holder(file: TextIO) -> str:
    file.seek(0)
    return one_line(file.read(200).strip()) or "another process"


def _try(file: TextIO, path: Path) -> bool:
    try:
        # not flock: forked children would share it
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno not in _NO_LOCKS:
            raise
        print(
            f"{path.parent}: this disk has no file locks ({error.strerror}); make sure "
            "that no second process works on the same stage"
        )
    return True
