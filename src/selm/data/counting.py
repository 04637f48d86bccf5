"""How many rows the splits have, if that is known without reading the data; and portions."""

from functools import lru_cache
from pathlib import Path

from selm.data import on_disk
from selm.recipe.places import is_local_path
from selm.recipe.schema import Data, Recipe


def portion(num_rows: int, t: int, num_iterations: int) -> range:
    """The rows of iteration t = 1..T: contiguous, of sizes that differ by at most one.

    >>> [portion(10, t, 3) for t in (1, 2, 3)]
    [range(0, 3), range(3, 6), range(6, 10)]
    """
    return range(num_rows * (t - 1) // num_iterations, num_rows * t // num_iterations)


def train_rows(recipe: Recipe) -> int | None:
    """Number of training rows after `data.limit`; None if it is not known without loading them."""
    rows = recipe.data.train_rows or _local_rows(recipe.data, "train")
    return None if rows is None else min(rows, recipe.data.limit or rows)


def held_out_rows(recipe: Recipe) -> int:
    """Number of held-out prompts that an evaluation answers; 1,000 if it is not known."""
    limit = recipe.evaluation.limit
    rows = _local_rows(recipe.data, "test") or limit or 1000
    return min(rows, limit or rows)


def _local_rows(data: Data, which: str) -> int | None:
    """Rows of local .jsonl files, split as in `portions`; None if that needs reading the data."""
    if not is_local_path(data.name_or_path) or any(
        sign in spec for spec in (data.train_split, data.test_split) for sign in "[+"
    ):
        return None
    splits = on_disk.local_splits(data)
    whole = Path(data.name_or_path).is_file()
    test = None if whole else splits.get(data.test_split)
    if which == "test" and test is not None:
        return _lines_of(test)
    rows = _lines_of(splits.get("train" if whole else data.train_split, []))
    if rows is None or test is not None:
        return rows
    held_out = -(-rows // 10)
    return rows - held_out if which == "train" else held_out


def _lines_of(files: list[Path]) -> int | None:
    counts = [_lines(file) for file in files]
    found = [count for count in counts if count is not None]
    return sum(found) if files and len(found) == len(counts) else None


@lru_cache
def _lines(path: Path) -> int | None:
    if path.suffix != ".jsonl" or not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())
