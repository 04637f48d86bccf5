"""Means over seeds and prompts, and intervals that include the variance of both."""

from dataclasses import dataclass

import numpy as np

from selm.report.statistics import Interval


@dataclass(frozen=True)
class Mean:
    """A mean over seeds and prompts; `ci95` is None where nothing shows the spread."""

    value: float
    ci95: Interval | None
    seeds: int
    prompts: int


def mean(values_SP: np.ndarray) -> Mean:
    """The mean of one setting; shape (seeds, prompts)."""
    raise NotImplementedError


def difference(a_SP: np.ndarray, b_SP: np.ndarray, paired_seeds: bool) -> Mean:
    """Mean of a - b on the same prompts; seeds are paired where both have the same ones."""
    raise NotImplementedError
