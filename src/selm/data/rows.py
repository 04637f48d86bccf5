"""Preference datasets in; rows with ids out, portion by portion. Also the schemas of our own.

The way of a row: `data_files` says which files are read, `raw_rows` reads them row by row, `forms`
makes rows of ours of them (see there), `drops` counts those that cannot be used.
"""

import datetime
import json
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow
import pyarrow.parquet as parquet
from datasets import Features, List, ReadInstruction, Value
from tqdm import tqdm

from selm.data import on_disk
from selm.data.counting import portion
from selm.data.drops import Drops, in_words
from selm.data.forms import WANTED, Row, lacking, normalise
from selm.data.prompts import Message, prompt_hash
from selm.data.raw_rows import NOT_UTF8, Raw, Table, table
from selm.errors import UserError
from selm.escape import one_line
from selm.recipe.places import is_local_path
from selm.recipe.schema import Recipe

__all__ = ["Message", "Row", "normalise"]

# Of the rows that were read, at most this share may be dropped.
_MOST_DROPPED = 0.9

# ... and at most this share may be no rows at all: then the file is damaged, or another kind.
_MOST_UNREADABLE = 0.1

_MESSAGES = List({"role": Value("string"), "content": Value("string")})

# Where prompts have tools, the columns `prompt` and `tools`: calls and functions as JSON text.
_MESSAGES_WITH_TOOLS = List(
    {name: Value("string") for name in ("role", "content", "tool_calls", "name", "tool_call_id")}
)

# `columns`: the dataset's other columns as a JSON object, for each dataset has other ones; null
# where it has none.
RESPONSES = Features(
    {
        "prompt_id": Value("string"),
        "prompt": _MESSAGES,
        "chosen": _MESSAGES,
        "rejected": _MESSAGES,
        "responses": List(Value("string")),
        "finish_reasons": List(Value("string")),
        "num_tokens": List(Value("int64")),
        "columns": Value("string"),
    }
)

# TRL's conversational preference format, and beside it what SELM needs to know of the explored
# response. *_finish_reason: "stop", or "length" for a response that was cut at the token limit.
PREFERENCES = Features(
    {
        "prompt_id": Value("string"),
        "prompt": _MESSAGES,
        "chosen": _MESSAGES,
        "rejected": _MESSAGES,
        "explored": Value("string"),
        "explored_role": Value("string"),
        "chosen_finish_reason": Value("string"),
        "rejected_finish_reason": Value("string"),
        "explored_finish_reason": Value("string"),
        "scores": List(Value("float64")),
    }
)

# What a ranker said of a row's pool; `member_scores` has one list per member of an ensemble.
SCORES = Features(
    {
        "prompt_id": Value("string"),
        "scores": List(Value("float64")),
        "member_scores": List(List(Value("float64"))),
    }
)

EVALUATION = Features(
    {
        "prompt_id": Value("string"),
        "prompt": _MESSAGES,
        "response": Value("string"),
        "finish_reason": Value("string"),
        "num_tokens": Value("int64"),
        "reward": Value("float64"),
        "reward_of_base": Value("float64"),
    }
)


def training_portion(recipe: Recipe, t: int) -> tuple[list[Row], Drops]:
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


def sample(recipe: Recipe, which: str, count: int) -> tuple[list[Row], Drops]:
    """The first rows of the split `train` or `test`, for a look at the data."""
    return _clean(recipe, _split(recipe, which).select(range(count)))


def check_objective(recipe: Recipe, t: int, rows: list[Row]) -> None:
    """UserError if these rows are prompts only, and iteration t wants pairs."""
    if rows[0]["chosen"] is not None:
        return
    if recipe.iteration(t).objective == "dpo":
        raise UserError(
            f"iterations.{t - 1}.objective: dpo needs pairs, {_where(recipe)} has prompts only; "
            "use selm or online_dpo"
        )
    if recipe.generation.num_samples < 2:
        raise UserError(
            f"generation.num_samples: {_where(recipe)} has prompts only, so that the policy's own "
            "responses form the pool: set it to 2 or more, with a temperature above 0"
        )


def held_out(recipe: Recipe) -> tuple[list[Row], Drops]:
    """The first `evaluation.limit` rows of the test split."""
    rows = _split(recipe, "test")
    limit = recipe.evaluation.limit
    return _clean(recipe, rows if limit is None else rows.select(range(limit)))


def overlap(trained: Iterable[Row], held_out: Iterable[Row]) -> int:
    """How many held-out prompts are among those that are trained on."""
    known = {prompt_hash(row["prompt"], row["tools"]) for row in trained}
    return sum(prompt_hash(row["prompt"], row["tools"]) in known for row in held_out)


def _split(recipe: Recipe, which: str) -> Table:
    """The rows of `train` or `test`. Where nothing is held out, the last tenth of train is."""
    splits = _splits(recipe)
    train = _selected(recipe, "train", splits)
    if _has_test(recipe, splits):
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
            f"data.train_rows: the recipe says {data.train_rows}, {_where(recipe)} has "
            f"{train.num_rows} rows; set it to null or to that number"
        )
    return train.select(range(data.limit or train.num_rows))


def _splits(recipe: Recipe) -> dict[str, list[Path]]:
    if is_local_path(recipe.data.name_or_path):
        return on_disk.local_splits(recipe.data)
    from selm.data import on_hub  # the Hub's client takes a second to import

    return on_hub.splits(recipe.data)


def _is_file(recipe: Recipe) -> bool:
    return on_disk.root(recipe.data).is_file()


def _has_test(recipe: Recipe, splits: dict[str, list[Path]]) -> bool:
    """Whether the recipe's test split is there. A file knows only `train`, and parts of it."""
    if _is_file(recipe):
        return on_disk.names_in(recipe.data.test_split) == ["train"]
    return on_disk.has_test(recipe.data, splits)


def _selected(recipe: Recipe, which: str, splits: dict[str, list[Path]]) -> Table:
    """The rows that `data.train_split` or `data.test_split` names: train, train[:90%], a+b."""
    spec = recipe.data.train_split if which == "train" else recipe.data.test_split
    names = on_disk.names_in(spec)
    if _is_file(recipe) and names != ["train"]:
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
            f"data.{which}_split: {spec!r} is no part of a split; wanted train, train[:90%] or "
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
            f"data.test_split: {data.test_split} has {shared} rows that are trained on "
            f"(data.train_split {data.train_split}); choose parts that do not overlap, such as "
            "train[:90%] and train[90%:]"
        )


def _where(recipe: Recipe) -> str:
    return recipe.data.name_or_path


def _clean(recipe: Recipe, rows: Table) -> tuple[list[Row], Drops]:
    """Normalise every row; drop and count what cannot be used."""
    raws = list(rows)
    _check_readable(recipe, raws)
    columns = list(dict.fromkeys(name for raw in raws for name in raw.values or ()))
    lack = lacking(columns)
    if raws and lack is not None:
        raise UserError(f"data: {_where(recipe)} has the columns {_named(columns)}; {lack}")
    kept: list[Row] = []
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
        if row["prompt_id"] in ids:  # rows are joined by it: of another prompt, it is no id
            row["prompt_id"] = f"{row['prompt_id']}-{prompt[:16]}"
        prompts.add(prompt)
        ids.add(row["prompt_id"])
        kept.append(row)
    _check_enough(recipe, raws, kept, dropped, columns)
    return kept, dropped


def _normalised(raws: Sequence[Raw], columns: list[str]) -> Iterable[tuple[str, Row | str]]:
    """(place, row or reason). A column that other rows have is null where it is missing.

    Pairs that are null in all rows are none: these are prompts alone.
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
    recipe: Recipe, raws: Sequence[Raw], kept: Sequence[Row], dropped: Drops, columns: list[str]
) -> None:
    if kept and len(kept) >= (1 - _MOST_DROPPED) * len(raws):
        return
    left = f"only {len(kept)} of {len(raws)} rows are" if kept else "nothing"
    raise UserError(
        f"data: {_where(recipe)}: {left} left to work on ({in_words(dropped) or 'no rows'}); it "
        f"has the columns {_named(columns)}; wanted: {WANTED}"
    )


def _named(columns: Sequence[str]) -> str:
    shown = ", ".join(name if name.isprintable() else repr(name) for name in columns[:20])
    return shown + (", ..." if len(columns) > 20 else "")


def as_messages(response: str | None) -> list[Message] | None:
    """A response's text in the form of the schemas."""
    return None if response is None else [{"role": "assistant", "content": response}]


def as_text(messages: list[Message] | None) -> str | None:
    """The inverse of `as_messages`."""
    return None if not messages else messages[0]["content"]


def as_json(columns: Row) -> str | None:
    """The dataset's other columns in the form of `RESPONSES`; dates and the like become text.

    Columns of pictures, sounds and other bytes are left out: as text they would say nothing.
    """
    found = {key: text for key, value in columns.items() if (text := _json(key, value)) is not None}
    pairs = ", ".join(f"{json.dumps(key)}: {text}" for key, text in found.items())
    return f"{{{pairs}}}" if found else None


def _json(key: str, value: Any) -> str | None:
    try:
        return json.dumps(value, default=_as_text)
    except RecursionError:  # it is nested about as deep as could be read
        return "null"
    except TypeError:
        _say_left_out(key)
        return None


def _as_text(value: Any) -> str:
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta | Decimal | UUID):
        return str(value)
    raise TypeError


@cache  # once for a column, not for each of its rows
def _say_left_out(column: str) -> None:
    tqdm.write(one_line(f"column {column}: left out, rankers get no pictures, sounds or bytes"))


def columns(row: Row) -> Row:
    """What a row of the schema `RESPONSES` holds beside prompt and candidates, for rankers.

    >>> columns({"chosen": as_messages("w"), "rejected": None, "columns": '{"level": 3}'})
    {'chosen': 'w', 'rejected': None, 'level': 3}
    """
    pair = {which: as_text(row.get(which)) for which in ("chosen", "rejected")}
    return pair | json.loads(row.get("columns") or "{}")


def save(rows: list[Row], features: Features, path: Path) -> None:
    """Write rows as Parquet; `path` names the split for `load_dataset`: train or test."""
    parquet.write_table(as_table(rows, features), path)


def read(path: Path) -> list[Row]:
    """Rows of a Parquet file that `save` wrote."""
    return with_tools(parquet.read_table(path).to_pylist())


def as_table(rows: list[Row], features: Features) -> pyarrow.Table:
    """Rows of a schema, with a column `tools` more if a prompt has any."""
    rows, features = _with_tools_as_text(rows, features)
    return pyarrow.Table.from_pylist(rows, schema=features.arrow_schema)


def with_tools(rows: list[Row]) -> list[Row]:
    """Rows of a table that `as_table` made, as they were: tools and calls are objects again."""
    return [_with_tools(row) for row in rows] if rows and "tools" in rows[0] else rows


def _with_tools_as_text(rows: list[Row], features: Features) -> tuple[list[Row], Features]:
    """Calls and functions are of any form, so columns hold their JSON; only where there are any."""
    prompts = [message for row in rows for message in row.get("prompt") or []]
    if not any(row.get("tools") for row in rows) and not any(len(m) > 2 for m in prompts):
        return rows, features
    wider = Features(features | {"prompt": _MESSAGES_WITH_TOOLS, "tools": Value("string")})

    def as_text(row: Row) -> Row:
        prompt = [
            message | ({"tool_calls": json.dumps(calls)} if calls else {})
            for message in row["prompt"]
            for calls in [message.get("tool_calls")]
        ]
        offered = json.dumps(row["tools"]) if row.get("tools") else None
        return row | {"prompt": prompt, "tools": offered}

    return [as_text(row) for row in rows], wider


def _with_tools(row: Row) -> Row:
    """The inverse, for a row."""
    prompt = []
    for message in row["prompt"]:
        message = {key: value for key, value in message.items() if value is not None}
        if "tool_calls" in message:
            message["tool_calls"] = json.loads(message["tool_calls"])
        prompt.append(message)
    return row | {"prompt": prompt, "tools": json.loads(row["tools"]) if row["tools"] else None}
