"""Writes files completely or not at all: under a temporary name, synced to disk, then renamed."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a file so that readers see the old or the new text, even after a power failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    rename(temporary, path)


def rename(source: Path, target: Path) -> None:
    """Give a file or a folder its final name after its contents are on the disk."""
    for path in [source, *source.rglob("*")] if source.is_dir() else [source]:
        _sync(path)
    os.replace(source, target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
