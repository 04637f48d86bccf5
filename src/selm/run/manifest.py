"""The manifest of an artifact: how it was made, and the hash of every file and of itself.

It shows later damage on the disk: a file, or the manifest, that is missing, truncated or changed.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selm.files import write_text
from selm.run.hashes import Hashes

NAME = "manifest.json"


class Damaged(Exception):
    """A file has changed since it was written; the text names it."""


def write(folder: Path, facts: Mapping[str, Any], hashes: Hashes) -> None:
    """Add the manifest to a folder whose files are all there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": hashes.of(path)}
        for path in paths
    }
    whole = {**facts, "files": files}
    write_text(folder / NAME, json.dumps(whole | {"sha256": _own_hash(whole)}, indent=1) + "\n")


def read(folder: Path) -> bytes:
    """The bytes of the manifest; Damaged if it has changed."""
    text = (folder / NAME).read_bytes()
    parse(text)
    return text


def parse(text: bytes) -> dict[str, Any]:
    """The content of a manifest; Damaged if it has changed."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{NAME} has changed since it was written") from error
    own = found.pop("sha256", None) if isinstance(found, dict) else None
    if own is None or own != _own_hash(found):
        raise Damaged(
            f"{NAME} has changed since it was written, or is from an older version of selm"
        )
    return found


def check_files(folder: Path, files: Mapping[str, Mapping[str, Any]], hashes: Hashes) -> None:
    """Damaged if a file is missing or has changed. Compares sizes first, which is free."""
    for path, facts in files.items():
        there = folder / path
        if not there.is_file() or there.stat().st_size != facts["bytes"]:
            raise Damaged(f"{path} has changed since it was written")
    for path, facts in files.items():
        if hashes.of(folder / path) != facts["sha256"]:
            raise Damaged(f"{path} has changed since it was written")


def _own_hash(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
