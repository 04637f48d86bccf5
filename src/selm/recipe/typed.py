"""Converts a recipe's value to the type that another package's annotation asks for.

typed("training.logging_steps", Written("5", 5), "float")  ->  5.0
"""

import ast
import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selm.errors import UserError
from selm.recipe.yaml_tree import as_text, plain, word

# The words for what was wanted: the first of these that the annotation names.
_WANTED = {
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "list": "a list",
    "dict": "a mapping",
}

# The most words that a message lists.
MOST_LISTED = 16

# The order in which types are tried: `no` is false for `str | bool`, 5 a number for `str | int`.
_ORDER = ("bool", "int", "float", "Literal", "str", "list", "dict")


def typed(key: str, value: Any, annotation: str) -> Any:
    """Raises UserError if the value fits no type in the annotation, such as `float | None`."""
    kinds = {_name(node): node for node in _kinds(annotation)}
    foreign = not kinds or bool(set(kinds) - {*_ORDER, "None"})  # only the package can check it
    if any(name.endswith("Config") for name in kinds) and not isinstance(value, dict | None):
        raise UserError(f"{key}: must be a mapping, got {value!r}")
    if value is None:
        if "None" in kinds or foreign:
            return None
        raise UserError(f"{key}: must not be null; leave it out for its default")
    for name in _ORDER:
        fitted = _fit(key, value, kinds[name]) if name in kinds else None
        if fitted is not None:
            return fitted
    if foreign:
        return plain(value)
    raise UserError(f"{key}: must be {_wanted(kinds, value)}, got {value!r}")


def _kinds(annotation: str) -> list[ast.expr]:
    """The parts of `a | b | None`, `Optional[a]` and `Union[a, b]`."""
    annotation = annotation.replace("set[", "list[")
    return _parts(ast.parse(annotation, mode="eval").body) if annotation else []


def _parts(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp):
        return [*_parts(node.left), *_parts(node.right)]
    if isinstance(node, ast.Subscript) and _name(node) in ("Optional", "Union"):
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        none = [ast.Constant(None)] if _name(node) == "Optional" else []
        return [*(kind for part in inner for kind in _parts(part)), *none]
    return [node]


def _name(node: ast.expr) -> str:
    return ast.unparse(node.value if isinstance(node, ast.Subscript) else node)


def _fit(key: str, value: Any, kind: ast.expr) -> Any:
    """The value in this type; None if it does not fit."""
    name = _name(kind)
    if name == "bool":
        return plain(value) if isinstance(plain(value), bool) else None
    if name in ("int", "float"):
        return _number(key, value, name)
    if name == "Literal":  # a choice may be a word as text or as a value
        readings = (as_text(value), plain(value))
        return next((choice for choice in _choices(kind) if choice in readings), None)
    if name == "str":
        return as_text(value) if isinstance(as_text(value), str) else None
    if name == "list" and isinstance(value, list):
        inner = ast.unparse(kind.slice) if isinstance(kind, ast.Subscript) else ""
        return [typed(f"{key}.{i}", item, inner) for i, item in enumerate(value)]
    return plain(value) if name == "dict" and isinstance(value, dict) else None


def _number(key: str, value: Any, name: str) -> int | float | None:
    number = plain(word(value) if isinstance(value, str) else value)
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    if not math.isfinite(number):
        raise UserError(f"{key}: must be a finite number, got {value!r}")
    if name == "float":
        return float(number) if abs(number) < 1e300 else None
    return int(number) if int(number) == number else None


def _choices(kind: ast.expr) -> list[Any]:
    """The constants of `Literal[...]`."""
    inner = kind.slice if isinstance(kind, ast.Subscript) else kind
    return [part.value for part in ast.walk(inner) if isinstance(part, ast.Constant)]


def _wanted(kinds: dict[str, ast.expr], value: Any) -> str:
    if "Literal" in kinds:
        words = [str(choice) for choice in _choices(kinds["Literal"])]
        return f"one of {', '.join(words[:MOST_LISTED])}{_nearest(str(as_text(value)), words)}"
    wanted = next((text for name, text in _WANTED.items() if name in kinds), "something else")
    if wanted == "a whole number" and not isinstance(plain(value), float):
        wanted = "a number"
    inner = kinds.get("list")
    return wanted if inner is None or len(kinds) > 2 else f"a list ({ast.unparse(inner)})"


def one_of(key: str, value: str, words: Sequence[str]) -> str:
    """The word itself; raises UserError with the nearest one if it is not among `words`."""
    if value in words:
        return value
    if len(words) > MOST_LISTED:
        raise UserError(f"{key}: {value!r} is not known here{_nearest(value, words)}")
    raise UserError(f"{key}: {value!r} is not one of {', '.join(words)}{_nearest(value, words)}")


def _nearest(value: str, words: Sequence[str]) -> str:
    near = difflib.get_close_matches(value, words, n=1, cutoff=0.4)
    return f"; did you mean {near[0]}?" if near else ""


@dataclass(frozen=True)
class Between:
    """Numbers from `low` to `high`; `above` excludes `low`, `whole` excludes fractions above 1."""

    low: float
    high: float
    above: bool = False
    whole: bool = False

    def check(self, key: str, value: float) -> None:
        if not self.low <= value <= self.high or (self.above and value == self.low):
            start = f"above {self.low:g}" if self.above else f"{self.low:g} or more"
            raise UserError(f"{key}: must be {start}, {self.high:g} at most, got {value!r}")
        if self.whole and value > 1 and value != int(value):
            raise UserError(f"{key}: must be a whole number, or a share below 1, got {value!r}")
