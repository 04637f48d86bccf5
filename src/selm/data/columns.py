"""A dataset's other columns, saved as JSON for rankers."""

import datetime
import json
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from typing import Any
from uuid import UUID

from selm import progress
from selm.data.prompts import as_text
from selm.data.schemas import ResponseRow
from selm.escape import one_line


def as_json(columns: Mapping[str, Any]) -> str | None:
    """The dataset's other columns as a `ResponseRow` holds them; dates and the like become text.

    Columns with pictures, sounds and other bytes are left out, because JSON cannot hold them.
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
    progress.say(
        one_line(f"column {column}: left out, because rankers do not get pictures, sounds or bytes")
    )


def columns_of(row: ResponseRow) -> dict[str, Any]:
    """What rankers get from a row beside prompt and candidates.

    >>> columns_of({"chosen": as_messages("w"), "rejected": None, "columns": '{"level": 3}'})
    {'chosen': 'w', 'rejected': None, 'level': 3}
    """
    pair = {which: as_text(row.get(which)) for which in ("chosen", "rejected")}
    return pair | json.loads(row.get("columns") or "{}")
