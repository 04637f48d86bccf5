"""Finds the Python files beside a reward file that it imports: they decide its scores, too."""

import ast
import sys
from pathlib import Path


def siblings(file: Path) -> dict[str, Path]:
    """Name -> path of each module or package beside the file which it imports, or they import.

    The standard library takes precedence over the folder. A file that is not Python has none.

    >>> siblings(Path("no/such/file.py"))
    {}
    """
    found: dict[str, Path] = {}
    waiting = [file]
    while waiting:
        for name in _imported(waiting.pop()):
            path = _beside(file.parent, name)
            if path is not None and name not in found and path != file:
                found[name] = path
                waiting.append(path)
    return dict(sorted(found.items()))


def _imported(file: Path) -> set[str]:
    """The first part of every name that is imported anywhere in the file."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return set()  # running it reports the error
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names


def _beside(folder: Path, name: str) -> Path | None:
    for path in (folder / name / "__init__.py", folder / f"{name}.py"):
        if path.is_file():
            return path
    return None
