"""Turns an error that a library raises for a recipe's settings into one line that names the key.

To find the key, the recipe's settings are removed one at a time: without the wrong one the attempt
succeeds.
"""

import contextlib
import difflib
import io
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

from selm.errors import OutsideError, UserError
from selm.recipe.schema import Recipe
from selm.training.config import SELMConfig

# Keys that are never named as the cause: a training needs them, or they are our own.
_NEVER_THE_CAUSE = {
    *("accelerate_config", "num_processes"),
    *("global_batch_size", "per_device_train_batch_size"),
}

# What works with every model.
_SAFE = {"attn_implementation": "eager", "dtype": "float32"}


def in_one_line(recipe: Recipe, attempt: Callable[[Recipe], Any]) -> Any:
    """What the attempt returns; an error of a library becomes a UserError of one line.

    Every exception is caught: libraries raise all kinds for a wrong value, and an error that they
    raise here they would raise in the training, hours later.
    """
    try:
        with _quiet():
            return attempt(recipe)
    except (UserError, OutsideError):
        raise
    except Exception as error:
        raise UserError(_explain(recipe, error, attempt)) from error


def _explain(recipe: Recipe, error: Exception, attempt: Callable[[Recipe], object]) -> str:
    """`training.optim: 'adamw8bit' is not a valid OptimizerNames ...; did you mean adamw_8bit?`"""
    said = " ".join(str(error).split()) or type(error).__name__
    if said.startswith(("training.", "model.")):
        return said
    keys = _causes(recipe, str(error), attempt)
    near = next((word for key in keys for word in _nearest(said, key, _value(recipe, key))), "")
    said = said if len(said) < 300 else f"{said[:300]} ..."
    hint = f"; did you mean {near}?" if near else ""
    others = f" (with {', '.join(keys[1:3])})" if keys[1:] else ""
    return f"{keys[0] if keys else 'training'}{others}: {said}{hint}"


def _nearest(said: str, key: str, value: Any) -> Iterator[str]:
    """Words similar to the value, among those in the message or the key's documentation."""
    field = SELMConfig.__dataclass_fields__.get(key.split(".")[-1])
    documented = field.metadata.get("help", "") if field else ""
    words = re.findall(r"[A-Za-z][\w.\-]+", f"{said} {documented}")
    for item in value if isinstance(value, (list, tuple)) else [value]:
        others = [word for word in words if word != item]
        yield from difflib.get_close_matches(str(item), others, n=1, cutoff=0.7)


def _causes(recipe: Recipe, said: str, attempt: Callable[[Recipe], object]) -> list[str]:
    """The keys without which the attempt succeeds, or at least fails differently.

    Keys are removed one at a time: first those that the message mentions, and dicts first.
    """
    keys = sorted(_chosen_keys(recipe), key=lambda key: not isinstance(_value(recipe, key), dict))
    named = [key for key in keys if _speaks_of(said, key, _value(recipe, key))]
    changed = []
    for some in (named, [key for key in keys if key not in named]):
        ends = {key: _end(attempt, _without(recipe, key)) for key in some}
        guilty = [key for key, end in ends.items() if end is None]
        if guilty:
            return guilty
        changed += [key for key, end in ends.items() if end != said]
    return changed or named


def _speaks_of(said: str, key: str, value: Any) -> bool:
    """Whether a message contains the key's name, or its value if that is text."""
    words = {key.split(".")[-1]}
    for item in value if isinstance(value, (list, tuple)) else [value]:
        words |= {item} if isinstance(item, str) else set(item) if isinstance(item, dict) else set()
    return any(re.search(rf"(?<!\w){re.escape(str(word))}(?!\w)", said) for word in words if word)


def _end(attempt: Callable[[Recipe], object], recipe: Recipe) -> str | None:
    """The text of the error that an attempt raises; None if it succeeds."""
    try:
        with _quiet():
            attempt(recipe)
    except Exception as error:
        return str(error)
    return None


def _chosen_keys(recipe: Recipe) -> list[str]:
    """Keys that may be the cause, TRL's own first."""
    training = recipe.training
    own = [key for key in type(training).model_fields if key in training.model_fields_set]
    keys = [f"training.{key}" for key in (*training.trl_overrides(), *own)]
    if training.lora is not None:
        lora = [f"training.lora.{key}" for key in sorted(training.lora.model_fields_set)]
        place = keys.index("training.lora")
        keys[place : place + 1] = [*lora, "training.lora"]
    keys += [f"model.{key}" for key in ("dtype", "attn_implementation")]
    return [key for key in keys if key.split(".")[-1] not in _NEVER_THE_CAUSE]


def _value(recipe: Recipe, key: str) -> Any:
    return attrgetter(key)(recipe)


def _without(section: Any, key: str) -> Any:
    """The recipe, or a section of it, with one key at its default, or at the value that is safe."""
    name, _, inner = key.partition(".")
    if inner:
        return section.model_copy(update={name: _without(getattr(section, name), inner)})
    field = type(section).model_fields.get(name)
    if field is None:  # a key of TRL
        changed = section.model_copy(deep=True)
        changed.model_extra.pop(name)
        return changed
    default = field.get_default(call_default_factory=True)
    return section.model_copy(update={name: _SAFE.get(name, default)})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide all output of a trial from the user, and leave the working folder as it is."""
    disabled = logging.root.manager.disable
    tensorboard = os.environ.get("TENSORBOARD_LOGGING_DIR")
    logging.disable(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        if tensorboard is None:
            os.environ.pop("TENSORBOARD_LOGGING_DIR", None)
