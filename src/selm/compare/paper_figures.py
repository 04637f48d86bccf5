"""The paper's figures 2 to 4, from runs of ours: win rates, alpha, distributions, implicit rewards.

Zhang et al., arXiv 2405.19332. Its Fig. 3 has win rates of AlpacaEval 2 to the left; here it is the
held-out reward, the measure by which the paper chooses alpha.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from selm.compare.looks import SMALL, Setting, ends, label, looks, spread
from selm.report.benchmark_figures import matrix
from selm.report.style import INK, NOTE, titled

ALPHA = "training.alpha"
FEW = 8  # labels that can stand below a matrix; more are numbered
MOST_LABELS = 20  # beyond which a page cannot show them
LARGE = 14  # labels beyond which win rates are shown without decimals
BINS = 30


def win_rates(labels: Sequence[str], matrix_NN: Sequence[Sequence[Any]], which: str) -> Any:
    """Fig. 2: how often the row's answers win against the column's, in percent."""
    size = len(labels)
    rates = np.array(matrix_NN, dtype=float)  # None is NaN: not compared
    np.fill_diagonal(rates, np.nan)  # every policy ties with itself
    cell = 0.62 if size <= LARGE else 0.36
    side = max(2.6, cell * size)
    figure, axes = plt.subplots(figsize=(side + 3.4, side + 1.9))
    digits, fontsize = (1, SMALL) if size <= LARGE else (0, 8.0)
    names = [label(name, 40) for name in labels]
    if size > FEW:
        names = [f"{name}  {k}" for k, name in enumerate(names, 1)]
    matrix(axes, rates, names, digits, fontsize)
    if size > FEW:
        axes.set_xticks(range(size), [str(k) for k in range(1, size + 1)], rotation=0, ha="center")
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set(parse_math=False, fontsize=SMALL if size <= LARGE else 8.0)
    titled(figure, "Win rates", f"{which}; percent, the row against the column")
    return figure


def shown_in_matrix(size: int, settings: Sequence[Setting]) -> list[int]:
    """The rows that are drawn: all, or the base model and each setting's end if all are too many.

    Rows are the base model and then the iterations of one setting after the other.
    """
    later = [sum(step["iteration"] > 0 for step in each["iterations"]) for each in settings]
    if size <= MOST_LABELS or size != 1 + sum(later):
        return list(range(size))
    return sorted({0, *np.cumsum(later).tolist()})


def by_alpha(settings: Sequence[Setting]) -> list[list[Setting]]:
    """Groups of settings that differ in alpha alone, each with at least two values, ascending."""
    groups: dict[str, list[Setting]] = {}
    for setting in settings:
        if ALPHA in setting["differs"]:
            rest = {key: value for key, value in setting["differs"].items() if key != ALPHA}
            groups.setdefault(repr(sorted(rest.items())), []).append(setting)
    return [sorted(group, key=alpha_of) for group in groups.values() if len(group) > 1]


def alpha_of(setting: Setting) -> float:
    return float(setting["differs"][ALPHA])


def places(alphas: Sequence[float]) -> dict[float, float]:
    """Alpha -> its place on the axis: log10, and 0 one step to the left of the smallest.

    >>> places([0.0, 0.001, 0.1])
    {0.0: -4.0, 0.001: -3.0, 0.1: -1.0}
    """
    logs = {alpha: round(float(np.log10(alpha)), 9) for alpha in alphas if alpha > 0}
    left = min(logs.values(), default=0.0) - 1.0
    return {alpha: logs.get(alpha, left) for alpha in sorted(set(alphas))}


def against_alpha(settings: Sequence[Setting], which: str) -> Any | None:
    """Fig. 3, left: the last iteration's mean reward and its interval against alpha."""
    groups = by_alpha(settings)
    if not groups:
        return None
    figure, axes = plt.subplots(figsize=(8.0, 4.2))
    at = places([alpha_of(setting) for group in groups for setting in group])
    styles = looks([setting["name"] for setting in settings])
    for k, group in enumerate(groups):
        aside = 0.04 * (k - (len(groups) - 1) / 2)
        colour = styles[group[-1]["name"]].colour
        points = [(at[alpha_of(s)] + aside, s["iterations"][-1]) for s in group]
        for x, entry in points:
            bar = ends(entry, "reward_mean", "reward_ci95")
            axes.plot([x, x], bar, color=colour, linewidth=2, label="_interval")
        means = [entry["reward_mean"] for _, entry in points]
        axes.plot(
            [x for x, _ in points], means, "o-", color=colour, linewidth=1.8, markersize=7,
            markeredgecolor="white", zorder=4, label=rest_of(group[0]) or "alpha",
        )  # fmt: skip
    _alpha_axis(axes, at)
    _reference(axes, settings, groups)
    axes.set_ylabel("mean held-out reward")
    if len(groups) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.18), fontsize=SMALL, ncols=2)
    titled(figure, "Reward against alpha", f"{which}; last iteration; bars: 95% interval")
    return figure


def rest_of(setting: Setting) -> str:
    """What a line's settings have in common, for the legend."""
    rest = {key: value for key, value in setting["differs"].items() if key != ALPHA}
    return label(", ".join(f"{key.split('.')[-1]} {rest[key]}" for key in rest), 44, lines=1)


def _alpha_axis(axes: Axes, at: Mapping[float, float]) -> None:
    """The alphas that were tried are the ticks; the axis is broken between 0 and the smallest."""
    low, high = min(at.values()), max(at.values())
    axes.set_xticks(list(at.values()), [f"{alpha:g}" for alpha in at])
    axes.set_xlim(low - 0.3, high + 0.3)
    axes.margins(y=0.1)
    axes.spines["bottom"].set_color(NOTE)
    axes.set_xlabel(r"$\alpha$ (logarithmic)" if len(at) > 1 else r"$\alpha$")
    if 0.0 in at and len(at) > 1:
        across = axes.get_xaxis_transform()
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        axes.text(
            low + 0.5, 0, "//", transform=across, ha="center", va="center", color=NOTE, bbox=box
        )


def _reference(
    axes: Axes, settings: Sequence[Setting], groups: Sequence[Sequence[Setting]]
) -> None:
    """The first setting as a level, if it has no alpha of its own, such as plain DPO."""
    first = settings[0]
    if any(first is setting for group in groups for setting in group):
        return
    level = first["iterations"][-1]["reward_mean"]
    axes.axhline(level, color=INK, linewidth=1.2, linestyle=(0, (3, 2)), label="_reference")
    axes.annotate(
        label(first["name"], 24), (1, level), (6, 0), xycoords=("axes fraction", "data"),
        textcoords="offset points", va="center", fontsize=SMALL, parse_math=False,
    )  # fmt: skip


def shares(values: Sequence[float] | np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Percent of the values in each bin.

    >>> shares([0.1, 0.2, 0.9], np.array([0.0, 0.5, 1.0])).round(1).tolist()
    [66.7, 33.3]
    """
    return np.histogram(values, bins)[0] * 100 / np.size(values)


def common_bins(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Edges of bins of one width for all; identical values get a bin of their own."""
    low = min(float(found.min()) for found in values.values())
    high = max(float(found.max()) for found in values.values())
    return np.linspace(low, high, BINS + 1) if high > low else np.linspace(low - 1, low + 1, 4)


def distributions(
    values: Mapping[str, np.ndarray], base: np.ndarray | None, title: str, subtitle: str,
    shades: Mapping[str, Any],
) -> Any:  # fmt: skip
    """Fig. 3, middle and right: a row with the distribution of each setting or iteration.

    Args:
        values: name -> rewards of all seeds and prompts.
        base: those of the base model, drawn as an outline in every row; None if unknown.
    """
    bins = common_bins(values if base is None else {**values, "base": base})
    figure, panels = plt.subplots(
        len(values), 1, squeeze=False, sharex=True, sharey=True,
        figsize=(8.0, 0.62 * len(values) + 1.6),
    )  # fmt: skip
    for axes, (name, found) in zip(panels.flat, values.items(), strict=True):
        axes.stairs(shares(found, bins), bins, fill=True, color=shades[name], alpha=0.85)
        if base is not None:
            axes.stairs(shares(base, bins), bins, color=NOTE, linewidth=1)
        axes.axvline(found.mean(), color=INK, linewidth=1.4, linestyle=(0, (2, 1.5)))
        text = f"{label(name, 30)}\nmean {found.mean():.3f}"
        axes.text(
            1.02, 0.5, text, transform=axes.transAxes, va="center", fontsize=8.5, parse_math=False
        )
        axes.yaxis.set_major_formatter("{x:.0f}%")
        axes.tick_params(axis="y", labelsize=8)
        axes.locator_params(axis="y", nbins=3)
    panels[-1, 0].set_xlabel("reward")
    titled(figure, title, subtitle)
    return figure


def implicit_rewards(
    chosen_SN: np.ndarray, rejected_SN: np.ndarray, names: tuple[str, str], which: str
) -> Any:
    """Fig. 4: the difference of two policies' implicit rewards, sorted, for both responses.

    Args:
        chosen_SN, rejected_SN: reward of the first policy minus that of the second, for each pair
            of seeds and each held-out pair.
        names: of the two policies.
    """
    figure, axes = plt.subplots(figsize=(8.0, 4.2))
    axes.axhline(0, color=INK, linewidth=1, label="_zero")
    heights, texts = [], []
    for values_SN, role, colour in (
        (chosen_SN, "chosen", "#0072b2"), (rejected_SN, "rejected", "#d55e00"),
    ):  # fmt: skip
        ordered_SN = np.sort(values_SN, axis=1)
        seeds, size = ordered_SN.shape
        at = 100 * (np.arange(size) + 0.5) / size
        width = 2.0 if seeds == 1 else 1.0
        axes.plot(at, ordered_SN.T, color=colour, linewidth=width, label=role)
        above = 100 * float((ordered_SN > 0).mean())
        heights.append(float(ordered_SN[:, -1].mean()))
        texts.append((f"{role}\nmean {ordered_SN.mean():+.3g}\n{above:.0f}% above 0", colour))
    low, high = axes.get_ylim()
    for (text, colour), height in zip(texts, spread(heights, 0.22 * (high - low)), strict=True):
        axes.annotate(
            text, (1, height), (8, 0), xycoords=("axes fraction", "data"), va="center",
            textcoords="offset points", color=colour, fontsize=SMALL, annotation_clip=False,
        )  # fmt: skip
    axes.set_xlim(0, 100)
    axes.xaxis.set_major_formatter("{x:.0f}%")
    axes.set_xlabel("held-out responses, sorted by the difference")
    axes.set_ylabel("difference of implicit rewards")
    first, second = (label(name, 24, lines=1) for name in names)
    titled(figure, f"Implicit reward: {first} minus {second}", which)
    return figure
