"""Messages about unknown keys and values, with the one that was probably meant."""

import difflib
from collections.abc import Sequence

from pydantic import BaseModel

from selm.recipe.schema import Recipe


def unknown_key(location: tuple[int | str, ...], names: Sequence[str]) -> str:
    """The message for a key that its section does not have.

    Args:
        names: the keys that a recipe may set there; one of them is proposed.

    >>> unknown_key(("training", "alhpa"), ["alpha", "beta"])
    'training.alhpa: unknown key in training; did you mean alpha?'
    """
    section = dotted(location[:-1]) or "the recipe"
    name = str(location[-1])
    meant = [
        *(key for key in names if key.endswith(f"_{name}")),
        *(key for key in section_keys(Recipe) if key.split(".")[-1] == name),
        *difflib.get_close_matches(name, names, n=1),
    ]
    hint = f"did you mean {meant[0]}?" if meant else f"known keys: {', '.join(names[:20])}"
    return f"{dotted(location)}: unknown key in {section}; {hint}"


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


def not_one_of(key: str, value: object, choices: Sequence[str]) -> str:
    """
    >>> not_one_of("generation.engine", "vlm", ["vllm", "transformers"])
    "generation.engine: 'vlm' is not one of 'vllm' or 'transformers'; did you mean 'vllm'?"
    """
    near = difflib.get_close_matches(str(value), choices, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    *most, last = map(repr, choices)
    named = f"{', '.join(most)} or {last}" if most else last
    return f"{key}: {value!r} is not one of {named}{hint}"
