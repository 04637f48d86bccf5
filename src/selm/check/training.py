"""The training: its batch, and a trial of it."""

from selm.check.preflight import Preflight
from selm.data.counting import portion, train_rows
from selm.errors import UserError
from selm.training.batch import batch_arithmetic
from selm.training.trial import try_training


def batch(preflight: Preflight) -> str:
    """`load_recipe` has refused what has no answer."""
    return f"global batch {batch_arithmetic(preflight.recipe)}"


def training(preflight: Preflight) -> str:
    """As `quick_training`, with the schedule of the rows that are really there."""
    try:
        rows = [len(found) for found, _ in preflight.portions]
    except UserError:  # which is told by the check of the data
        return quick_training(preflight)
    return _try(preflight, list(rows))


def quick_training(preflight: Preflight) -> str:
    """Trainer, optimizer, schedule and adapter are built, and two steps taken by a stand-in."""
    total, number = train_rows(preflight.recipe), len(preflight.recipe.iterations)
    if total is None:
        return _try(preflight, [None] * number)
    return _try(preflight, [len(portion(total, t, number)) for t in range(1, number + 1)])


def _try(preflight: Preflight, rows: list[int | None]) -> str:
    """Iterations that differ in nothing that a trainer looks at are tried once."""
    recipe, tried = preflight.recipe, set()
    for t, number in enumerate(rows, start=1):
        kind = (recipe.alpha(t), number)
        if kind not in tried:
            try_training(recipe, t, preflight.config, number)
        tried.add(kind)
    return "a small stand-in takes two steps with these settings, and is saved"
