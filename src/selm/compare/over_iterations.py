"""A comparison's first figure: mean rewards over iterations, a line for each setting."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from selm.compare.looks import SMALL, Look, Setting, ends, label, looks, spread
from selm.report.style import FAINT, titled

MOST_IN_ONE_PANEL = 4  # lines whose intervals can still be told apart
COLUMNS = 3  # of small multiples


def rewards(
    settings: Sequence[Setting], seeds: Mapping[str, Mapping[int, np.ndarray]], which: str
) -> Any:
    """Mean reward over iterations with intervals; one panel each if they are too many for one.

    Args:
        seeds: setting -> iteration -> the mean of each seed, shape (seeds,).
        which: what the rewards are of.
    """
    last = {setting["iterations"][-1]["iteration"] for setting in settings}
    together = len(settings) <= MOST_IN_ONE_PANEL and len(last) == 1
    many = any(len(setting["seeds"]) > 1 for setting in settings)
    subtitle = f"{which}; bars: 95% interval" + ("; thin lines: seeds" if many else "")
    figure = _together(settings, seeds) if together else _apart(settings, seeds)
    if not together:
        subtitle += "; grey: the other settings"
    titled(figure, "Held-out reward over iterations", subtitle)
    return figure


def _together(settings: Sequence[Setting], seeds: Mapping[str, Mapping[int, np.ndarray]]) -> Any:
    """One panel, the names at the ends of the lines."""
    figure, axes = plt.subplots(figsize=(8.0, 4.4))
    styles = looks([setting["name"] for setting in settings])
    for k, setting in enumerate(settings):
        aside = 0.07 * (k - (len(settings) - 1) / 2)
        _line(axes, setting, styles[setting["name"]], aside, seeds[setting["name"]])
    _ticks(axes, settings)
    axes.set_ylabel("mean held-out reward")
    _name_at_ends(axes, settings, styles)
    return figure


def _apart(settings: Sequence[Setting], seeds: Mapping[str, Mapping[int, np.ndarray]]) -> Any:
    """A panel for each setting, with the others' means in grey."""
    across = min(COLUMNS, len(settings))
    down = -(-len(settings) // across)
    figure, panels = plt.subplots(
        down, across, squeeze=False, sharex=True, sharey=True,
        figsize=(2.9 * across + 0.6, 2.1 * down + 0.9),
    )  # fmt: skip
    styles = looks([setting["name"] for setting in settings])
    for axes, setting in zip(panels.flat, settings, strict=False):
        for other in settings:
            if other is not setting:
                axes.plot(*_means(other), color=FAINT, linewidth=1.2, zorder=1, label="_other")
        _line(axes, setting, styles[setting["name"]], 0.0, seeds[setting["name"]])
        title = label(setting["name"], 36)
        axes.set_title(title, fontsize=SMALL, fontweight="bold", parse_math=False)
    _ticks(panels[0, 0], settings)
    for axes in panels.flat[len(settings) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel("reward")
    for axes in panels.flat[max(0, len(settings) - across) : len(settings)]:
        axes.tick_params(labelbottom=True)  # also above a corner that is empty
    return figure


def _means(setting: Setting) -> tuple[list[int], list[float]]:
    found = setting["iterations"]
    return [entry["iteration"] for entry in found], [entry["reward_mean"] for entry in found]


def _line(
    axes: Axes, setting: Setting, look: Look, aside: float, seeds: Mapping[int, np.ndarray]
) -> None:
    """A setting's means and intervals, and its seeds' means, all a little aside."""
    at, means = np.array(_means(setting))
    colour = {"color": look.colour}
    if len(setting["seeds"]) > 1:
        curves_ST = np.array([seeds[int(t)] for t in at]).T
        for curve in curves_ST:
            axes.plot(
                at + aside, curve, linewidth=0.7, alpha=0.4, zorder=2, label="_seed", **colour
            )
    for x, entry in zip(at, setting["iterations"], strict=True):
        bar = ends(entry, "reward_mean", "reward_ci95")
        axes.plot([x + aside] * 2, bar, linewidth=1.8, zorder=3, label="_interval", **colour)
    axes.plot(
        at + aside, means, linestyle=look.dashes, marker=look.marker, markersize=6, linewidth=1.8,
        markeredgecolor="white", zorder=4, label=setting["name"], **colour,
    )  # fmt: skip


def _ticks(axes: Axes, settings: Sequence[Setting]) -> None:
    iterations = sorted({entry["iteration"] for each in settings for entry in each["iterations"]})
    axes.set_xticks(iterations, ["base" if t == 0 else str(t) for t in iterations])
    axes.set_xlim(iterations[0] - 0.3, iterations[-1] + 0.3)
    axes.margins(y=0.08)


def _name_at_ends(axes: Axes, settings: Sequence[Setting], styles: Mapping[str, Look]) -> None:
    """Names to the right of the panel, apart from each other, each tied to its line's end."""
    ends_of_lines = [setting["iterations"][-1]["reward_mean"] for setting in settings]
    names = [label(setting["name"], 28) for setting in settings]
    low, high = axes.get_ylim()
    gap = (high - low) * (0.115 if any("\n" in name for name in names) else 0.065)
    right = axes.get_xlim()[1]
    for setting, name, end, height in zip(
        settings, names, ends_of_lines, spread(ends_of_lines, gap), strict=True
    ):
        colour = styles[setting["name"]].colour
        axes.annotate(
            name, (right - 0.2, end), (right + 0.12, height), color=colour, fontsize=SMALL,
            va="center", fontweight="bold", annotation_clip=False, parse_math=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.7, "alpha": 0.6},
        )  # fmt: skip
