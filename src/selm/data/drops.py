"""Counts rows that cannot be used by reason, and remembers the first row of each reason."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from selm.data.schemas import Prompted


class Dropped(Exception):
    """Raised if a row cannot be used; its text is the reason under which it is counted."""


class Drops(Counter[str]):
    """Reason -> number of rows; `first` holds the first row of each reason.

    >>> drops = Drops()
    >>> drops.add("empty_prompt", "train.jsonl row 7")
    >>> drops.add("empty_prompt", "train.jsonl row 9")
    >>> in_words(drops)
    '2 empty_prompt (train.jsonl row 7)'
    """

    def __init__(self, counts: Any = ()) -> None:
        super().__init__(counts)
        self.first: dict[str, str] = dict(getattr(counts, "first", {}))

    def add(self, reason: str, row: str) -> None:
        self[reason] += 1
        self.first.setdefault(reason, row)

    def __add__(self, other: Mapping[str, int]) -> "Drops":  # type: ignore[override]
        both = Drops(self)
        both.update(other)
        both.first = {**getattr(other, "first", {}), **self.first}
        return both


def in_words(dropped: Mapping[str, int]) -> str:
    """`2 empty_prompt (train.jsonl row 7), 1 tie`; empty if nothing was dropped."""
    first = getattr(dropped, "first", {})
    return ", ".join(
        f"{count} {reason}" + (f" ({first[reason]})" if reason in first else "")
        for reason, count in dropped.items()
        if count
    )


def row_name(row: Prompted) -> str:
    """Names a row by its prompt's id and first words, when its place in a file is not known.

    >>> row_name({"prompt_id": "p7", "prompt": [{"role": "user", "content": "Why is it?"}]})
    "prompt p7, 'Why is it?'"
    """
    words = row["prompt"][-1]["content"] if row["prompt"] else ""
    return f"prompt {row.get('prompt_id', '?')[:40]}, {words[:30]!r}"
