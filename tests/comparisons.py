"""Comparisons made of random rewards, and what compare.json would say of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selm.compare.settings import Comparison, FinishedRun, Setting
from selm.recipe.loading import load_recipe

RECIPE = str(Path(__file__).parents[1] / "recipes/smollm2-135m-instruct/selm.yaml")


def comparison_of(
    settings: Sequence[tuple[str, Mapping[str, Any]]],
    seeds: Sequence[int] = (1, 2, 3),
    prompts: int = 40,
    iterations: int | Mapping[str, int] = 2,
) -> Comparison:
    """Runs whose rewards rise a little with every iteration; one more setting rises more.

    Args:
        settings: name and what differs.
        iterations: of all settings, or of each by its name.
    """
    ids = tuple(f"p{k}" for k in range(prompts))
    recipes = {seed: load_recipe(RECIPE, [f"seed={seed}"]) for seed in seeds}
    base = np.random.default_rng(0).normal(0.4, 0.2, prompts)
    made = []
    for k, (name, differs) in enumerate(settings):
        last = iterations if isinstance(iterations, int) else iterations[name]
        runs = []
        for seed in seeds:
            noise = np.random.default_rng([k, seed])
            rewards = {0: base}
            for t in range(1, last + 1):
                rewards[t] = base + noise.normal(0.05 * t + 0.01 * k * t, 0.1, prompts)
            rows = {t: rows_of(ids, values) for t, values in rewards.items()}
            runs.append(FinishedRun(f"{name}-{seed}", Path(name), recipes[seed], rows))
        made.append(Setting(name, differs, tuple(runs)))
    return Comparison(tuple(made), ids, "a ranker")


def rows_of(ids: Sequence[str], rewards_N: Sequence[float]) -> list[Any]:
    return [
        {"prompt_id": prompt, "reward": float(reward), "num_tokens": 7}
        for prompt, reward in zip(ids, rewards_N, strict=True)
    ]


def metrics_of(comparison: Comparison) -> dict[str, Any]:
    """The keys of compare.json that figures read; intervals of a normal distribution, for looks."""
    first = comparison.settings[0]
    labels, policies = ["base"], [comparison.rewards(first, 0).mean(axis=0)]
    entries, differences = [], []
    for setting in comparison.settings:
        steps = []
        for t in comparison.iterations(setting):
            values = comparison.rewards(setting, t)
            steps.append({"iteration": t, "reward_mean": float(values.mean())})
            steps[-1]["reward_ci95"] = _interval(values)
            if t > 0:
                labels.append(f"{setting.name}, iteration {t}")
                policies.append(values.mean(axis=0))
        name = {"name": setting.name, "differs": dict(setting.differs), "seeds": setting.seeds}
        entries.append({**name, "iterations": steps})
        if setting is not first:
            t = min(comparison.iterations(setting)[-1], comparison.iterations(first)[-1])
            gain = comparison.rewards(setting, t) - comparison.rewards(first, t)
            differences.append(
                {
                    "a": setting.name,
                    "b": first.name,
                    "iteration": t,
                    "mean": float(gain.mean()),
                    "ci95": _interval(gain),
                }
            )
    matrix = [[_wins(row, column) for column in policies] for row in policies]
    win_rates = {"labels": labels, "matrix": matrix}
    return {"settings": entries, "differences": differences, "win_rates": win_rates}


def _interval(values_SP: np.ndarray) -> list[float]:
    half = 1.96 * float(values_SP.std() / np.sqrt(values_SP.size))
    return [float(values_SP.mean()) - half, float(values_SP.mean()) + half]


def _wins(a_P: np.ndarray, b_P: np.ndarray) -> float:
    return 100 * float((a_P > b_P).mean() + 0.5 * (a_P == b_P).mean())
