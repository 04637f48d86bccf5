"""Keeps what an LLM said: every entry is on disk at once, under a hash of what it was asked."""

import json
import threading
import uuid
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from selm import progress
from selm.escape import one_line

MOST_TOKENS = 2**31  # of one question; a larger number cannot be right

T = TypeVar("T")


class KeptLog(Mapping[str, T]):
    """Entries, which are dataclasses, by key in a folder of JSONL files.

    Each file has one process that writes it; all are read.

    Args:
        folder: None keeps the entries in memory.
    """

    prefix: ClassVar[str]  # of the files' names

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._found: dict[str, T] = {}
        self._lock = threading.Lock()
        self._path = None if folder is None else folder / f"{self.prefix}-{uuid.uuid4().hex}.jsonl"
        if folder is not None:
            for path in sorted(folder.glob(f"{self.prefix}-*.jsonl")):
                self._found |= self._read(path)

    @staticmethod
    @abstractmethod
    def entry(fields: dict[str, Any]) -> T:
        """The entry of a line.

        Raises:
            ValueError, KeyError, TypeError: the line is damaged.
        """

    def __getitem__(self, key: str) -> T:
        return self._found[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def add(self, key: str, entry: T) -> None:
        """Save an entry; it is in the file when this returns."""
        line = json.dumps({"key": key, **asdict(entry)}) + "\n"  # type: ignore[call-overload]
        with self._lock:
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(line)
            self._found[key] = entry

    def _read(self, path: Path) -> dict[str, T]:
        """Read a file's entries; skips damaged lines, such as the last one after a kill."""
        found, damaged = {}, 0
        for line in path.read_bytes().split(b"\n"):
            try:
                fields = json.loads(line)
                key, entry = fields["key"], self.entry(fields)
            except (ValueError, RecursionError, KeyError, TypeError):
                damaged += bool(line)
                continue
            if isinstance(key, str):
                found[key] = entry
            else:
                damaged += 1
        if damaged:
            _say_damaged(path, damaged)
        return found


def are_counts(*values: Any) -> bool:
    """Whether all can be numbers of tokens."""
    return all(type(value) is int and 0 <= value < MOST_TOKENS for value in values)


@cache  # a stage reads the files several times
def _say_damaged(path: Path, count: int) -> None:
    lines = "1 line is" if count == 1 else f"{count} lines are"
    progress.say(one_line(f"{path}: {lines} damaged; the judge is asked again when needed"))
