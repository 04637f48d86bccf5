"""The figures of benchmarks: headlines over iterations, and the matrix of win rates."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patheffects import withStroke

from selm.escape import one_line
from selm.report.benchmarks import charted
from selm.report.measures import Benchmarks, Result, half_width, headline, named
from selm.report.measures import headlines as values_of
from selm.report.paper_tables import TITLES
from selm.report.style import INK, NOTE, colours, titled
from selm.report.win_rates import Cells, Matrices

COLUMNS = 4  # of small multiples
LOSES, EVEN, WINS = "#c8553d", "#f5f3ef", "#2a7f8e"
STRONG = 42.0  # points from 50 at which white is easier to read than ink


def headlines(benchmarks: Benchmarks, run_name: str) -> Any:
    """One panel per benchmark: its headline over iterations, with the 95% interval."""
    names = charted(benchmarks)
    across = min(COLUMNS, len(names))
    down = -(-len(names) // across)
    figure, panels = plt.subplots(
        down, across, squeeze=False, figsize=(max(6.4, 2.9 * across), 2.7 * down + 0.7)
    )
    iterations = sorted({t for name in names for t in benchmarks[name]})
    shades = colours(iterations)
    for axes, name in zip(panels.flat, names, strict=False):
        _over_iterations(axes, benchmarks[name], iterations, shades)
        judge = _judge(benchmarks[name])
        _panel_title(axes, TITLES.get(name, name), headline(benchmarks[name]), judge)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    titled(figure, run_name, "benchmarks over iterations; bars: 95% interval, where it is known")
    return figure


def _over_iterations(
    axes: Axes, results: Mapping[int, Result], iterations: list[int], shades: Mapping[int, Any]
) -> None:
    """Dots, bars and numbers; all panels have the same iterations on their axis."""
    points = values_of(results)
    at = {t: iterations.index(t) for t in points}
    values = {t: measure["value"] for t, measure in points.items()}
    halves = {t: half_width(measure) or 0.0 for t, measure in points.items()}
    axes.plot(list(at.values()), list(values.values()), color="#2c7fb8", linewidth=1.6, zorder=2)
    for t, x in at.items():
        ends = [values[t] - halves[t], values[t] + halves[t]]
        axes.plot([x, x], ends, color=shades[t], linewidth=2.2, zorder=3)
        axes.plot(
            x, values[t], "o", color=shades[t], markersize=8, markeredgecolor="white", zorder=4
        )
        axes.annotate(
            f"{values[t]:.{_digits(values)}f}", (x, ends[1]), (0, 4), textcoords="offset points",
            ha="center", va="bottom", fontsize=9, fontweight="bold", zorder=5,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip
    low = min(values[t] - halves[t] for t in at)
    high = max(values[t] + halves[t] for t in at)
    margin = 0.12 * ((high - low) or abs(high) or 1.0)
    axes.set_ylim(low - margin, high + 2.2 * margin)
    axes.set_xlim(-0.5, len(iterations) - 0.5)
    few = len(iterations) <= 2  # then there is room for the whole word
    labels = [named(t) if few or t == 0 else str(t) for t in iterations]
    axes.set_xticks(range(len(iterations)), labels)
    axes.tick_params(labelsize=9)


def _digits(values: Mapping[int, float]) -> int:
    return 1 if max(map(abs, values.values())) >= 20 else 2


def _judge(results: Mapping[int, Result]) -> str:
    judges = dict.fromkeys(results[t]["judge"] for t in sorted(results))
    return ", ".join(judge for judge in judges if judge)


def _panel_title(axes: Axes, name: str, measure: str, judge: str) -> None:
    """The benchmark, and below it in small letters what was measured and who judged."""
    lines = [measure, f"by {judge}"] if judge else [measure]
    at = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom"}
    plain = {**at, "parse_math": False}
    axes.annotate(short(name, 22), (0, 1), (0, 8 + 10 * len(lines)), fontsize=11, **plain)
    for k, line in enumerate(reversed(lines)):
        small = {"fontsize": 8, "color": NOTE, **plain}
        axes.annotate(short(line, 34), (0, 1), (0, 6 + 10 * k), **small)


def short(text: str, most: int) -> str:
    """The text on one line of at most `most` characters; one that was cut ends with an ellipsis.

    >>> short("a judge with a long name", 12)
    'a judge wit…'
    """
    line = one_line(text)
    return line if len(line) <= most else line[: most - 1] + "…"


def matrices(found: Matrices, run_name: str) -> Any:
    """One panel per kind of win rate: the row's against the column, in percent."""
    size = len(found.iterations)
    side = max(2.6, 0.72 * size)
    count = len(found.cells)
    figure, panels = plt.subplots(
        1, count, squeeze=False, figsize=(max(6.4, (side + 1.3) * count), side + 1.8)
    )
    for axes, (kind, cells) in zip(panels.flat, found.cells.items(), strict=True):
        _matrix(axes, cells, found.iterations)
        axes.set_title(kind, pad=10)
    judges = ", ".join(found.judges)
    by = f", according to {short(judges, 32 * count)}" if judges else ""
    titled(figure, run_name, f"win rates in percent, of the row against the column{by}")
    return figure


def _matrix(axes: Axes, cells: Cells, iterations: tuple[int, ...]) -> None:
    size = len(iterations)
    rates = np.full((size, size), np.nan)
    for (row, column), (value, _) in cells.items():
        rates[iterations.index(row), iterations.index(column)] = value
    matrix(axes, rates, [named(t) for t in iterations])


def matrix(
    axes: Axes, rates: np.ndarray, labels: Sequence[str], digits: int = 1, fontsize: float = 10
) -> None:
    """Win rates in percent as coloured squares, with their numbers; NaN is an empty square."""
    size = len(labels)
    palette = LinearSegmentedColormap.from_list("wins", [LOSES, EVEN, WINS])
    axes.imshow(rates, cmap=palette, vmin=0, vmax=100)
    for (i, j), value in np.ndenumerate(rates):
        if not np.isnan(value):
            colour = "white" if abs(value - 50) > STRONG else INK
            number = {"color": colour, "fontsize": fontsize, "ha": "center", "va": "center"}
            axes.text(j, i, f"{value:.{digits}f}", **number)
    axes.set_xticks(range(size), labels, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), labels)
    axes.grid(False)
    axes.set_xticks(np.arange(0.5, size - 1), minor=True)
    axes.set_yticks(np.arange(0.5, size - 1), minor=True)
    axes.grid(True, which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
