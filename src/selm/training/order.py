"""In which order rows are trained on: random steps, and within a step rows of like length together.

A step's gradient is the mean over its rows, so the order within it is free. Sorted, the rows of a
micro-batch need little padding, and the processes have rows of like length at the same time: none
waits for another.
"""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class LikeLengths(Sampler[int]):
    """Row numbers, to be cut into batches and dealt to the processes in turn, as accelerate does.

    The rows of each step are those of TRL's random order under the same seed.

    Args:
        lengths: one per row.
        batch_size: rows of a micro-batch of one process.
        num_batches: micro-batches of a step, per process.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, num_batches: int, processes: int, seed: int
    ) -> None:
        self.lengths, self.seed = lengths, seed
        self.batch_size, self.num_batches, self.processes = batch_size, num_batches, processes
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Another order in each epoch; the Trainer calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self), generator=generator).tolist()
        step = self.batch_size * self.num_batches * self.processes
        for start in range(0, len(order), step):
            rows = sorted(order[start : start + step], key=lambda row: -self.lengths[row])
            yield from deal(rows, self.batch_size, self.processes)


def deal(rows: Sequence[int], batch_size: int, processes: int) -> list[int]:
    """Rows from long to short, so that cut into batches each process gets the same mixture.

    >>> deal([8, 7, 6, 5, 4, 3, 2, 1], batch_size=2, processes=2)  # 8 6 | 7 5, then 4 2 | 3 1
    [8, 6, 7, 5, 4, 2, 3, 1]
    """
    at_once = batch_size * processes
    return [
        row
        for start in range(0, len(rows), at_once)
        for process in range(processes)
        for row in rows[start + process : start + at_once : processes]
    ]
