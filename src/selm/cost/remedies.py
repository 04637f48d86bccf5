"""Overrides of the recipe that make a stage fit which does not fit."""

from collections.abc import Sequence

from selm.cost.estimate import fits
from selm.errors import UserError
from selm.recipe.loading import load_recipe

_CHECKPOINTING = "training.gradient_checkpointing=true"
_ONE_ROW = (
    "training.tokens_per_micro_batch=null",
    "training.per_device_train_batch_size=1",
)
_ZERO3 = "training.accelerate_config=accelerate_configs/zero3.yaml"
_LORA = "training.lora={r: 16, target_modules: all-linear}"

# Several groups for each stage; the first override of each group that makes it fit is named.
_GENERATION = (tuple((f"generation.tensor_parallel_size={n}",) for n in (2, 4, 8)),)
REMEDIES = {
    "checkpoint": (
        ((_CHECKPOINTING,), _ONE_ROW, (_CHECKPOINTING, *_ONE_ROW)),
        tuple(
            (_ZERO3, f"training.num_processes={n}", _CHECKPOINTING, *fewer_rows)
            for n in (2, 4, 8, 16, 32)
            for fewer_rows in ((), _ONE_ROW)
        ),
        ((_LORA,), (_LORA, _CHECKPOINTING), (_LORA, _CHECKPOINTING, *_ONE_ROW)),
    ),
    "responses": _GENERATION,
    "initial_responses": _GENERATION,
    "answers": _GENERATION,
}


def remedies(
    path: str, overrides: Sequence[str], stage: str, t: int | None
) -> list[tuple[str, ...]]:
    """Sets of overrides with which the stage fits, according to the estimate."""
    before, found = load_recipe(path, overrides), []
    for group in REMEDIES.get(stage, ()):
        for way in group:
            try:
                changes = [o for o in way if load_recipe(path, [*overrides, o]) != before]
                after = load_recipe(path, [*overrides, *changes])
            except UserError:  # this number of processes does not divide the batch
                continue
            if fits(after, stage, t):
                found.append(tuple(changes))
                break
    return found
