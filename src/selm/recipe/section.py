"""The base of a recipe's sections: refuses unknown keys, and reads words in the type of the key."""

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from selm.recipe.yaml_tree import Written, as_text, plain

# Longer than any path or name; the plan's first lines hold them.
LONGEST_TEXT = 4000


class Section(BaseModel):
    """A part of a recipe: nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _as_the_key_wants_it(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, dict):  # a section, which does this itself, or vLLM's options
            return value
        value = as_text(value) if _wants_text(field) else _values(value)
        if isinstance(value, bool) and field.annotation is not bool:
            raise ValueError("This key cannot be true or false")
        check_text(value)
        return value


def check_text(value: Any) -> None:
    """Raises ValueError for text that cannot be a name, a path or a setting."""
    for text in value if isinstance(value, list) else [value]:
        if not isinstance(text, str):
            continue
        if not text.strip():
            raise ValueError("This key cannot be empty text")
        if not text.isprintable():
            raise ValueError("This key cannot have line breaks or control characters")
        if len(text) > LONGEST_TEXT:
            raise ValueError(f"This key cannot have more than {LONGEST_TEXT} characters")


def _values(value: Any) -> Any:
    """The plain values; sections in a list read their own."""
    if isinstance(value, list):
        return [item if isinstance(item, dict) else plain(item) for item in value]
    return plain(value) if isinstance(value, Written) else value


def _wants_text(field: FieldInfo) -> bool:
    """True for str and for choices of words; false if numbers fit too, as in AutoOrCount."""
    kinds = set(_kinds(field.annotation))
    return str in kinds and not kinds & {int, float, bool}


def _kinds(annotation: Any) -> list[type]:
    """
    >>> _kinds(Literal["auto"] | int | None)
    [str, int, NoneType]
    """
    origin = get_origin(annotation)
    if origin is Literal:
        return [type(choice) for choice in get_args(annotation)]
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin in (Union, types.UnionType, tuple):
        return [kind for part in get_args(annotation) for kind in _kinds(part)]
    return [annotation]
