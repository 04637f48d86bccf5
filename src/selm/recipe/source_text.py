"""The settings that installed packages accept, read from their source text.

Importing the packages takes seconds and loads torch, and a copy of their lists here would get old.
"""

import ast
import importlib.util
import re
from functools import lru_cache
from pathlib import Path

from selm.errors import UserError


def package_folder(package: str) -> Path | None:
    """Where a package is installed; None if it is not."""
    spec = importlib.util.find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def source_file(package: str, file: str) -> Path:
    """A file of a package that every recipe needs; raises UserError if it is not installed."""
    folder = package_folder(package)
    if folder is None:
        raise UserError(f"the package {package} is not installed (run: make setup)")
    return folder / file


@lru_cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a source file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def annotations(path: Path, class_name: str) -> dict[str, str]:
    """Annotated names in a class's body, as its source text has them."""
    return {
        line.target.id: ast.unparse(line.annotation)
        for line in _body(path, class_name)
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    }


def words(path: Path, class_name: str) -> list[str]:
    """The values of an enum of text, in order."""
    return [
        line.value.value
        for line in _body(path, class_name)
        if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant)
    ]


def keys_of(path: Path, name: str) -> list[str]:
    """The keys of a dict of text that a module assigns to a name."""
    return [
        key.value
        for line in parsed(path).body
        if isinstance(line, ast.Assign)
        and isinstance(line.value, ast.Dict)
        and any(isinstance(target, ast.Name) and target.id == name for target in line.targets)
        for key in line.value.keys
        if isinstance(key, ast.Constant)
    ]


def literals(path: Path) -> dict[str, str]:
    """`Name = Literal[...]` of a module, for annotations that name them."""
    if "Literal[" not in _text(path):
        return {}
    return {
        line.targets[0].id: ast.unparse(line.value)
        for line in parsed(path).body
        if isinstance(line, ast.Assign)
        and isinstance(line.targets[0], ast.Name)
        and isinstance(line.value, ast.Subscript)
        and ast.unparse(line.value.value) == "Literal"
    }


def options(path: Path) -> set[str]:
    """Every `--option` that a module's source names."""
    return set(re.findall(r"\"--(\w+)\"", _text(path)))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _body(path: Path, class_name: str) -> list[ast.stmt]:
    for node in parsed(path).body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            return node.body
    return []
