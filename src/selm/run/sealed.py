"""Parquet files with a hash of their rows, so that damage is noticed on reading."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet

from selm.escape import one_line
from selm.files import rename

_SEAL = b"selm.sha256"


def save(table: pyarrow.Table, path: Path) -> None:
    """Write a table with a hash of its rows; readers see the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    metadata: Mapping[bytes, bytes] = table.schema.metadata or {}
    sealed = table.replace_schema_metadata({**metadata, _SEAL: _hash(table)})
    parquet.write_table(sealed, temporary)
    rename(temporary, path)


def read(path: Path, otherwise: str) -> list[dict[str, Any]] | None:
    """The saved rows; None if the file is missing, or has changed since it was written.

    Args:
        otherwise: what is done without them, for the line that says that they have changed.
    """
    if not path.exists():
        return None
    try:
        table = parquet.read_table(path)
        found = table.to_pylist()
        if (table.schema.metadata or {}).get(_SEAL) == _hash(table):
            return found
    except (OSError, ValueError, pyarrow.ArrowException):  # a flipped bit can give any of them
        pass
    print(one_line(f"damaged: {path} has changed since it was written; {otherwise}"))
    return None


def _hash(table: pyarrow.Table) -> bytes:
    text = json.dumps([table.column_names, table.to_pylist()])
    return hashlib.sha256(text.encode()).hexdigest().encode()
