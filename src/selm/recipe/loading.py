"""Loads recipes from YAML files and overrides, and explains mistakes. Imports no torch.

    recipe = load_recipe("recipes/zephyr-7b-sft/selm.yaml", ["training.alpha=0.005"])

Unknown keys, wrong types and missing files are `UserError`s that name the key and a fix.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from selm.errors import UserError
from selm.home import by_name, recipe_file
from selm.recipe import extends, yaml_tree
from selm.recipe.names import dotted, not_one_of, unknown_key
from selm.recipe.places import found, with_paths, written
from selm.recipe.rules import check
from selm.recipe.schema import Generation, Recipe, Training
from selm.recipe.secrets import hide, names_a_secret, refuse_secrets
from selm.recipe.trl_keys import refuse_key, trl_keys, usable_keys
from selm.recipe.trl_values import check_together, trl_value
from selm.recipe.vllm_keys import VLLM_DECIDED_ELSEWHERE, vllm_keys, vllm_value


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read the file, apply the overrides, check the result. Raises UserError for any mistake."""
    if not os.path.isfile(recipe_file(path)):
        hint = "selm --help lists ours" if by_name() else "try: ls recipes/*/*.yaml"
        raise UserError(f"{path}: no such recipe file ({hint})")
    layers = extends.layers(path)
    tree = extends.merged(layers)
    for override in overrides:
        _apply(tree, override)
    refuse_secrets(tree)
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        files = f" {extends.KEY} ".join(str(layer.path) for layer in layers)
        raise UserError(f"{files}: {_explain(error)}") from error
    recipe = with_paths(with_foreign_keys(recipe), found)
    check(recipe)
    return recipe


def as_yaml(recipe: Recipe) -> str:
    """The resolved recipe, as it is saved beside the run; it loads as the same recipe."""
    tree = with_paths(recipe, lambda key, path: written(path)).model_dump(mode="json")
    return yaml.safe_dump(tree, sort_keys=False)


def _apply(tree: dict[str, Any], override: str) -> None:
    """Put one `section.key=value` into the tree; the value is YAML, split at the first '='."""
    key, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise UserError(
            f"{hide(override)!r}: wanted an override such as training.alpha=0.005 (key.sub=value)"
        )
    try:
        value = yaml_tree.parse_value(text)
    except UserError as error:
        shown = "***" if names_a_secret(key.split(".")[-1]) else hide(text)
        raise UserError(
            f"{key}: {shown!r} is {str(error).removeprefix('line 1: ')}; text with such "
            f"characters needs quotes: {key}='\"...\"'"
        ) from error
    if key == extends.KEY:
        raise UserError(
            f"{key}: can only stand in a recipe file, not in an override; use the other recipe "
            "file instead"
        )
    *parents, last = key.split(".")
    node: Any = tree
    for parent in parents:
        node = _child(node, parent, key)
    if isinstance(node, list):
        node[_index(node, last, key)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise UserError(f"{key}: {'.'.join(parents)} is a single value and has no keys of its own")


def _child(node: Any, name: str, key: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, name, key)]
    if isinstance(node, dict):
        if node.get(name) is None:
            node[name] = {}
        return node[name]
    return None


def _index(items: list[Any], name: str, key: str) -> int:
    if not name.isdigit() or int(name) >= len(items):
        raise UserError(
            f"{key}: {name!r} is not the number of an entry; there are {len(items)}, from 0 on"
        )
    return int(name)


def _explain(error: ValidationError) -> str:
    """One line about the first mistake."""
    first = error.errors()[0]
    location, value = first["loc"], first.get("input")
    if location[-1] == "literal['auto']":  # pydantic's name for one half of AutoOrCount
        return f"{dotted(location[:-1])}: must be auto or a whole number above 0, got {value!r}"
    key = dotted(location)
    if first["type"] == "extra_forbidden":
        return unknown_key(location, _siblings(location))
    if first["type"] == "missing":
        return f"{key}: missing; add it"
    if first["type"] == "literal_error":
        return not_one_of(key, value, first["ctx"]["expected"].split("'")[1::2])
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]}, got {value!r}"


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Recipe
    for part in location[:-1]:
        if isinstance(part, str):
            model = _section_of(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The section behind a key: its type, or that of the items of a list or of what may be null."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_of, get_args(annotation))), None)


def with_foreign_keys(recipe: Recipe) -> Recipe:
    """The recipe with the values of TRL's and vLLM's keys in the types that these packages want.

    Raises:
        UserError: there is no such key, a recipe may not set it, or the value does not fit.
    """
    return recipe.model_copy(
        update={
            "generation": _generation(recipe.generation),
            "training": _training(recipe.training),
        }
    )


def _generation(generation: Generation) -> Generation:
    known = vllm_keys() if generation.vllm else {}
    usable = [key for key in known if key not in VLLM_DECIDED_ELSEWHERE]
    options = {}
    for key, value in generation.vllm.items():
        if known and key not in {*known, *VLLM_DECIDED_ELSEWHERE}:
            raise UserError(unknown_key(("generation", "vllm", key), usable))
        options[key] = vllm_value(key, value)
    return generation.model_copy(update={"vllm": options})


def _training(training: Training) -> Training:
    settings = {}
    for key, value in training.trl_overrides().items():
        refuse_key(key)
        if key not in trl_keys():
            names = [*Training.model_fields, *usable_keys()]
            raise UserError(unknown_key(("training", key), names))
        settings[key] = trl_value(key, value)
    return training.model_copy(update=check_together(settings))
