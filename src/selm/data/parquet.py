"""Rows of the types of `schemas` in Parquet files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import pyarrow
import pyarrow.parquet
from datasets import Features, List, Value

from selm.data.schemas import PARQUET_TYPES, fields

Row = Mapping[str, Any]  # of any of the types


def features(schema: Any, with_tools: bool = False) -> Features:
    """The columns of a type of rows; with those that are there only where a prompt has tools."""
    return Features(
        {name: _feature(kind, with_tools) for name, kind in fields(schema, with_tools).items()}
    )


def _feature(kind: Any, with_tools: bool) -> Any:
    if get_origin(kind) is list:
        return List(_feature(get_args(kind)[0], with_tools))
    return Value(PARQUET_TYPES[kind]) if kind in PARQUET_TYPES else features(kind, with_tools)


def save_rows(rows: Sequence[Row], schema: Any, path: Path) -> None:
    """Write rows as Parquet; `path` names the split for `load_dataset`: train or test."""
    pyarrow.parquet.write_table(as_table(rows, schema), path)


def read_rows(path: Path) -> list[Any]:
    """Rows of a Parquet file that `save_rows` wrote."""
    return with_tools(pyarrow.parquet.read_table(path).to_pylist())


def as_table(rows: Sequence[Row], schema: Any) -> pyarrow.Table:
    """Rows of a type of `schemas`, with a column `tools` if a prompt has any."""
    have_tools = any(
        row.get("tools") or any(len(message) > 2 for message in row.get("prompt") or [])
        for row in rows
    )
    written = [_tools_as_text(row) for row in rows] if have_tools else list(rows)
    return pyarrow.Table.from_pylist(written, features(schema, have_tools).arrow_schema)


def with_tools(rows: list[dict[str, Any]]) -> list[Any]:
    """Rows of a table that `as_table` made, as they were: tools and calls are objects again."""
    return [_text_as_tools(row) for row in rows] if rows and "tools" in rows[0] else rows


def _tools_as_text(row: Row) -> Row:
    prompt = [
        message | ({"tool_calls": json.dumps(calls)} if calls else {})
        for message in row["prompt"]
        for calls in [message.get("tool_calls")]
    ]
    offered = json.dumps(row["tools"]) if row.get("tools") else None
    return {**row, "prompt": prompt, "tools": offered}


def _text_as_tools(row: dict[str, Any]) -> dict[str, Any]:
    prompt = []
    for message in row["prompt"]:
        message = {key: value for key, value in message.items() if value is not None}
        if "tool_calls" in message:
            message["tool_calls"] = json.loads(message["tool_calls"])
        prompt.append(message)
    return row | {"prompt": prompt, "tools": json.loads(row["tools"]) if row["tools"] else None}
