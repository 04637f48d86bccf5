"""Keys of a recipe that are unknown: what is said, and the key that was probably meant."""

import difflib
from collections.abc import Sequence

from pydantic import (
    BaseModel,
)

from selm.recipe.schema import Recipe


def unknown_key(location: tuple[int | str, ...], names: Sequence[str]) -> str:
    """`training.alhpa: unknown key in training; did you mean alpha?`"""
    section = dotted(location[:-1]) or "the recipe"
    name = str(location[-1])
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    elsewhere = [key for key in section_keys(Recipe) if key.split(".")[-1] == name]
    prefixed = [key for key in names if key == f"lora_{name}"]
    if prefixed:
        hint = f"; did you mean {prefixed[0]}?"
    elif elsewhere:
        hint = f"; did you mean {elsewhere[0]}?"
    elif near:
        hint = f"; did you mean {near[0]}?"
    else:
        hint = f"; known keys: {', '.join(list(names)[:20])}"
    return f"{dotted(location)}: unknown key in {section}{hint}"


def section_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted key of the schema: run_name, model.name_or_path, ..."""
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += section_keys(field.annotation, f"{prefix}{name}.")
    return keys


def dotted(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)
