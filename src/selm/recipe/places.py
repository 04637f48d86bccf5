"""The paths and Hub names in a recipe.

In paths `~` and `$VAR` are expanded once, when a recipe is loaded; then paths are literal.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from selm import home
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


def as_shipped(section: T) -> T:
    """The section with the paths of our own files as they are in our recipes and defaults."""
    return with_paths(section, lambda _, path: home.relative(path))


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


_VARIABLE = re.compile(r"\$(\$|[A-Za-z_]\w*|\{[^{}]*\})", re.ASCII)

# Bytes of one name in a path, and of the whole path: the limits of Linux.
LONGEST_NAME, LONGEST_PATH = 255, 4000


def expand(key: str, path: str) -> str:
    """The path with `~` and `$VAR` expanded; `$$` is a dollar sign.

    Raises:
        UserError: a variable is not set, there is no such user, or a name is too long.
    """
    path = _VARIABLE.sub(lambda found: _value(key, found[1]), _home(key, path))
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.split("/")):
        raise UserError(
            f"{key}: a name in the path has more than {LONGEST_NAME} bytes: {path[:60]}..."
        )
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise UserError(f"{key}: the path has more than {LONGEST_PATH} bytes: {path[:60]}...")
    if not path.isprintable():
        raise UserError(f"{key}: a path cannot have line breaks or control characters")
    return path


def escape(path: str) -> str:
    """The text that `expand` turns into this path, for writing a literal path."""
    return path.replace("$", "$$")


def found(key: str, path: str) -> str:
    """The path as a recipe's key has it in the end: expanded, our own files wherever they lie."""
    return home.shipped(expand(key, path))


def written(path: str) -> str:
    """The text that `found` turns into this path."""
    return escape(home.relative(path))


def _home(key: str, path: str) -> str:
    if not path.startswith("~"):
        return path
    user, slash, rest = path.partition("/")
    home = os.path.expanduser(user)
    if home.startswith("~"):
        raise UserError(f"{key}: no such user: {user} (did you mean ./{path}?)")
    return escape(home) + slash + rest


def _value(key: str, name: str) -> str:
    if name == "$":
        return "$"
    name = name.strip("{}")
    value = os.environ.get(name)
    if not value:
        raise UserError(
            f"{key}: the environment variable {name or '${}'} is not set; set it, or write $$ "
            "for a dollar sign"
        )
    return value
