"""The role of a recipe's key. It is written beside the key in the schema:

    workers: Annotated[AutoOrCount, EXECUTION] = "auto"

A key without a role decides what its stage writes: if it changes, the stage's artifact is stale.
"""

from enum import Enum
from typing import Any

from pydantic import BaseModel


class Role(Enum):
    """EXECUTION: how a stage runs, not what it writes. ARGUMENT: passed on to TRL's trainer.
    Path: a place on this disk, in which `~` and `$VAR` are expanded; or a name of the Hub."""

    EXECUTION = "execution"
    ARGUMENT = "argument"
    PATH = "path"


EXECUTION, ARGUMENT, PATH = Role.EXECUTION, Role.ARGUMENT, Role.PATH


def keys_with(role: Role, section: type[BaseModel]) -> set[str]:
    """Names of a section's keys that have this role."""
    return {name for name, field in section.model_fields.items() if role in field.metadata}


def deciding(section: BaseModel) -> dict[str, Any]:
    """The keys of a section, and of sections in it, that decide its result, as JSON values."""
    execution = keys_with(EXECUTION, type(section))
    written = section.model_dump(mode="json")
    return {
        name: deciding(value) if isinstance(value, BaseModel) else written[name]
        for name, value in section
        if name not in execution
    }
