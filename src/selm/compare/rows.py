"""Figures with a row for each setting: the bars of a grid, and differences to the first setting."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import pyplot as plt

from selm.compare.looks import Setting, ends, height_of_rows, label, looks, rows_of
from selm.report.measures import named
from selm.report.style import BASE, INK, NOTE, titled


def grid(settings: Sequence[Setting], which: str) -> Any:
    """Bars of the last iteration's mean, the best one first, from the base model's mean on.

    A bar from zero would hide differences that are small beside the reward itself.
    """
    lasts = {setting["name"]: setting["iterations"][-1] for setting in settings}
    order = sorted(lasts, key=lambda name: -lasts[name]["reward_mean"])
    first, styles = settings[0]["name"], looks(list(lasts))
    base = settings[0]["iterations"][0]
    start = base["reward_mean"] if base["iteration"] == 0 else 0.0
    figure, axes = plt.subplots(figsize=(8.4, height_of_rows(order)))
    for row, name in enumerate(order):
        value = lasts[name]["reward_mean"]
        axes.barh(row, value - start, left=start, height=0.56, color=styles[name].colour, alpha=0.8)
        bar = ends(lasts[name], "reward_mean", "reward_ci95")
        axes.plot(bar, [row, row], color="white", linewidth=3.4, label="_halo")
        axes.plot(bar, [row, row], color=INK, linewidth=1.6, label="_interval")
    axes.axvline(start, color=BASE, linewidth=1)
    line = lasts[first]["reward_mean"]
    axes.axvline(line, color=INK, linewidth=1.2, linestyle=(0, (3, 2)), label="reference")
    differ = len({entry["iteration"] for entry in lasts.values()}) > 1
    notes = [_number(lasts[name], differ) for name in order]
    rows_of(axes, order, notes)
    axes.margins(x=0.06)
    axes.set_xlabel("mean held-out reward")
    from_base = "bars start at the base model's mean" if base["iteration"] == 0 else which
    subtitle = f"{which}; {from_base}; dashes: {label(first, 30, lines=1)}"
    titled(figure, "Held-out reward after the last iteration", subtitle)
    return figure


def _number(entry: Mapping[str, Any], which: bool) -> str:
    return f"{entry['reward_mean']:.3f}" + (f"  {named(entry['iteration'])}" if which else "")


def to_the_first(
    found: Sequence[Mapping[str, Any]], settings: Sequence[Setting]
) -> dict[str, tuple[int, float, list[float]]]:
    """Setting -> iteration, mean and interval of setting minus the first one.

    Of several iterations the last counts. A difference that was taken the other way is turned.
    """
    first = settings[0]["name"]
    result: dict[str, tuple[int, float, list[float]]] = {}
    for entry in sorted(found, key=lambda entry: entry["iteration"]):
        interval = entry["ci95"] or [entry["mean"]] * 2
        if entry["b"] == first:
            result[entry["a"]] = (entry["iteration"], entry["mean"], list(interval))
        elif entry["a"] == first:
            turned = [-bound for bound in reversed(interval)]
            result[entry["b"]] = (entry["iteration"], -entry["mean"], turned)
    names = [setting["name"] for setting in settings]
    return {name: result[name] for name in names if name in result}


def differences(
    found: Sequence[Mapping[str, Any]], settings: Sequence[Setting], which: str
) -> Any | None:
    """A row for each setting: its difference to the first one, and a line at zero."""
    rows = to_the_first(found, settings)
    if not rows:
        return None
    styles = looks([setting["name"] for setting in settings])
    figure, axes = plt.subplots(figsize=(8.4, height_of_rows(list(rows))))
    axes.axvline(0, color=INK, linewidth=1.2, zorder=1, label="zero")
    for row, (name, (_, mean, interval)) in enumerate(rows.items()):
        shows = interval[0] > 0 or interval[1] < 0
        colour = styles[name].colour if shows else NOTE
        axes.plot(interval, [row, row], color=colour, linewidth=2.2, label="_interval")
        axes.plot(
            mean, row, "o", markersize=8, color=colour if shows else "white",
            markeredgecolor=colour, markeredgewidth=1.8, label=name,
        )  # fmt: skip
    rows_of(axes, list(rows), [_signed(mean, interval) for _, mean, interval in rows.values()])
    reach = max(abs(x) for _, mean, interval in rows.values() for x in (mean, *interval)) or 1.0
    axes.set_xlim(-1.1 * reach, 1.1 * reach)
    axes.set_xlabel("difference of the mean held-out reward")
    t = {iteration for iteration, _, _ in rows.values()}
    after = f"after {named(t.pop())}" if len(t) == 1 else "after the last common iteration"
    first = label(settings[0]["name"], 40, lines=1)
    subtitle = f"{which}, {after}; 95% interval; hollow: contains zero"
    titled(figure, f"Difference to {first}", subtitle)
    return figure


def _signed(mean: float, interval: Sequence[float]) -> str:
    return f"{mean:+.3f}  [{interval[0]:+.3f}, {interval[1]:+.3f}]"
