"""Checks the data: all rows, or only the first ones."""

from selm.check.preflight import SAMPLE_ROWS, Preflight
from selm.data.drops import Drops, in_words
from selm.data.portions import check_objective, overlap, sample_rows
from selm.data.schemas import DatasetRow
from selm.errors import UserError


def rows(preflight: Preflight) -> str:
    """Read every row; count forms, dropped rows and prompts both trained on and held out."""
    portions, (held_out, lost) = preflight.portions, preflight.held_out
    trained = [row for found, _ in portions for row in found]
    dropped = sum((drops for _, drops in portions), Drops())
    numbers = " + ".join(f"{len(found):,}" for found, _ in portions)
    shared = overlap(trained, held_out)
    if shared == len(held_out):
        raise UserError(
            f"data.test_split: all {shared} held-out prompts are also trained on; hold out "
            "other rows, or name a dataset whose splits differ"
        )
    said = f"{_kind(trained)}; {numbers} training and {len(held_out):,} held-out rows"
    said += _dropped("dropped", dropped) + _dropped("of held-out rows dropped", lost)
    return said + (f"; {shared} of the held-out prompts are also trained on" if shared else "")


def first_rows(preflight: Preflight) -> str:
    """Check that the first rows of both splits have a known form."""
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
