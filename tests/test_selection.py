"""From scores to pairs, worked by hand."""

import pytest

from selm.data.prompts import as_messages
from selm.ranking.base import Candidate
from selm.ranking.selection import Pair, best_worst, distinct, pool_of, replace, role

POOL = [Candidate("w", "chosen"), Candidate("l", "rejected"), Candidate("y", "policy")]


@pytest.mark.parametrize(
    ("scores", "pair"),
    [
        ([0.2, 0.5, 0.9], Pair(chosen=2, rejected=0)),
        ([0.9, 0.5, 0.2], Pair(chosen=0, rejected=2)),
        ([0.9, 0.2, 0.5], Pair(chosen=0, rejected=1)),
        ([0.5, 0.5, 0.2], Pair(chosen=0, rejected=2)),  # of equals the first: the dataset's
        ([0.5, 0.2, 0.2], Pair(chosen=0, rejected=1)),
        ([0.5, 0.5, 0.5], None),
    ],
)
def test_best_worst_takes_the_extremes(scores: list[float], pair: Pair | None) -> None:
    assert best_worst(POOL, scores) == pair


@pytest.mark.parametrize(
    ("scores", "pair"),
    [
        ([0.2, 0.5, 0.9], Pair(chosen=2, rejected=1)),  # better than y_w: replaces it
        ([0.5, 0.9, 0.6], Pair(chosen=2, rejected=1)),  # y_l's score does not matter
        ([0.5, 0.2, 0.1], Pair(chosen=0, rejected=2)),  # worse than y_w: replaces y_l
        ([0.5, 0.1, 0.2], Pair(chosen=0, rejected=2)),
        ([0.5, 0.1, 0.5], None),
    ],
)
def test_replace_compares_the_explored_with_the_chosen(
    scores: list[float], pair: Pair | None
) -> None:
    assert replace(POOL, scores) == pair


def test_replace_explores_the_first_of_several_samples() -> None:
    pool = [*POOL, Candidate("z", "policy")]
    assert replace(pool, [0.5, 0.4, 0.6, 0.9]) == Pair(chosen=2, rejected=1)


def test_replace_without_a_full_pool_is_best_worst() -> None:
    for two in (POOL[:2], [*POOL[2:], Candidate("z", "policy")]):
        assert replace(two, [0.1, 0.9]) == Pair(chosen=1, rejected=0)


def test_distinct_keeps_the_first_of_each_text() -> None:
    pool = [*POOL, Candidate("w", "policy", "length"), Candidate("y", "policy", "length")]
    assert distinct(pool) == POOL


def test_roles() -> None:
    """By the text, since a response that was not ranked may still be equal to one that was."""
    texts = [candidate.text for candidate in POOL]
    assert [role(Pair(chosen=2, rejected=0), texts, each) for each in (*texts, "other")] == [
        *("rejected", "neither", "chosen", "neither"),
    ]


def test_the_pool_is_the_datasets_pair_and_the_samples_or_these_alone() -> None:
    row = {
        "prompt_id": "p",
        "prompt": as_messages("x"),
        "chosen": as_messages("w"),
        "rejected": as_messages("l"),
        "responses": ["y", "l", "z", "y"],
        "finish_reasons": ["stop", "stop", "length", "stop"],
    }
    assert pool_of(row, "dataset_and_samples").candidates == [
        *POOL,
        Candidate("z", "policy", "length"),
    ]
    assert pool_of(row, "samples").candidates == [
        Candidate("y", "policy"),
        Candidate("l", "policy"),
        Candidate("z", "policy", "length"),
    ]
    prompt_only = row | {"chosen": None, "rejected": None}
    assert pool_of(prompt_only, "dataset_and_samples").candidates == (
        pool_of(row, "samples").candidates
    )
