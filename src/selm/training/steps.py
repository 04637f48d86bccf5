"""The optimizer steps of an iteration, and how many of them are warm-up."""

import math
from typing import Any

SAVE_STEPS = 0.34  # of all steps: two saves that divide an iteration into thirds

# Schedules that begin at the full learning rate, whatever the warm-up.
WITHOUT_WARMUP = {"constant"}


def optimizer_steps(rows: int, global_batch_size: int, settings: dict[str, Any]) -> int:
    """Steps of an iteration; the last one of an epoch is filled up.

    >>> [optimizer_steps(130, 64, each) for each in ({}, {"num_train_epochs": 2}, {"max_steps": 9})]
    [3, 6, 9]
    """
    if settings.get("max_steps", -1) > 0:
        return int(settings["max_steps"])
    return math.ceil(settings.get("num_train_epochs", 1) * math.ceil(rows / global_batch_size))


def warmup_steps(steps: int, warmup: float) -> int:
    """How many of the steps are warm-up; the first of them has a learning rate of 0.

    A share (below 1) is rounded up, as transformers does, but at least one step comes after the
    warm-up: a single step has none, because with a learning rate of 0 it would train nothing.

    >>> [warmup_steps(steps, 0.1) for steps in (1, 2, 15, 60)], warmup_steps(15, 5)
    ([0, 1, 2, 6], 5)
    """
    if warmup >= 1:
        return int(warmup)
    return min(math.ceil(steps * warmup), steps - 1)


def saved_steps(steps: int, steps_of_epoch: int, settings: dict[str, Any]) -> list[int]:
    """The steps after which a training is saved, so that it can go on from there.

    A share (below 1) is rounded up, as transformers does. The last step is never one of them: the
    finished checkpoint follows it (`NoLastSave`).

    >>> saved_steps(60, 60, {}), saved_steps(15, 15, {"save_steps": 5})
    ([21, 42], [5, 10])
    """
    how, every = settings.get("save_strategy", "steps"), settings.get("save_steps", SAVE_STEPS)
    if how == "no" or steps == 0:
        return []
    distance = math.ceil(every * steps if every < 1 else every)
    if how == "epoch":
        distance = steps_of_epoch
    return list(range(distance, steps, distance))


def untrained(rows: int, global_batch_size: int, settings: dict[str, Any]) -> str | None:
    """Why an iteration with this many rows would train nothing, and the fix; None if it trains."""
    steps = optimizer_steps(rows, global_batch_size, settings)
    warmup = warmup_steps(steps, settings.get("warmup_steps", 0.1))
    if warmup < steps or settings.get("lr_scheduler_type") in WITHOUT_WARMUP:
        return None
    return (
        f"training.warmup_steps: {warmup} of {steps} steps are warm-up, so nothing is trained "
        f"({rows:,} rows in batches of {global_batch_size}); make it smaller, or a share below 1"
    )
