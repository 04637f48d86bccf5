"""The report's figures of rewards, lengths, scores and training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from selm.report import benchmark_figures, win_rates
from selm.report.benchmarks import charted
from selm.report.metrics import Metrics
from selm.report.results import Results
from selm.report.style import BASE, INK, NOTE, STYLE, colours, titled

ROLES = {"chosen": "#2a7f8e", "rejected": "#c8553d", "explored": "#e0a030"}
SOURCES = {
    "chosen": (ROLES["chosen"], "dataset's chosen"),
    "rejected": (ROLES["rejected"], "dataset's rejected"),
    "policy": (ROLES["explored"], "the policy's own"),
}
Steps = Sequence[Mapping[str, float]]


def draw(metrics: Metrics, results: Results, folder: Path) -> None:
    """Write rewards, reward_mean, lengths, training, and scores.png after ranking.

    And benchmarks.png and win_rates.png, if there are such results.
    """
    entries, rows, name = metrics["iterations"], results.evaluations, metrics["run_name"]
    rewards = {t: [row["reward"] for row in rows[t]] for t in rows}
    lengths = {t: [float(row["num_tokens"]) for row in rows[t]] for t in rows}
    grid = {"axes.grid": True, "axes.grid.axis": "y", "axes.spines.left": False}
    with plt.rc_context(STYLE | grid):
        figures = {
            "reward_mean": reward_mean(entries, name),
            "rewards": distributions(entries, rewards, "reward", name),
            "lengths": distributions(entries, lengths, "response tokens", name),
            "training": training(results.logs),
        }
        if results.summaries:
            figures["scores"] = scores(results.summaries, name)
        if charted(results.benchmarks):
            figures["benchmarks"] = benchmark_figures.headlines(results.benchmarks, name)
        found = win_rates.matrices(results.benchmarks)
        if found is not None:
            figures["win_rates"] = benchmark_figures.matrices(found, name)
        for file, figure in figures.items():
            path = folder / f"{file}.png"
            figure.savefig(path, bbox_inches="tight", pad_inches=0.15, facecolor="white")
            plt.close(figure)


def reward_mean(entries: Sequence[Metrics], run_name: str) -> Any:
    """Mean held-out reward and its 95% interval over iterations."""
    figure, axes = plt.subplots(figsize=(6.4, 4.0))
    means = np.array([entry["reward_mean"] for entry in entries])
    low, high = np.array([e["reward_ci95"] or [e["reward_mean"]] * 2 for e in entries]).T
    at = np.arange(len(entries))
    shades = colours([entry["iteration"] for entry in entries])
    axes.axhline(means[0], color=BASE, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.fill_between(at, low, high, color="#41b6c4", alpha=0.14, linewidth=0)
    axes.plot(at, means, color="#2c7fb8", linewidth=2, zorder=2)
    for x, entry in enumerate(entries):
        shade = shades[entry["iteration"]]
        axes.plot([x, x], [low[x], high[x]], color=shade, linewidth=2.5, zorder=3)
        axes.plot(x, means[x], "o", color=shade, markersize=10, markeredgecolor="white", zorder=4)
        axes.annotate(
            f"{means[x]:.3f}", (x, high[x]), (0, 5), textcoords="offset points",
            ha="center", va="bottom", fontsize=11, fontweight="bold",
        )  # fmt: skip
    margin = 0.12 * (high.max() - low.min() or 1.0)
    axes.set_ylim(low.min() - margin, high.max() + 1.6 * margin)
    axes.set_xlim(-0.35, len(entries) - 0.65)
    axes.set_xticks(at, [_tick(entry) for entry in entries])
    axes.set_ylabel("mean held-out reward")
    prompts = f"{entries[0]['n']} held-out prompts, greedy answers; bars: 95% bootstrap interval"
    titled(figure, run_name, prompts)
    return figure


def _tick(entry: Metrics) -> str:
    return "base" if entry["iteration"] == 0 else f"iteration {entry['iteration']}"


def distributions(
    entries: Sequence[Metrics], values: Mapping[int, Sequence[float]], what: str, run_name: str
) -> Any:
    """One histogram per iteration, in the same bins, each over the outline of the base model's."""
    low, high = min(map(min, values.values())), max(map(max, values.values()))
    bins = np.linspace(low, high if high > low else low + 1, 25)
    figure, panels = plt.subplots(
        len(entries), 1, sharex=True, sharey=True, figsize=(6.4, 0.95 * len(entries) + 1.3)
    )
    shades = colours(list(values))
    for axes, entry in zip(np.atleast_1d(panels), entries, strict=True):
        t = entry["iteration"]
        axes.hist(values[t], bins, weights=_percent(values[t]), color=shades[t], alpha=0.85)
        if t > 0:
            outline = {"histtype": "step", "color": "#6b747c"}
            axes.hist(values[0], bins, weights=_percent(values[0]), **outline)
        mean = float(np.mean(values[t]))
        axes.axvline(mean, color=INK, linewidth=1.2, linestyle=(0, (2, 2)))
        label = f"{_tick(entry)}\nmean {mean:.{1 if mean > 10 else 3}f}"
        axes.text(1.02, 0.5, label, transform=axes.transAxes, va="center", fontsize=10)
        axes.yaxis.set_major_formatter("{x:.0f}%")
    np.atleast_1d(panels)[-1].set_xlabel(what)
    subtitle = f"{what}: share of held-out prompts; outline: the base model; dashes: mean"
    titled(figure, run_name, subtitle)
    return figure


def _percent(values_N: Sequence[float]) -> np.ndarray:
    return np.full(len(values_N), 100 / len(values_N))


def scores(summaries: Mapping[int, Mapping[str, Any]], run_name: str) -> Any:
    """The distribution of the ranker's scores, by iteration and by who wrote the response."""
    sources = [s for s in SOURCES if any(s in found["scores"] for found in summaries.values())]
    figure, axes = plt.subplots(figsize=(6.4, 3.8))
    names = ("whislo", "q1", "med", "q3", "whishi")
    for k, source in enumerate(sources):
        offset = 0.26 * (k - (len(sources) - 1) / 2)
        boxes = {
            x + offset: dict(zip(names, found["scores"][source], strict=True))
            for x, found in enumerate(summaries.values())
            if source in found["scores"]
        }
        colour, label = SOURCES[source]
        axes.bxp(
            list(boxes.values()), list(boxes), label=label, widths=0.2,
            showfliers=False, showcaps=False, patch_artist=True,
            boxprops={"facecolor": colour, "edgecolor": "none", "alpha": 0.85},
            medianprops={"color": INK, "linewidth": 1.6}, whiskerprops={"color": colour},
        )  # fmt: skip
    axes.set_xticks(range(len(summaries)), [f"iteration {t}" for t in summaries])
    axes.set_ylabel("score")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.0)
    rows = sum(found["rows"] for found in summaries.values())
    subtitle = f"the ranker's scores in {rows} pools; boxes: half of the scores, whiskers: 90%"
    titled(figure, run_name, subtitle)
    return figure


def one_after_another(logs: Mapping[int, Steps], key: str) -> list[list[tuple[float, float]]]:
    """One curve per iteration: (step counted over all iterations, value) where `key` was logged.

    >>> one_after_another({1: [{"step": 1, "loss": 0.7}], 2: [{"step": 1, "loss": 0.6}]}, "loss")
    [[(1, 0.7)], [(2, 0.6)]]
    """
    starts = ((t, start) for t, (start, _) in spans(logs).items())
    curves = ([(start + s["step"], s[key]) for s in logs[t] if key in s] for t, start in starts)
    return [curve for curve in curves if curve]


def smooth(values_S: Sequence[float], width: int = 5) -> np.ndarray:
    """Centred running mean over `width` logged steps; shorter at the ends.

    >>> smooth([0.0, 3.0, 6.0], width=3).tolist()
    [1.5, 3.0, 4.5]
    """
    kernel = np.ones(min(width, len(values_S)))
    total = np.convolve(values_S, kernel, mode="same")
    return total / np.convolve(np.ones(len(values_S)), kernel, mode="same")


def training(logs: Mapping[int, Steps]) -> Any:
    """DPO loss, optimism term and rewards over the steps of all iterations."""
    figure, (loss, optimism, rewards) = plt.subplots(1, 3, figsize=(12.5, 3.5))
    _curves(loss, logs, "loss/dpo", INK)
    loss.set_title("preference loss")
    _curves(optimism, logs, "loss/optimism", ROLES["explored"])
    optimism.ticklabel_format(axis="y", scilimits=(-3, 3), useMathText=True)
    optimism.yaxis.get_offset_text().set(x=-0.02, ha="right", fontsize=9)
    optimism.set_title("optimism term of the loss", y=1.0)  # beside the axis' power of ten
    for role, colour in ROLES.items():
        _curves(rewards, logs, f"rewards/{role}", colour, role)
    rewards.set_title(r"implicit reward, $\beta\,(\log\,\pi - \log\,\pi_{ref})$")
    rewards.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.2)
    for axes in (loss, optimism, rewards):
        axes.set_xlabel("optimizer step, all iterations")
        axes.spines["left"].set_visible(True)
        _mark_iterations(axes, logs)
    _say_where_alpha_is_0(optimism, logs)
    figure.tight_layout(w_pad=2)
    return figure


def _curves(axes: Axes, logs: Mapping[int, Steps], key: str, colour: str, label: str = "") -> None:
    """Faint dots for the logged values, a line for their running mean within the iteration."""
    for curve in one_after_another(logs, key):
        steps, values = np.array(curve).T
        axes.plot(steps, values, ".", color=colour, alpha=0.35, markersize=4)
        axes.plot(steps, smooth(values), color=colour, linewidth=1.8, label=label or None)
        label = ""  # one entry in the legend is enough


def spans(logs: Mapping[int, Steps]) -> dict[int, tuple[float, float]]:
    """Iteration -> steps done before it, and after it."""
    found: dict[int, tuple[float, float]] = {}
    end: float = 0
    for t, steps in logs.items():
        start, end = end, end + (steps[-1]["step"] if steps else 0)
        found[t] = (start, end)
    return found


def _mark_iterations(axes: Axes, logs: Mapping[int, Steps]) -> None:
    """A thin line where an iteration ends, its number at the top."""
    of = spans(logs)
    for t, (start, end) in of.items():
        if start > 0:
            axes.axvline(start + 0.5, color="#b4bbc1", linewidth=0.8, linestyle=(0, (2, 2)))
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        _note(axes, (start, end), 0.97, f"iteration {t}", va="top", fontsize=8, bbox=box)
    axes.set_xlim(0.5, max(end for _, end in of.values()) + 0.5)
    axes.margins(y=0.18)


def _say_where_alpha_is_0(axes: Axes, logs: Mapping[int, Steps]) -> None:
    without = [t for t, steps in logs.items() if not any("loss/optimism" in s for s in steps)]
    for t in without:
        _note(axes, spans(logs)[t], 0.5, "$\\alpha$ = 0:\nno term", va="center", fontsize=9)
    if len(without) == len(logs):
        axes.set_yticks([])


def _note(axes: Axes, span: tuple[float, float], height: float, text: str, **style: Any) -> None:
    """Write text in the middle of an iteration's steps, at a share of the figure's height."""
    across = axes.get_xaxis_transform()
    axes.text((sum(span) + 1) / 2, height, text, transform=across, ha="center", color=NOTE, **style)
