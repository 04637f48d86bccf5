"""Means of held-out rewards and their intervals. The bootstrap is ours: scipy is an extra."""

from collections.abc import Sequence

import numpy as np

from selm.data.schemas import EvaluationRow

Interval = list[float]  # [low, high]


def bootstrap_ci95(
    values_N: Sequence[float], resamples: int = 10_000, seed: int = 0
) -> Interval | None:
    """95% percentile bootstrap interval of the mean; None for a single value, which has no spread.

    >>> bootstrap_ci95([0.5, 0.5, 0.5])
    [0.5, 0.5]
    """
    if len(values_N) == 1:
        return None
    values = np.asarray(values_N, dtype=float)
    generator = np.random.default_rng(seed)
    means = [
        values[generator.integers(values.size, size=values.size)].mean() for _ in range(resamples)
    ]
    return [round(float(bound), 6) for bound in np.percentile(means, [2.5, 97.5])]


def win_rate(rewards_N: Sequence[float], rewards_of_base_N: Sequence[float]) -> float:
    """Share of prompts whose reward beats the base model's; a tie counts one half.

    >>> win_rate([1.0, 0.5, 0.2, 0.9], [0.0, 0.5, 0.4, 0.1])  # win, tie, loss, win
    0.625
    """
    pairs = list(zip(rewards_N, rewards_of_base_N, strict=True))
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)


def paired_differences(
    rows: Sequence[EvaluationRow], base: Sequence[EvaluationRow], pairwise: bool
) -> list[float]:
    """Reward minus the base model's for each prompt that both answered, in the order of `rows`.

    Args:
        base: the same of iteration 0, in any order; joined by `prompt_id`.
        pairwise: take the base's score from the same comparison instead.
    """
    if pairwise:
        return [row["reward"] - row["reward_of_base"] for row in rows]
    base_rewards = {row["prompt_id"]: row["reward"] for row in base}
    return [
        row["reward"] - base_rewards[row["prompt_id"]]
        for row in rows
        if row["prompt_id"] in base_rewards
    ]


def conclusion(interval: Interval | None) -> str:
    """The conclusion that the 95% interval of the paired difference allows."""
    if interval is None:
        return "A single prompt shows no difference from the base model."
    low, high = interval
    if low > 0:
        return "The policy is better than the base model."
    if high < 0:
        return "The policy is worse than the base model."
    return "The interval contains zero: no difference from the base model is shown."


def interval_text(interval: Interval | None, sign: str = "") -> str:
    """
    >>> interval_text([0.5, 0.75]), interval_text([-0.1, 0.2], "+"), interval_text(None)
    ('0.500 to 0.750', '-0.100 to +0.200', '')
    """
    return " to ".join(f"{bound:{sign}.3f}" for bound in interval or [])
