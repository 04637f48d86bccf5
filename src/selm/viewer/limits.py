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


def fit(
    content: Mapping[str, Any], pack: Callable[[Any], str], most: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """The content with fewer pairs and prompts, so that it has at most `most` bytes, and packed.

    Answers have the right of way, because the page is there for them.

    Args:
        pack: what is written of a part of the content.

    Returns:
        the content, and its parts `answers`, `pairs` and `overview`, which is all the rest.
    """
    kept, answers, pairs = dict(content), content["answers"], content["pairs"]
    left = most - len(pack(_rest(kept)))
    kept["answers"], packed_answers = _fewer(
        answers, answers["prompts"], left, pack, lambda prompts: {**answers, "prompts": prompts}
    )
    rows = max((each["rows"] for each in pairs), key=len, default=[])
    kept["pairs"], packed_pairs = _fewer(
        pairs,
        rows,
        left - len(packed_answers),
        pack,
        lambda some: [{**each, "rows": spread(each["rows"], len(some))} for each in pairs],
    )
    kept["left_out"] = [*content["left_out"], *_said(content, kept)]
    parts = {"answers": packed_answers, "pairs": packed_pairs, "overview": pack(_rest(kept))}
    return kept, parts


def _rest(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in ("answers", "pairs")}


def _fewer(
    whole: Any,
    rows: Sequence[Any],
    most: int,
    pack: Callable[[Any], str],
    made_of: Callable[[Sequence[Any]], Any],
) -> tuple[Any, str]:
    """The part made of as many of its rows as fit, and packed; of none if not even one does.

    A part of the rows has a size of about its share, so that a few attempts are enough.
    """
    found, count = whole, len(rows)
    while len(packed := pack(found)) > most and count > 0:
        count = min(int(count * max(most, 0) / len(packed) * 0.97), count - 1)
        found = made_of(spread(rows, count))
    return found, packed


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
