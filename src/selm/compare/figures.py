"""The figures of a comparison: rewards over iterations, differences, and the paper's 2 to 5."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from selm.compare.implicit import Differences
from selm.compare.looks import Setting, label, looks
from selm.compare.over_iterations import rewards
from selm.compare.paper_figures import (
    against_alpha,
    by_alpha,
    distributions,
    implicit_rewards,
    shown_in_matrix,
    win_rates,
)
from selm.compare.rows import differences, grid
from selm.compare.settings import Comparison
from selm.escape import one_line
from selm.report.measures import named
from selm.report.style import STYLE, colours

GRID = {"axes.grid": True, "axes.grid.axis": "y", "axes.spines.left": False}
CAPTIONS = {
    "rewards.png": "Held-out reward over iterations",
    "differences.png": "Paired difference of each setting to the first one",
    "win_rates.png": "Win rates of every policy against every other (the paper's Fig. 2)",
    "alpha.png": "Held-out reward against alpha (the paper's Fig. 3, left)",
    "rewards_by_setting.png": "Distribution of rewards by setting (the paper's Fig. 3, middle)",
    "rewards_by_iteration.png": "Distribution of rewards by iteration (the paper's Fig. 3, right)",
    "implicit_rewards.png": "Sorted differences of implicit rewards (the paper's Fig. 4)",
    "grid.png": "Held-out reward after the last iteration (the paper's Fig. 5)",
}


def draw(
    comparison: Comparison,
    metrics: Mapping[str, Any],
    folder: Path,
    implicit: Differences | None = None,
) -> list[tuple[str, str]]:
    """Write the figures that the runs have numbers for; returns their files and captions.

    Args:
        metrics: what compare.json holds.
        implicit: for the paper's Fig. 4, where the runs have scored the held-out pairs.
    """
    with plt.rc_context(STYLE | GRID):
        found = figures(comparison, metrics, implicit)
        for file, (figure, _) in found.items():
            path = folder / file
            figure.savefig(path, bbox_inches="tight", pad_inches=0.15, facecolor="white")
            plt.close(figure)
    return [(file, caption) for file, (_, caption) in found.items()]


def figures(
    comparison: Comparison, metrics: Mapping[str, Any], implicit: Differences | None = None
) -> dict[str, tuple[Any, str]]:
    """File name -> figure and caption, in the order of the report."""
    settings, which = metrics["settings"], about(comparison)
    drawn = {
        "rewards.png": rewards(settings, means_of_seeds(comparison), which),
        "differences.png": differences(metrics["differences"], settings, which),
        "win_rates.png": _win_rates(metrics, which),
        "alpha.png": against_alpha(settings, which),
        "rewards_by_setting.png": _of_settings(comparison, settings, which),
        "rewards_by_iteration.png": _of_iterations(comparison, settings, which),
        "implicit_rewards.png": _implicit(implicit),
        "grid.png": grid(settings, which) if len(settings) > 1 else None,
    }
    return {file: (found, CAPTIONS[file]) for file, found in drawn.items() if found is not None}


def about(comparison: Comparison) -> str:
    """What the rewards are of, for the second line of each figure."""
    ranker = " ".join(word.rpartition("/")[-1] for word in comparison.ranker.split())
    return f"{len(comparison.prompts)} held-out prompts, {one_line(ranker, 40)}"


def means_of_seeds(comparison: Comparison) -> dict[str, dict[int, np.ndarray]]:
    """Setting -> iteration -> mean reward of each seed, shape (seeds,)."""
    return {
        setting.name: {
            t: comparison.rewards(setting, t).mean(axis=1) for t in comparison.iterations(setting)
        }
        for setting in comparison.settings
    }


def _win_rates(metrics: Mapping[str, Any], which: str) -> Any | None:
    found = metrics.get("win_rates")
    if not found:
        return None
    labels, rates = found["labels"], found["matrix"]
    shown = shown_in_matrix(len(labels), metrics["settings"])
    if len(shown) < len(labels):
        which += "; last iterations"
    rates = [[rates[i][j] for j in shown] for i in shown]
    return win_rates([labels[k] for k in shown], rates, which)


def _implicit(found: Differences | None) -> Any | None:
    if found is None:
        return None
    seeds, pairs = found.chosen_SN.shape
    which = f"{pairs} held-out pairs, relative to the base model"
    which += "; a line for each seed" if seeds > 1 else ""
    return implicit_rewards(found.chosen_SN, found.rejected_SN, found.names, which)


def _of_settings(comparison: Comparison, settings: Sequence[Setting], which: str) -> Any | None:
    """Rewards after the last iteration that all settings have, in the order of alpha."""
    common = set.intersection(*(set(comparison.iterations(s)) for s in comparison.settings))
    t = max(common, default=0)
    if t == 0:
        return None
    groups = by_alpha(settings)
    best = max(groups, key=lambda group: max(map(_last_mean, group)), default=settings)
    order = [setting["name"] for setting in best]
    found = {s.name: comparison.rewards(s, t).ravel() for s in comparison.settings}
    values = {name: found[name] for name in order}
    base = comparison.rewards(comparison.settings[0], 0).ravel() if 0 in common else None
    if groups:
        depth = colours(range(1, len(order) + 1))
        shades = {name: depth[k] for k, name in enumerate(order, 1)}
    else:
        styles = looks([setting["name"] for setting in settings])
        shades = {name: styles[name].colour for name in order}
    subtitle = f"{which}; share of answers; outline: base model; dashes: mean"
    return distributions(values, base, f"Rewards after iteration {t}", subtitle, shades)


def _last_mean(setting: Setting) -> float:
    return float(setting["iterations"][-1]["reward_mean"])


def _of_iterations(comparison: Comparison, settings: Sequence[Setting], which: str) -> Any:
    """Rewards after each iteration of the setting with the best mean at its end."""
    best = max(range(len(settings)), key=lambda k: _last_mean(settings[k]))
    setting = comparison.settings[best]
    iterations = comparison.iterations(setting)
    values = {named(t): comparison.rewards(setting, t).ravel() for t in iterations}
    shades = {named(t): shade for t, shade in colours(iterations).items()}
    title = f"Rewards of {label(setting.name, 50, lines=1)}"
    subtitle = f"{which}; share of answers; outline: base model; dashes: mean"
    return distributions(values, values.get("base"), title, subtitle, shades)
