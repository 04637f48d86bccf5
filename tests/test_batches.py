"""Texts of many lengths, in batches of one budget."""

import random

from selm.ranking.batches import batches


def test_batches_hold_every_text_once_within_the_budget() -> None:
    rng = random.Random(0)
    lengths = [rng.randrange(3, 2049) for _ in range(300)]
    made = batches(lengths, 4096)
    assert sorted(i for batch in made for i in batch) == list(range(300))
    widths = [max(lengths[i] for i in batch) for batch in made]
    assert all(len(b) * width <= 4096 for b, width in zip(made, widths, strict=True))
    assert widths == sorted(widths, reverse=True), "memory runs out at once or not at all"
    padded = sum(len(batch) * width for batch, width in zip(made, widths, strict=True))
    assert padded < 1.05 * sum(lengths)


def test_a_text_above_the_budget_goes_alone() -> None:
    assert batches([5, 1, 9, 30, 2, 2, 9, 4], 18) == [[3], [2, 6], [0, 7, 4], [5, 1]]
    assert batches([], 10) == []
