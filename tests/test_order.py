"""Steps and micro-batches: every row once, random steps, like lengths together within a step."""

import random
from itertools import pairwise

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard

from selm.training.order import MicroBatches, deal, fill, micro_batches_for, split

NUM_ROWS, ROWS, NUM_BATCHES, PROCESSES = 100, 12, 4, 2
STEP = ROWS * PROCESSES
FILLED = 120
LENGTHS = random.Random(0).choices(range(10, 1000), k=NUM_ROWS)


def sampler(seed: int = 5, by_tokens: bool = False) -> MicroBatches:
    return MicroBatches(LENGTHS, ROWS, NUM_BATCHES, PROCESSES, seed, by_tokens)


def shards(batches: MicroBatches) -> list[list[list[int]]]:
    """The micro-batches of each process, as accelerate deals them."""
    return [list(BatchSamplerShard(batches, PROCESSES, process)) for process in range(PROCESSES)]


@pytest.mark.parametrize("by_tokens", [False, True])
def test_every_row_comes_once_and_the_order_is_the_seeds_and_the_epochs(by_tokens: bool) -> None:
    first = list(sampler(by_tokens=by_tokens))
    assert len(first) == len(sampler()) == FILLED // STEP * NUM_BATCHES * PROCESSES
    rows = [row for batch in first for row in batch]
    assert set(rows) == set(range(NUM_ROWS)) and len(rows) == FILLED
    assert list(sampler(by_tokens=by_tokens)) == first
    assert list(sampler(6, by_tokens)) != first
    later = sampler(by_tokens=by_tokens)
    later.set_epoch(1)
    assert list(later) == list(sampler(6, by_tokens))


@pytest.mark.parametrize("by_tokens", [False, True])
def test_a_step_has_the_rows_that_a_random_order_gives_it(by_tokens: bool) -> None:
    batches = list(sampler(by_tokens=by_tokens))
    plain = torch.randperm(NUM_ROWS, generator=torch.Generator().manual_seed(5)).tolist()
    plain += plain[: FILLED - NUM_ROWS]
    per_step = NUM_BATCHES * PROCESSES
    for step in range(FILLED // STEP):
        rows = [row for batch in batches[step * per_step : (step + 1) * per_step] for row in batch]
        assert sorted(rows) == sorted(plain[step * STEP : (step + 1) * STEP])


@pytest.mark.parametrize("by_tokens", [False, True])
def test_processes_have_like_lengths_at_the_same_time(by_tokens: bool) -> None:
    """No row is shorter than any row of the next micro-batch; all processes have as many rows."""
    one, other = shards(sampler(by_tokens=by_tokens))
    assert len(one) == len(other) == FILLED // STEP * NUM_BATCHES
    assert [len(batch) for batch in one] == [len(batch) for batch in other]
    lengths = [[LENGTHS[row] for row in a + b] for a, b in zip(one, other, strict=True)]
    for step in range(0, len(one), NUM_BATCHES):
        for longer, shorter in pairwise(lengths[step : step + NUM_BATCHES]):
            assert min(longer) >= max(shorter)
    for a, b in zip(one, other, strict=True):
        assert all(LENGTHS[x] >= LENGTHS[y] for x, y in zip(a, b, strict=True))


def test_fewer_rows_than_a_step_are_repeated() -> None:
    assert [sorted(batch) for batch in MicroBatches([5, 5], 5, 1, 1, seed=0)] in (
        [[0, 0, 0, 1, 1]],
        [[0, 0, 1, 1, 1]],
    )


def test_by_tokens_the_largest_micro_batch_is_smaller() -> None:
    lengths = [round(random.Random(i).lognormvariate(5, 1)) for i in range(NUM_ROWS)]

    def largest(by_tokens: bool) -> int:
        batches = MicroBatches(lengths, ROWS, NUM_BATCHES, PROCESSES, 5, by_tokens)
        return max(sum(lengths[row] for row in batch) for batch in batches)

    assert largest(by_tokens=True) < 0.7 * largest(by_tokens=False)


def test_rows_are_dealt_in_turn() -> None:
    assert list(deal([8, 7, 6, 5, 4, 3, 2, 1], [2, 2], 2)) == [[8, 6], [7, 5], [4, 2], [3, 1]]
    assert list(deal([8, 7, 6, 5, 4, 3, 2, 1], [1, 3], 2)) == [[8], [7], [6, 4, 2], [5, 3, 1]]
    assert list(deal([3, 2, 1], [3], 1)) == [[3, 2, 1]]


@pytest.mark.parametrize(
    ("budget", "sizes"),
    [(100, [6]), (25, [2, 4]), (9, [1, 2, 3]), (8, [1, 2, 3]), (3, [1, 1, 1, 1, 2]), (1, [1] * 6)],
)
def test_a_budget_is_filled(budget: int, sizes: list[int]) -> None:
    assert fill([9, 4, 4, 2, 1, 1], budget) == sizes


@pytest.mark.parametrize("num_batches", range(1, 13))
def test_a_cut_is_as_even_as_can_be(num_batches: int) -> None:
    """Against every possible split."""
    lengths = sorted(LENGTHS[:12], reverse=True)

    def largest(sizes: list[int]) -> int:
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        return max(size * lengths[start] for size, start in zip(sizes, starts, strict=True))

    def ways(rows: int, batches: int) -> list[list[int]]:
        if batches == 1:
            return [[rows]]
        firsts = range(1, rows - batches + 2)
        return [[n, *rest] for n in firsts for rest in ways(rows - n, batches - 1)]

    sizes = split(lengths, num_batches)
    assert sum(sizes) == 12 and len(sizes) == num_batches and min(sizes) > 0
    assert largest(sizes) == min(largest(way) for way in ways(12, num_batches))


def test_equal_rows_fill_all_micro_batches() -> None:
    assert sorted(split([7] * 10, num_batches=4)) == [1, 3, 3, 3]


def test_no_fewer_micro_batches_would_keep_the_budget() -> None:
    budget, seeds = 2000, [5, 6]
    number = micro_batches_for(budget, LENGTHS, ROWS, PROCESSES, seeds)

    def largest(number: int) -> int:
        """Tokens, were each row as long as the longest of its micro-batch."""
        return max(
            len(batch) * max(LENGTHS[row] for row in batch)
            for seed in seeds
            for batch in MicroBatches(LENGTHS, ROWS, number, PROCESSES, seed, by_tokens=True)
        )

    assert largest(number) <= budget < largest(number - 1)
    assert micro_batches_for(1, LENGTHS, ROWS, PROCESSES, seeds) == ROWS
    assert micro_batches_for(10**6, LENGTHS, ROWS, PROCESSES, seeds) == 1
