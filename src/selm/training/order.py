"""The order of the rows in training, and how a step is split into micro-batches.

A step takes the next rows of a random order. A step's gradient is the mean over its rows, so the
order within the step is free. Rows are sorted by length and dealt to the processes in turn: then
the rows of a micro-batch need little padding, and no process waits for another. If a step is split
by rows, all micro-batches have the same number of rows. If it is split by tokens, long rows are
alone and many short rows are together, and a budget limits the memory instead of the longest rows.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import cycle, islice

import torch
from torch.utils.data import Sampler


class MicroBatches(Sampler[list[int]]):
    """Row numbers of each micro-batch, for accelerate to deal to the processes in turn.

    The rows of each step are those of TRL's random order with the same seed; the last step is
    filled up with the first rows of that order. At any time, all processes have micro-batches with
    the same number of rows, which gathering their metrics requires.

    Args:
        lengths: one per row, in tokens.
        rows: rows of a step, per process.
        num_batches: micro-batches of a step, per process.
        by_tokens: split a step into micro-batches of similar numbers of tokens instead of rows.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        rows: int,
        num_batches: int,
        processes: int,
        seed: int,
        by_tokens: bool = False,
    ) -> None:
        self.lengths, self.seed, self.by_tokens = lengths, seed, by_tokens
        self.rows, self.num_batches, self.processes = rows, num_batches, processes
        self.epoch = 0
        self.sampler = self  # where accelerate looks for set_epoch

    def set_epoch(self, epoch: int) -> None:
        """Give each epoch its own order; the Trainer calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        steps = math.ceil(len(self.lengths) / (self.rows * self.processes))
        return steps * self.num_batches * self.processes

    def __iter__(self) -> Iterator[list[int]]:
        step_rows, seed = self.rows * self.processes, self.seed + self.epoch
        for step in steps(len(self.lengths), step_rows, seed):
            rows = sorted(step, key=lambda row: -self.lengths[row])
            sizes = [self.rows // self.num_batches] * self.num_batches
            if self.by_tokens:
                longest = [self.lengths[row] for row in rows[:: self.processes]]
                sizes = split(longest, self.num_batches)
            yield from deal(rows, sizes, self.processes)


def steps(num_rows: int, step_rows: int, seed: int) -> list[list[int]]:
    """The rows of every step of an epoch, the last one filled up from the beginning."""
    order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed)).tolist()
    filled = list(islice(cycle(order), math.ceil(num_rows / step_rows) * step_rows))
    return [filled[start : start + step_rows] for start in range(0, len(filled), step_rows)]


def deal(rows: Sequence[int], sizes: Sequence[int], processes: int) -> Iterator[list[int]]:
    """Micro-batches of each process in turn; `sizes` are the micro-batch sizes of one process.

    >>> list(deal([8, 7, 6, 5, 4, 3, 2, 1], sizes=[1, 3], processes=2))
    [[8], [7], [6, 4, 2], [5, 3, 1]]
    """
    start = 0
    for size in sizes:
        at_once = rows[start : start + size * processes]
        yield from (list(at_once[process::processes]) for process in range(processes))
        start += size * processes


def fill(lengths: Sequence[int], budget: int) -> list[int]:
    """Sizes of micro-batches within a budget of tokens.

    Every row of a micro-batch counts as long as its first row, which is the longest.

    A row that is longer than the budget gets a micro-batch of its own.

    >>> fill([9, 4, 4, 2, 1, 1], budget=8)
    [1, 2, 3]
    """
    sizes: list[int] = []
    while (done := sum(sizes)) < len(lengths):
        sizes.append(min(max(budget // lengths[done], 1), len(lengths) - done))
    return sizes


def split(lengths: Sequence[int], num_batches: int) -> list[int]:
    """Sizes of `num_batches` micro-batches, within the smallest budget that allows this number.

    >>> split([9, 4, 4, 2, 1, 1], num_batches=3)
    [1, 2, 3]
    """
    budgets = range(lengths[0] * len(lengths) + 1)
    enough = bisect_left(
        budgets, True, key=lambda budget: len(fill(lengths, budget)) <= num_batches
    )
    sizes = fill(lengths, enough)
    while len(sizes) < num_batches:
        most = sizes.index(max(sizes))
        sizes[most : most + 1] = [sizes[most] - sizes[most] // 2, sizes[most] // 2]
    return sizes


def micro_batches_for(
    budget: int, lengths: Sequence[int], rows: int, processes: int, seeds: Sequence[int]
) -> int:
    """How many micro-batches per process keep every step of these epochs within the budget.

    Args:
        rows: rows of a step, per process.
        seeds: one per epoch.
    """
    number = 1
    for seed in seeds:
        for step in steps(len(lengths), rows * processes, seed):
            longest = sorted((lengths[row] for row in step), reverse=True)[::processes]
            number = max(number, len(fill(longest, budget)))
    return number
