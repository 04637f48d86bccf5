"""A recipe's file and those that it extends: `extends: selm.yaml` at the top of dpo.yaml.

A file's own keys take precedence over those of the file that it extends. Its name is relative to
the file's folder, or that of one of our recipes: `zephyr-7b-sft/selm`. Mappings are merged key by
key; lists, words and null substitute the value.
"""

from collections.abc import Iterator
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from selm.errors import UserError
from selm.home import recipe_file
from selm.recipe import yaml_tree
from selm.recipe.places import expand
from selm.recipe.secrets import refuse_secrets

KEY = "extends"


class Layer(NamedTuple):
    """One file and its keys other than `extends`."""

    path: Path
    own: dict[str, Any]


def layers(path: str | Path) -> list[Layer]:
    """The file, the one that it extends, the one that this extends, and so on.

    Raises:
        UserError: a file is missing, is not a recipe, holds a secret, or extends itself.
    """
    found: list[Layer] = []
    path = recipe_file(path)
    while True:
        own = _read(Path(path))
        found.append(Layer(Path(path), own))
        if KEY not in own:
            return found
        path = _extended(found, own.pop(KEY))


def merged(found: list[Layer]) -> dict[str, Any]:
    """The merged tree of all files."""
    return reduce(over, (layer.own for layer in found))


def over(own: Any, base: Any) -> Any:
    """
    >>> over({"a": {"b": 1}, "c": None}, {"a": {"b": 0, "d": 2}, "c": {"e": 3}})
    {'a': {'b': 1, 'd': 2}, 'c': None}
    """
    if not isinstance(own, dict) or not isinstance(base, dict):
        return own
    return base | {key: over(value, base.get(key)) for key, value in own.items()}


def described(path: str | Path) -> list[str]:
    """`dpo.yaml extends selm.yaml: run_name, iterations`, a line for each that extends another."""
    found = layers(path)
    return [
        f"{layer.path} {KEY} {base.path}: {', '.join(_keys(layer.own))}"
        for layer, base in pairwise(found)
    ]


def _read(path: Path) -> dict[str, Any]:
    tree = yaml_tree.read(path)
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a recipe is a mapping of sections (run_name, model, data, ...)")
    try:
        refuse_secrets(tree)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return tree


def _extended(found: list[Layer], name: Any) -> Path:
    """The file that the last one extends."""
    path, name = found[-1].path, yaml_tree.as_text(name)
    if not isinstance(name, str) or not name:
        raise UserError(f"{path}: {KEY}: must be the name of a recipe file, such as selm.yaml")
    name = expand(f"{path}: {KEY}", name)
    base = path.parent / name
    if not base.is_file() and recipe_file(name).is_file():
        base = recipe_file(name)
    if not base.is_file():
        raise UserError(f"{path}: {KEY}: no such recipe file: {base}")
    if any(base.samefile(layer.path) for layer in found):
        circle = " -> ".join(str(file) for file in (*(layer.path for layer in found), base))
        raise UserError(f"{path}: {KEY}: the files extend each other in a circle: {circle}")
    return base


def _keys(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield prefix + key
