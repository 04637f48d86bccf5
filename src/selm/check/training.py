"""Checks the training: its batch, and a trial with a small model."""

from selm.check.preflight import Preflight
from selm.data.counting import portion, train_rows
from selm.errors import UserError
from selm.training.batch import batch_arithmetic
from selm.training.trial import try_training


def batch(preflight: Preflight) -> str:
    """The batch arithmetic; `load_recipe` has already refused what does not divide."""
    return f"global batch {batch_arithmetic(preflight.recipe)}"


def training(preflight: Preflight) -> str:
    """As `quick_training`, but with the true number of rows for the schedule."""
    try:
        rows = [len(found) for found, _ in preflight.portions]
    except UserError:  # which the check of the data reports
        return quick_training(preflight)
    return _try(preflight, list(rows))


def quick_training(preflight: Preflight) -> str:
    """Build trainer, optimizer, schedule and adapter, and take two steps with a stand-in model."""
    total, number = train_rows(preflight.recipe), len(preflight.recipe.iterations)
    if total is None:
        return _try(preflight, [None] * number)
    return _try(preflight, [len(portion(total, t, number)) for t in range(1, number + 1)])


def _try(preflight: Preflight, rows: list[int | None]) -> str:
    """Try each iteration, but only once if two do not differ for the trainer."""
    recipe, tried = preflight.recipe, set()
    for t, number in enumerate(rows, start=1):
        kind = (recipe.alpha(t), number)
        if kind not in tried:
            try_training(recipe, t, preflight.config, number)
        tried.add(kind)
    return "a small stand-in model took two steps with these settings and was saved"
