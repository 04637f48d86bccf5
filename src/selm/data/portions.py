"""Loads a dataset's rows, portion by portion.

`on_disk` and `on_hub` find the files, `raw_rows` reads them row by row, `forms` turns each row into
a `DatasetRow`, and `drops` counts the rows that cannot be used.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from datasets import ReadInstruction

from selm.data import on_disk
from selm.data.counting import portion
from selm.data.drops import Drops, in_words
from selm.data.forms import WANTED, lacking, normalise
from selm.data.prompts import prompt_hash
from selm.data.raw_rows import NOT_UTF8, Raw, Table, table
from selm.data.schemas import DatasetRow
from selm.errors import UserError
from selm.recipe.places import is_local_path
from selm.recipe.schema import Recipe

# At most this share of the rows may be dropped.
_MOST_DROPPED = 0.9

# If a larger share cannot be read, the file is damaged or of another format.
_MOST_UNREADABLE = 0.1


def training_portion(recipe: Recipe, t: int) -> tuple[list[DatasetRow], Drops]:
    """Rows of iteration t's portion, and how many were dropped for which reason."""
    rows = _split(recipe, "train")
    num_iterations = len(recipe.iterations)
    if rows.num_rows < num_iterations:
        raise UserError(
            f"data: {_where(recipe)} has {rows.num_rows} training rows, "
            f"too few for {num_iterations} iterations"
        )
    kept, dropped = _clean(recipe, rows.select(portion(rows.num_rows, t, num_iterations)))
    check_objective(recipe, t, kept)
    return kept, dropped


def sample_rows(recipe: Recipe, which: str, count: int) -> tuple[list[DatasetRow], Drops]:
    """The first rows of the split `train` or `test`."""
    return _clean(recipe, _split(recipe, which).select(range(count)))


def check_objective(recipe: Recipe, t: int, rows: list[DatasetRow]) -> None:
    """UserError if these rows have no pairs and the iteration needs them."""
    if rows[0]["chosen"] is not None:
        return
    if recipe.iteration(t).objective == "dpo":
        raise UserError(
            f"iterations.{t - 1}.objective: dpo needs pairs, but {_where(recipe)} has prompts "
            "only; use selm or online_dpo"
        )
    if recipe.generation.num_samples < 2:
        raise UserError(
            f"generation.num_samples: {_where(recipe)} has prompts only, so the pool holds only "
            "the policy's own responses; set it to 2 or more, with a temperature above 0"
        )


def held_out_portion(recipe: Recipe) -> tuple[list[DatasetRow], Drops]:
    """The first `evaluation.limit` rows of the test split."""
    rows = _split(recipe, "test")
    limit = recipe.evaluation.limit
    return _clean(recipe, rows if limit is None else rows.select(range(limit)))


def overlap(trained: Iterable[DatasetRow], held_out: Iterable[DatasetRow]) -> int:
    """How many held-out prompts are also trained on."""
    known = {prompt_hash(row["prompt"], row["tools"]) for row in trained}
    return sum(prompt_hash(row["prompt"], row["tools"]) in known for row in held_out)


def _split(recipe: Recipe, which: str) -> Table:
    """The rows of `train` or `test`; without a test split, the last tenth of train is `test`."""
    splits = _splits(recipe)
    train = _selected(recipe, "train", splits)
    if on_disk.has_test(recipe.data, splits):
        test = _selected(recipe, "test", splits)
        _check_apart(recipe, train, test)
    else:
        first_test_row = train.num_rows - -(-train.num_rows // 10)
        test = train.select(range(first_test_row, train.num_rows))
        train = train.select(range(first_test_row))
    if which == "test":
        return test
    data = recipe.data
    if data.train_rows not in (None, train.num_rows):
        raise UserError(
            f"data.train_rows: the recipe says {data.train_rows}, but {_where(recipe)} has "
            f"{train.num_rows} rows; set it to null or to that number"
        )
    return train.select(range(data.limit or train.num_rows))


def _splits(recipe: Recipe) -> dict[str, list[Path]]:
    if is_local_path(recipe.data.name_or_path):
        return on_disk.local_splits(recipe.data)
    from selm.data import on_hub  # the Hub's client takes a second to import

    return on_hub.splits(recipe.data)


def _selected(recipe: Recipe, which: str, splits: dict[str, list[Path]]) -> Table:
    """The rows that `data.train_split` or `data.test_split` names: train, train[:90%], a+b."""
    spec = recipe.data.train_split if which == "train" else recipe.data.test_split
    names = on_disk.names_in(spec)
    if Path(_where(recipe)).is_file() and names != ["train"]:
        spec, names = "train", ["train"]  # a recipe for a dataset with splits, tried on a file
    for name in names:
        if name not in splits:
            raise UserError(
                f"data.{which}_split: {_where(recipe)} has no split {name!r}; "
                f"it has {', '.join(splits)}"
            )
    tables = {name: table(splits[name]) for name in names}
    if spec in tables:
        return tables[spec]
    sizes = {name: found.num_rows for name, found in tables.items()}
    try:
        parts = ReadInstruction.from_spec(spec).to_absolute(sizes)
    except (ValueError, AssertionError) as error:
        raise UserError(
            f"data.{which}_split: {spec!r} is not a part of a split; use train, train[:90%] or "
            "train[100:200]"
        ) from error
    spans = [tables[part.splitname].select(range(part.from_, part.to)).spans for part in parts]
    return Table(tuple(span for found in spans for span in found))


def _check_apart(recipe: Recipe, train: Table, test: Table) -> None:
    """UserError if a row is both trained on and held out."""
    shared = sum(
        len(range(max(rows.start, others.start), min(rows.stop, others.stop)))
        for path, rows in train.spans
        for other, others in test.spans
        if path == other
    )
    if shared:
        data = recipe.data
        raise UserError(
            f"data.test_split: {data.test_split} has {shared} rows that are also trained on "
            f"(data.train_split {data.train_split}); choose parts that do not overlap, such as "
            "train[:90%] and train[90%:]"
        )


def _where(recipe: Recipe) -> str:
    return recipe.data.name_or_path


def _clean(recipe: Recipe, rows: Table) -> tuple[list[DatasetRow], Drops]:
    """Normalise every row; drop and count what cannot be used."""
    raws = list(rows)
    _check_readable(recipe, raws)
    columns = list(dict.fromkeys(name for raw in raws for name in raw.values or ()))
    lack = lacking(columns)
    if raws and lack is not None:
        raise UserError(f"data: {_where(recipe)} has the columns {_named(columns)}; {lack}")
    kept: list[DatasetRow] = []
    dropped = Drops()
    prompts: set[str] = set()
    ids: set[str] = set()
    for place, row in _normalised(raws, columns):
        if isinstance(row, str):
            dropped.add(row, place)
            continue
        prompt = prompt_hash(row["prompt"], row["tools"])
        if prompt in prompts:
            dropped.add("duplicate_prompt", place)
            continue
        if row["prompt_id"] in ids:  # rows are joined by id, so another prompt needs another one
            row["prompt_id"] = f"{row['prompt_id']}-{prompt[:16]}"
        prompts.add(prompt)
        ids.add(row["prompt_id"])
        kept.append(row)
    _check_enough(recipe, raws, kept, dropped, columns)
    return kept, dropped


def _normalised(raws: Sequence[Raw], columns: list[str]) -> Iterable[tuple[str, DatasetRow | str]]:
    """(place, row or reason). A column that only other rows have is null.

    If the pairs of all rows are null, the rows count as prompts without pairs.
    """
    pair = ("chosen", "rejected")
    given = [raw.values for raw in raws if raw.values is not None]
    alone = all(values.get(which) is None for values in given for which in pair)
    blank = dict.fromkeys(name for name in columns if not (alone and name in pair))
    for raw in raws:
        if raw.values is None:
            yield ", ".join(filter(None, (raw.place, raw.detail))), raw.reason
        else:
            values = {k: v for k, v in raw.values.items() if not (alone and k in pair)}
            yield raw.place, normalise(blank | values)


def _check_readable(recipe: Recipe, raws: Sequence[Raw]) -> None:
    unreadable = [raw for raw in raws if raw.values is None]
    if len(unreadable) <= _MOST_UNREADABLE * len(raws):
        return
    first = unreadable[0]
    fix = "; save the file as UTF-8" if first.reason == NOT_UTF8 else ""
    raise UserError(
        f"data.name_or_path: {_where(recipe)} cannot be read: {len(unreadable)} of {len(raws)} "
        f"rows, the first is {first.place}: {first.reason} {first.detail}".rstrip()
        + fix
    )


def _check_enough(
    recipe: Recipe,
    raws: Sequence[Raw],
    kept: Sequence[DatasetRow],
    dropped: Drops,
    columns: list[str],
) -> None:
    if kept and len(kept) >= (1 - _MOST_DROPPED) * len(raws):
        return
    left = f"only {len(kept)} of {len(raws)} rows are" if kept else "nothing"
    raise UserError(
        f"data: {_where(recipe)}: {left} left to use ({in_words(dropped) or 'no rows'}); it "
        f"has the columns {_named(columns)}; wanted: {WANTED}"
    )


def _named(columns: Sequence[str]) -> str:
    shown = ", ".join(name if name.isprintable() else repr(name) for name in columns[:20])
    return shown + (", ..." if len(columns) > 20 else "")
