"""Means over seeds and prompts, and intervals that include the variance of both.

All seeds answer the same prompts, so that both are crossed. A value is

    y[s, p] = mean + seed[s] + prompt[p] + rest[s, p],

with independent effects of unknown variances, estimated by the mean squares of a two-way analysis
of variance (moments; Searle, Casella and McCulloch, Variance Components, chapter 4):

    seeds    A, expected var(rest) + prompts * var(seed)       seeds - 1 degrees of freedom
    prompts  B, expected var(rest) + seeds * var(prompt)       prompts - 1
    rest     E, expected var(rest)

    var(mean) = (max(A - E, 0) + B) / (seeds * prompts)

The interval is Student's t. A hierarchical bootstrap is not used: with 3 seeds it resamples 3
values, and its intervals are too short. Satterthwaite's degrees of freedom (Biometrics Bulletin
1946) are too many where A is small by chance, which is common with 2 degrees of freedom: 92 of 100
such intervals would hold the truth. They are computed for a larger share of the seeds,
4 * max(A - E / 2, 0), where 4 is chosen by simulation. Then 93 to 97 of 100 intervals hold the
truth for 3 seeds or more, whatever the ratios of the variances (92.4 at worst, with 3 seeds and a
rest that is far wider than the prompts' effects; `tests/test_compare_seeds.py` simulates some).
With 2 seeds, 87 to 97 do: two values cannot show their spread.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from selm.report.statistics import Interval

WIDER = 4.0  # see above


@dataclass(frozen=True)
class Mean:
    """A mean over seeds and prompts; `ci95` is None where nothing shows the spread.

    Attributes:
        seeds: how many the interval rests on; with 1 it does not include the seeds' variance.
    """

    value: float
    ci95: Interval | None
    seeds: int
    prompts: int


@dataclass(frozen=True)
class _Part:
    """A part of the variance of a mean.

    Attributes:
        wide: the part for the degrees of freedom.
    """

    variance: float
    wide: float
    freedom: int


def mean(values_SP: np.ndarray) -> Mean:
    """The mean of one setting; shape (seeds, prompts)."""
    seeds, prompts = values_SP.shape
    parts = [_of_prompts(values_SP.mean(axis=0)), *_of_seeds(values_SP)]
    return _mean(float(values_SP.mean()), parts, seeds, prompts)


def difference(a_SP: np.ndarray, b_SP: np.ndarray, paired_seeds: bool) -> Mean:
    """Mean of a - b on the same prompts; seeds are paired where both have the same ones.

    Seeds that are not paired are independent samples. Where one setting has a single seed, its
    seeds are taken to vary as the other's do.

    Args:
        a_SP, b_SP: shape (seeds, prompts); the same shape if seeds are paired.
    """
    if paired_seeds:
        return mean(a_SP - b_SP)
    prompts = a_SP.shape[1]
    differences_P = a_SP.mean(axis=0) - b_SP.mean(axis=0)
    parts = [_of_prompts(differences_P)]
    for one, other in ((a_SP, b_SP), (b_SP, a_SP)):
        lent = other if len(one) == 1 else one
        parts += _of_seeds(lent, mean_of=len(one))
    fewer, more = sorted((len(a_SP), len(b_SP)))
    seeds = more if fewer == 1 else fewer
    return _mean(float(differences_P.mean()), parts, seeds, prompts)


def _of_prompts(values_P: np.ndarray) -> _Part:
    """The part of the prompts, with the rest: B / (seeds * prompts)."""
    prompts = len(values_P)
    variance = float(values_P.var(ddof=1)) / prompts if prompts > 1 else 0.0
    return _Part(variance, variance, prompts - 1)


def _of_seeds(values_SP: np.ndarray, mean_of: int | None = None) -> list[_Part]:
    """The part of the seeds in the mean of as many or of `mean_of`; none for a single seed."""
    seeds, prompts = values_SP.shape
    if seeds == 1 or prompts == 1:
        return []
    of_seed, of_prompt = values_SP.mean(axis=1, keepdims=True), values_SP.mean(axis=0)
    between = prompts * float(of_seed.var(ddof=1))
    rest_SP = values_SP - of_seed - of_prompt + values_SP.mean()
    rest = float((rest_SP**2).sum()) / ((seeds - 1) * (prompts - 1))
    cells = (mean_of or seeds) * prompts
    variance, wide = max(between - rest, 0.0), WIDER * max(between - rest / 2, 0.0)
    return [_Part(variance / cells, wide / cells, seeds - 1)]


def _mean(value: float, parts: Sequence[_Part], seeds: int, prompts: int) -> Mean:
    if prompts == 1:
        return Mean(value, None, seeds, prompts)
    error = math.sqrt(sum(part.variance for part in parts))
    half = error * t_quantile(_freedom(parts)) if error else 0.0
    return Mean(value, [round(value - half, 6), round(value + half, 6)], seeds, prompts)


def _freedom(parts: Sequence[_Part]) -> float:
    """Satterthwaite's degrees of freedom, of the wide parts."""
    whole = sum(part.wide for part in parts)
    found = whole**2 / sum(part.wide**2 / part.freedom for part in parts)
    return max(found, min(part.freedom for part in parts))


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)


@lru_cache(maxsize=1024)
def t_quantile(freedom: float, p: float = 0.975) -> float:
    """The p-quantile, p > 0.5, of Student's t; `freedom` need not be whole, and is at least 1.

    Newton's method from the left; the distribution is concave there, so that it cannot overshoot.

    >>> round(t_quantile(2), 3), round(t_quantile(99), 3)
    (4.303, 1.984)
    """
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(math.pi) / 2
    scale, t, step = math.exp(log_scale), 0.0, 1.0
    while step > 1e-10 * max(t, 1.0):
        # With t = sqrt(freedom) * tan(x) the density is scale * cos(x) ** (freedom - 1).
        x = math.atan(t / math.sqrt(freedom))
        area = x / 2 * float(_WEIGHTS @ np.cos(x / 2 * (_NODES + 1)) ** (freedom - 1))
        density = scale / math.sqrt(freedom) * math.cos(x) ** (freedom + 1)
        step = (p - 0.5 - scale * area) / density
        t += step
    return t
