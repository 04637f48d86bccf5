"""The paths and Hub names in a recipe."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from selm.errors import UserError
from selm.recipe.roles import PATH
from selm.recipe.section import Section

T = TypeVar("T", bound=Section)


def with_paths(section: T, change: Callable[[str, str], str], prefix: str = "") -> T:
    """The recipe, or a section of it, with every path in it changed by `change(key, path)`."""
    update: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        key, value = prefix + name, getattr(section, name)
        if isinstance(value, Section):
            update[name] = with_paths(value, change, f"{key}.")
        elif isinstance(value, tuple) and value and isinstance(value[0], Section):
            parts = enumerate(value)
            update[name] = tuple(with_paths(each, change, f"{key}.{i}.") for i, each in parts)
        elif PATH in field.metadata and value is not None:
            update[name] = change(key, value)
    return section.model_copy(update=update)


_DATA_SUFFIXES = {".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".gz", ".parquet", ".arrow"}


def is_local_path(name_or_path: str) -> bool:
    """True for a path, which must exist on this disk; false for a Hub id (`name`, `owner/name`)."""
    path = Path(name_or_path)
    looks_local = name_or_path.startswith((".", "/", "~")) or len(path.parts) > 2
    is_data = path.suffix in _DATA_SUFFIXES
    return looks_local or is_data or os.path.exists(path)  # also where a folder may not be read


def is_hub_id(name: str) -> bool:
    """
    >>> [is_hub_id(name) for name in ("gpt2", "me/my-model", "a--b", "-x", "a/b/c")]
    [True, True, False, False, False]
    """
    return bool(_HUB_ID.fullmatch(name)) and not re.search(r"--|\.\.|\.git$", name)


_HUB_ID = re.compile(r"(\b[\w.-]+\b/)?\b[\w.-]{1,96}\b", re.ASCII)


def check_file(key: str, path: str) -> None:
    """UserError if there is no such file or folder."""
    if not os.path.exists(path):
        raise UserError(f"{key}: no such file: {path} (looked from {Path.cwd().name}/)")


def check_name(key: str, name: str) -> None:
    """UserError for what is no path and no name that the Hub can have."""
    if not is_hub_id(name) and not is_local_path(name):
        raise UserError(
            f"{key}: neither an existing path nor a name on the Hub (owner/name): {name!r}"
        )
