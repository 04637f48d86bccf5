"""Paths of a recipe: `~` and `$VAR` are expanded once, at loading; then paths are literal."""

import os
import re

from selm.errors import UserError

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
