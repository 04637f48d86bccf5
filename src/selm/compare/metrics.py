"""The numbers of compare.json: settings, differences between them, and win rates."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from selm.compare.seeds import Mean, difference, mean
from selm.compare.settings import Comparison, Setting

Metrics = dict[str, Any]

ALPHA = "training.alpha"


def metrics(comparison: Comparison) -> Metrics:
    """What compare.json holds.

    Attributes of the result:
        settings: name, what differs, seeds, and an entry for each iteration.
        differences: of any two settings after their last iterations, a - b.
        win_rates: of every policy (row) against every other (column), in percent.
        against_alpha: the last rewards by alpha, where the settings differ in it.
    """
    settings = comparison.settings
    pairs = [(b, a) for a, b in combinations(settings, 2)]
    trained = [(a, b) for a, b in pairs if last(comparison, a) > 0 and last(comparison, b) > 0]
    found: Metrics = {
        "ranker": comparison.ranker,
        "pairwise": comparison.pairwise,
        "prompts": len(comparison.prompts),
        "prompts_left_out": comparison.left_out,
        "base_models": sorted({run.recipe.model.name_or_path for run in comparison.runs}),
        "settings": [_setting(comparison, setting) for setting in settings],
        "differences": [_difference(comparison, a, b) for a, b in trained],
        "win_rates": win_rates(comparison),
        "runs": [
            {
                "setting": setting.name,
                "name": run.name,
                "folder": str(run.folder),
                "seed": run.seed,
                "iterations": sorted(run.evaluations),
                "missing": list(run.missing),
            }
            for setting in settings
            for run in setting.runs
        ],
        "without": list(comparison.without),
    }
    by_alpha = _against_alpha(settings, found["settings"])
    return found | ({"against_alpha": by_alpha} if by_alpha else {})


def last(comparison: Comparison, setting: Setting) -> int:
    """The last iteration; 0 if only the base model was evaluated."""
    return max(comparison.iterations(setting), default=0)


def _setting(comparison: Comparison, setting: Setting) -> Metrics:
    return {
        "name": setting.name,
        "differs": dict(setting.differs),
        "seeds": setting.seeds,
        "iterations": [_iteration(comparison, setting, t) for t in comparison.iterations(setting)],
    }


def _iteration(comparison: Comparison, setting: Setting, t: int) -> Metrics:
    """One iteration's numbers; those against the base model are None for the base itself."""
    rewards = comparison.rewards(setting, t)
    reward = mean(rewards)
    recipe = setting.runs[0].recipe
    of_seed = rewards.mean(axis=1)
    against_base = None
    if t > 0 and (comparison.pairwise or 0 in comparison.iterations(setting)):
        against_base = mean(rewards - _of_base(comparison, setting, t))
    return {
        "iteration": t,
        "objective": "base" if t == 0 else recipe.iteration(t).objective,
        "reward_mean": _rounded(reward.value),
        "reward_ci95": reward.ci95,
        "reward_sd_over_seeds": _rounded(of_seed.std(ddof=1)) if len(of_seed) > 1 else None,
        "seeds": reward.seeds,
        "prompts": reward.prompts,
        "response_tokens_mean": round(float(comparison.values(setting, t, "num_tokens").mean()), 2),
        "difference_from_base": None if against_base is None else _rounded(against_base.value),
        "difference_from_base_ci95": None if against_base is None else against_base.ci95,
    }


def _of_base(comparison: Comparison, setting: Setting, t: int) -> np.ndarray:
    """Rewards of the base model's answers; a pairwise ranker gives them beside each answer."""
    if comparison.pairwise:
        return comparison.values(setting, t, "reward_of_base")
    return comparison.rewards(setting, 0)


def _difference(comparison: Comparison, a: Setting, b: Setting) -> Metrics:
    t, u = last(comparison, a), last(comparison, b)
    paired = a.seeds == b.seeds
    rewards = comparison.rewards(a, t), comparison.rewards(b, u)
    found: Mean = difference(*rewards, paired_seeds=paired)
    return {
        "a": a.name,
        "b": b.name,
        "iteration": t,
        "iteration_of_b": u,
        "mean": _rounded(found.value),
        "ci95": found.ci95,
        "seeds": found.seeds,
        "prompts": found.prompts,
        "paired_seeds": paired,
    }


def win_rates(comparison: Comparison) -> Metrics:
    """Every policy against every other, by the rewards of the same prompts, as the paper's Fig. 2.

    The base model is that of the first setting that has one evaluated.
    """
    labels, rewards = [], []
    for setting in comparison.settings:
        for t in comparison.iterations(setting):
            if t > 0:
                labels.append(f"{setting.name}, iteration {t}")
                rewards.append(comparison.rewards(setting, t))
    with_base = [each for each in comparison.settings if 0 in comparison.iterations(each)]
    if with_base:
        labels.insert(0, "base")
        rewards.insert(0, comparison.rewards(with_base[0], 0))
    matrix = [[_percent_won(row, column) for column in rewards] for row in rewards]
    for i in range(len(matrix)):
        matrix[i][i] = 50.0
    return {"labels": labels, "matrix": matrix}


def _percent_won(a_SP: np.ndarray, b_RP: np.ndarray) -> float:
    """Share of prompts that a wins, over all pairs of seeds; a tie counts one half.

    >>> _percent_won(np.array([[1.0, 0.5]]), np.array([[0.0, 0.5], [2.0, 0.0]]))
    62.5
    """
    above, below = a_SP[:, None] > b_RP[None], a_SP[:, None] < b_RP[None]
    return round(float(50 + 50 * (above.mean() - below.mean())), 4)


def _against_alpha(settings: Sequence[Setting], entries: Sequence[Metrics]) -> list[Metrics]:
    """The last mean reward of each setting, by alpha; empty unless they differ in it."""
    found = [
        {"alpha": setting.differs[ALPHA], "setting": setting.name}
        | {key: entry["iterations"][-1][key] for key in ("reward_mean", "reward_ci95")}
        for setting, entry in zip(settings, entries, strict=True)
        if ALPHA in setting.differs
    ]
    return sorted(found, key=lambda each: each["alpha"])


def _rounded(value: float) -> float:
    return round(float(value), 6)
