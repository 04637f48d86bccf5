"""SHA-256 of files; for large files it is computed only once, until the file changes."""

import hashlib
import json
import os
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from selm.files import write_text

# Smaller files are hashed each time: that costs less than to look them up.
_WORTH_REMEMBERING = 2**20

# A file that was changed this short a time ago could change again within the same time stamp.
_SETTLED_SECONDS = 2.0

_MOST_ENTRIES = 10_000


class Hashes:
    """Known hashes, in a file whose keys come from the file system.

    A key holds device, inode, size and both time stamps; the time of the inode's last change cannot
    be set back by hand. A damaged or missing file counts as empty.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = self._read()

    def of(self, file: Path) -> str:
        """The SHA-256 of its content, as a hex string."""
        about = file.stat()
        settled = time.time() - max(about.st_mtime, about.st_ctime) > _SETTLED_SECONDS
        if about.st_size < _WORTH_REMEMBERING or not settled:
            return sha256(file)
        key = _key(about)
        if key not in self._known:
            self._known[key] = sha256(file)
            self._save()
        return self._known[key]

    def remember(self, file: Path, digest: str) -> None:
        """Keep the hash of a file whose time stamps have changed, but not its content."""
        about = file.stat()
        if about.st_size >= _WORTH_REMEMBERING:
            self._known[_key(about)] = digest
            self._save()

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        entries = found.items() if isinstance(found, dict) else ()
        return {key: value for key, value in entries if isinstance(value, str) and len(value) == 64}

    def _save(self) -> None:
        """Merge with the entries of other processes and save; a failed write does not matter."""
        self._known = self._read() | self._known
        newest = dict(list(self._known.items())[-_MOST_ENTRIES:])
        with suppress(OSError):
            write_text(self._path, json.dumps(newest, indent=0) + "\n")


def _key(about: os.stat_result) -> str:
    of = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
    return "-".join(map(str, of))


@lru_cache
def hashes_in(folder: Path) -> Hashes:
    """The known hashes that the runs of one output folder share."""
    return Hashes(folder / ".hashes.json")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
