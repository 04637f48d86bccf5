"""Preference datasets in, whatever their form; rows with ids out. Also the schemas of our own.

A row is {"prompt_id": str, "prompt": messages, "chosen": str | None, "rejected": str | None,
"columns": dict}: responses are plain text, None where the dataset has prompts only; `columns` holds
what else the dataset says of the row.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet
from datasets import Dataset, DatasetDict, Features, List, Value, load_dataset
from datasets.exceptions import DatasetGenerationError

from selm.errors import UserError
from selm.recipe import Recipe, is_local_path, portion

Row = dict[str, Any]
Message = dict[str, str]  # {"role": ..., "content": ...}

_MESSAGES = List({"role": Value("string"), "content": Value("string")})

# The columns of a dataset that `normalise` reads; all others travel along for function rankers.
_OWN_COLUMNS = ("prompt_id", "prompt", "chosen", "rejected")

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


def training_portion(recipe: Recipe, t: int) -> tuple[list[Row], Counter[str]]:
    """Rows of iteration t's portion, and how many were dropped for which reason."""
    dataset = _split(recipe, "train")
    num_iterations = len(recipe.iterations)
    if dataset.num_rows < num_iterations:
        raise UserError(
            f"data: {_where(recipe)} has {dataset.num_rows} training rows, "
            f"too few for {num_iterations} iterations"
        )
    rows, dropped = _clean(recipe, dataset.select(portion(dataset.num_rows, t, num_iterations)))
    check_objective(recipe, t, rows)
    return rows, dropped


def sample(recipe: Recipe, which: str, count: int) -> tuple[list[Row], Counter[str]]:
    """The first rows of the split `train` or `test`, for a look at the data."""
    dataset = _split(recipe, which)
    return _clean(recipe, dataset.select(range(min(count, dataset.num_rows))))


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


def held_out(recipe: Recipe) -> tuple[list[Row], Counter[str]]:
    """The first `evaluation.limit` rows of the test split."""
    dataset = _split(recipe, "test")
    limit = recipe.evaluation.limit
    if limit is not None:
        dataset = dataset.select(range(min(limit, dataset.num_rows)))
    return _clean(recipe, dataset)


def _split(recipe: Recipe, which: str) -> Dataset:
    """One split. A single file has none: its last tenth is held out, the rest is for training."""
    data = recipe.data
    loaded = _load(recipe)
    if Path(data.name_or_path).expanduser().is_file():
        whole = loaded["train"]
        first_test_row = whole.num_rows - -(-whole.num_rows // 10)
        if which == "test":
            return whole.select(range(first_test_row, whole.num_rows))
        dataset = whole.select(range(first_test_row))
    else:
        name = data.train_split if which == "train" else data.test_split
        if name not in loaded:
            raise UserError(
                f"data.{which}_split: {_where(recipe)} has no split {name!r}; "
                f"it has {', '.join(loaded)}"
            )
        dataset = loaded[name]
    if which == "test":
        return dataset
    if data.train_rows not in (None, dataset.num_rows):
        raise UserError(
            f"data.train_rows: the recipe says {data.train_rows}, {_where(recipe)} has "
            f"{dataset.num_rows} rows; set it to null or to that number"
        )
    return dataset.select(range(min(data.limit or dataset.num_rows, dataset.num_rows)))


def _load(recipe: Recipe) -> DatasetDict:
    data = recipe.data
    path = Path(data.name_or_path).expanduser()
    try:
        if path.is_file():
            kind = {".parquet": "parquet"}.get(path.suffix, "json")
            return load_dataset(kind, data_files=str(path))
        if is_local_path(data.name_or_path):
            return load_dataset(str(path))
        return load_dataset(data.name_or_path, revision=data.revision)
    except (
        *(DatasetGenerationError, FileNotFoundError, ConnectionError, ValueError),
        StopIteration,  # what `datasets` raises for an empty file
    ) as error:
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())[:300] or "it is empty"
        raise UserError(f"data.name_or_path: {_where(recipe)} cannot be read: {reason}") from error


def _where(recipe: Recipe) -> str:
    return recipe.data.name_or_path


def _clean(recipe: Recipe, dataset: Dataset) -> tuple[list[Row], Counter[str]]:
    """Normalise every row; drop and count what cannot be used."""
    _check_columns(recipe, dataset.column_names)
    rows: list[Row] = []
    dropped: Counter[str] = Counter()
    seen: set[str] = set()
    for raw in dataset:
        row = normalise(raw)
        if isinstance(row, str):
            dropped[row] += 1
        elif row["prompt_id"] in seen:
            dropped["duplicate_prompt"] += 1
        else:
            seen.add(row["prompt_id"])
            rows.append(row)
    if not rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "no rows"
        raise UserError(f"data: {_where(recipe)}: nothing left to work on ({reasons})")
    return rows, dropped


def _check_columns(recipe: Recipe, columns: list[str]) -> None:
    found = f"{_where(recipe)} has the columns {', '.join(columns)}"
    if "prompt" not in columns and "chosen" not in columns:
        raise UserError(f"data: {found}; wanted: prompt (and chosen, rejected for pairs)")
    if ("chosen" in columns) != ("rejected" in columns):
        raise UserError(f"data: {found}; chosen and rejected come together or not at all")


def normalise(raw: Row) -> Row | str:
    """A row of ours, or the reason why it is dropped.

    Reads UltraFeedback-binarized rows (prompt a string, chosen and rejected whole conversations),
    TRL's forms (messages or strings, with or without an explicit prompt) and prompts alone.

    >>> normalise({"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"})["prompt"]
    [{'role': 'user', 'content': 'Hi'}]
    """
    prompt, chosen, rejected = raw.get("prompt"), raw.get("chosen"), raw.get("rejected")
    if not all(_is_conversation(value) for value in (prompt, chosen, rejected)):
        return "messages_without_role_and_content"
    for response in (chosen, rejected):
        if isinstance(response, list) and response and response[0]["role"] != "assistant":
            prompt = response[:-1]
    messages = _messages(prompt)
    if not messages or not messages[-1]["content"].strip():
        return "empty_prompt"
    if messages[-1]["role"] != "user":
        return "prompt_does_not_end_with_user"
    if raw.get("chosen") is None and raw.get("rejected") is None and "chosen" not in raw:
        texts: tuple[str | None, str | None] = (None, None)
    else:
        texts = (_response(chosen, messages), _response(rejected, messages))
        if texts[0] is None or texts[1] is None:
            return "response_to_another_prompt"
        if not texts[0].strip() or not texts[1].strip():
            return "empty_response"
        if texts[0] == texts[1]:
            return "chosen_is_rejected"
    prompt_id = str(raw.get("prompt_id") or _prompt_id(messages))
    columns = {key: value for key, value in raw.items() if key not in _OWN_COLUMNS}
    row = {"prompt_id": prompt_id, "prompt": messages, "columns": columns}
    return row | {"chosen": texts[0], "rejected": texts[1]}


def _is_conversation(value: Any) -> bool:
    """True for a list of messages, and for what is no list at all: a string or nothing."""
    return not isinstance(value, list) or all(
        isinstance(message, dict)
        and isinstance(message.get("role"), str)
        and isinstance(message.get("content"), str | None)
        for message in value
    )


def _messages(prompt: Any) -> list[dict[str, str]]:
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [{"role": m["role"], "content": m["content"] or ""} for m in prompt or []]


def _response(value: Any, prompt: list[dict[str, str]]) -> str | None:
    """The text of a response; None if a conversation does not answer this prompt in one turn."""
    if not isinstance(value, list):
        return value or ""
    conversation = _messages(value)
    before = conversation[:-1]
    if not conversation or conversation[-1]["role"] != "assistant" or before not in ([], prompt):
        return None
    return conversation[-1]["content"]


def _prompt_id(messages: list[dict[str, str]]) -> str:
    return hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()


def as_messages(response: str | None) -> list[dict[str, str]] | None:
    """A response's text in the form of the schemas."""
    return None if response is None else [{"role": "assistant", "content": response}]


def as_text(messages: list[dict[str, str]] | None) -> str | None:
    """The inverse of `as_messages`."""
    return None if not messages else messages[0]["content"]


def as_json(columns: Row) -> str | None:
    """The dataset's other columns in the form of `RESPONSES`; dates and the like become text."""
    return json.dumps(columns, default=str) if columns else None


def columns(row: Row) -> Row:
    """What a row of the schema `RESPONSES` holds beside prompt and candidates, for rankers.

    >>> columns({"chosen": as_messages("w"), "rejected": None, "columns": '{"level": 3}'})
    {'chosen': 'w', 'rejected': None, 'level': 3}
    """
    pair = {which: as_text(row.get(which)) for which in ("chosen", "rejected")}
    return pair | json.loads(row.get("columns") or "{}")


def save(rows: list[Row], features: Features, path: Path) -> None:
    """Write rows as Parquet; `path` names the split for `load_dataset`: train or test."""
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=features.arrow_schema), path)


def read(path: Path) -> list[Row]:
    """Rows of a Parquet file that `save` wrote."""
    return parquet.read_table(path).to_pylist()
