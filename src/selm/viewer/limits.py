"""What of a large run goes into the page: rows at even distances, until the file is small enough.

Browsers open a file of 15 MB in under two seconds; one of a hundred takes long and may not open.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def spread(rows: Sequence[T], most: int) -> list[T]:
    """All rows, or `most` of them at even distances, so that nobody selects them.

    >>> spread("abcdefgh", 3), spread("ab", 3)
    (['a', 'c', 'f'], ['a', 'b'])
    """
    if len(rows) <= most:
        return list(rows)
    return [rows[k * len(rows) // most] for k in range(most)]


def fit(content: Mapping[str, Any], size_of: Callable[[Any], int], most: int) -> dict[str, Any]:
    """The content, with fewer pairs and then fewer prompts until it has at most `most` bytes.

    Answers have the right of way, because the page is there for them.

    Args:
        size_of: bytes of a part of the content.
    """
    kept = dict(content)
    left = most - size_of({k: v for k, v in content.items() if k not in ("answers", "pairs")})
    answers, pairs = content["answers"], content["pairs"]
    kept["answers"] = _fewer(
        answers, answers["prompts"], left, size_of, lambda prompts: {**answers, "prompts": prompts}
    )
    left -= size_of(kept["answers"])
    count = max((len(each["rows"]) for each in pairs), default=0)
    kept["pairs"] = _fewer(
        pairs,
        range(count),
        left,
        size_of,
        lambda some: [{**each, "rows": spread(each["rows"], len(some))} for each in pairs],
    )
    kept["left_out"] = [*content["left_out"], *_said(content, kept)]
    return kept


def _fewer(
    whole: Any,
    rows: Sequence[Any],
    most: int,
    size_of: Callable[[Any], int],
    made_of: Callable[[Sequence[Any]], Any],
) -> Any:
    """The part made of as many of its rows as fit; of none if not even one does.

    A part of the rows has a size of about its share, so that a few attempts are enough.
    """
    found, count = whole, len(rows)
    while (size := size_of(found)) > most and count > 0:
        count = min(int(count * max(most, 0) / size * 0.97), count - 1)
        found = made_of(spread(rows, count))
    return found


def _said(content: Mapping[str, Any], kept: Mapping[str, Any]) -> list[str]:
    """What is left out, a sentence each; the files beside the page have all of it."""
    found = []
    all_prompts, prompts = (len(each["answers"]["prompts"]) for each in (content, kept))
    if prompts < all_prompts:
        found.append(
            f"This page has {prompts:,} of {all_prompts:,} held-out prompts, at even distances; "
            "all of them are in iter-*/evaluation."
        )
    for each in kept["pairs"]:
        if len(each["rows"]) < each["all"]:
            found.append(
                f"This page has {len(each['rows']):,} of {each['all']:,} pairs of {each['label']}, "
                "at even distances; all of them are in iter-*/preferences."
            )
    return found
