"""The order of rows: every row once, random steps, like lengths together within a step."""

import random
from itertools import pairwise

import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler

from selm.training.order import LikeLengths, deal

NUM_ROWS, BATCH, NUM_BATCHES, PROCESSES = 100, 3, 4, 2
STEP = BATCH * NUM_BATCHES * PROCESSES


def sampler(seed: int = 5) -> LikeLengths:
    lengths = random.Random(0).choices(range(10, 1000), k=NUM_ROWS)
    return LikeLengths(lengths, BATCH, NUM_BATCHES, PROCESSES, seed)


def test_every_row_comes_once_and_the_order_is_the_seeds_and_the_epochs() -> None:
    first = list(sampler())
    assert sorted(first) == list(range(NUM_ROWS))
    assert list(sampler()) == first
    assert list(sampler(seed=6)) != first
    later = sampler()
    later.set_epoch(1)
    assert list(later) == list(sampler(seed=6))


def test_a_step_has_the_rows_that_a_random_order_gives_it() -> None:
    order = list(sampler())
    plain = torch.randperm(NUM_ROWS, generator=torch.Generator().manual_seed(5)).tolist()
    for start in range(0, NUM_ROWS, STEP):
        assert set(order[start : start + STEP]) == set(plain[start : start + STEP])


def test_processes_have_like_lengths_at_the_same_time() -> None:
    """As accelerate deals batches: no row is shorter than any row of the next micro-batch."""
    rows = sampler()
    batches = BatchSampler(rows, BATCH, drop_last=False)
    shards = [BatchSamplerShard(batches, PROCESSES, process) for process in range(PROCESSES)]
    dealt = [[[rows.lengths[row] for row in batch] for batch in shard] for shard in shards]
    both = [[*one, *other] for one, other in zip(*dealt, strict=True)]
    whole = NUM_ROWS // STEP * NUM_BATCHES  # the last step is not whole, and filled up
    for step in range(0, whole, NUM_BATCHES):
        for longer, shorter in pairwise(both[step : step + NUM_BATCHES]):
            assert min(longer) >= max(shorter)
    for one, other in zip(*(shard[:whole] for shard in dealt), strict=True):
        assert all(a >= b for a, b in zip(one, other, strict=True))


def test_rows_are_dealt_in_turn() -> None:
    assert deal([8, 7, 6, 5, 4, 3, 2, 1], 2, 2) == [8, 6, 7, 5, 4, 2, 3, 1]
    assert deal([3, 2, 1], 2, 1) == [3, 2, 1]
    assert sorted(deal([5, 4, 3, 2, 1], 2, 2)) == [1, 2, 3, 4, 5]
