"""Batches of a ranking model: the values of `auto`, and which texts share a batch."""

from collections.abc import Sequence

# By device. A CPU is fastest if a batch stays in its cache.
DTYPES = {"cpu": "float32", "cuda": "bfloat16"}
TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 16384}


def batches(lengths: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Indices by falling length, in batches that fit the budget when padded to their longest.

    Long texts come first, so that memory runs out at once or not at all. A text above the budget is
    a batch of its own.

    >>> batches([3, 9, 4, 5], tokens_per_batch=10)
    [[1], [3, 2], [0]]
    """
    made: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if made and (len(made[-1]) + 1) * lengths[made[-1][0]] <= tokens_per_batch:
            made[-1].append(i)
        else:
            made.append([i])
    return made
