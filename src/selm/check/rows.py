"""The data: all rows once, or the first of them."""

from selm.check.preflight import SAMPLE_ROWS, Preflight
from selm.data.drops import Drops, in_words
from selm.data.portions import check_objective, overlap, sample_rows
from selm.data.schemas import DatasetRow
from selm.errors import UserError


def rows(preflight: Preflight) -> str:
    """Every row is read: forms, drops by reason, and prompts that are trained on and held out."""
    portions, (held_out, lost) = preflight.portions, preflight.held_out
    trained = [row for found, _ in portions for row in found]
    dropped = sum((drops for _, drops in portions), Drops())
    numbers = " + ".join(f"{len(found):,}" for found, _ in portions)
    shared = overlap(trained, held_out)
    if shared == len(held_out):
        raise UserError(
            f"data.test_split: all {shared} held-out prompts are trained on as well; hold others "
            "out, or name a dataset whose splits differ"
        )
    said = f"{_kind(trained)}; {numbers} training and {len(held_out):,} held-out rows"
    said += _dropped("dropped", dropped) + _dropped("of held-out rows dropped", lost)
    return said + (f"; {shared} of the held-out prompts are trained on as well" if shared else "")


def first_rows(preflight: Preflight) -> str:
    """The first rows of both splits have a form that is read."""
    found, dropped = preflight.sample
    held_out, _ = sample_rows(preflight.recipe, "test", SAMPLE_ROWS)
    for t in range(1, len(preflight.recipe.iterations) + 1):
        check_objective(preflight.recipe, t, found)
    return (
        f"{_kind(found)}; the first {len(found)} training and {len(held_out)} held-out rows"
        + _dropped("dropped", dropped)
    )


def _kind(found: list[DatasetRow]) -> str:
    return "prompts only" if found[0]["chosen"] is None else "pairs"


def _dropped(what: str, drops: Drops) -> str:
    return f", {what}: {in_words(drops)}" if drops else ""
