"""Rows of ours in Parquet files."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
from datasets import Features, Value

from selm.data.forms import Row
from selm.data.schemas import MESSAGES_WITH_TOOLS


def save_rows(rows: list[Row], features: Features, path: Path) -> None:
    """Write rows as Parquet; `path` names the split for `load_dataset`: train or test."""
    pyarrow.parquet.write_table(as_table(rows, features), path)


def read_rows(path: Path) -> list[Row]:
    """Rows of a Parquet file that `save_rows` wrote."""
    return with_tools(pyarrow.parquet.read_table(path).to_pylist())


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
    wider = Features(features | {"prompt": MESSAGES_WITH_TOOLS, "tools": Value("string")})

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
