"""Figures with a row for each setting: the bars of a grid, and differences to the first setting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Difference:
    """A setting's mean reward minus that of the first one; `ci95` is None where it is unknown."""

    mean: float
    ci95: list[float] | None
    iterations: frozenset[int]

    @property
    def shown(self) -> bool:
        """Whether the data show that there is one."""
        return self.ci95 is not None and (self.ci95[0] > 0 or self.ci95[1] < 0)


def to_the_first(
    found: Sequence[Mapping[str, Any]], settings: Sequence[Setting]
) -> dict[str, Difference]:
    """Setting -> its difference to the first one, in the order of the settings.

    Of several iterations the last counts, and a difference that was taken the other way is turned.
    """
    first = settings[0]["name"]
    result: dict[str, Difference] = {}
    for entry in sorted(found, key=lambda entry: entry["iteration"]):
        ends = frozenset({entry["iteration"], entry.get("iteration_of_b", entry["iteration"])})
        mean, ci95 = entry["mean"], entry["ci95"]
        if entry["b"] == first:
            result[entry["a"]] = Difference(mean, ci95, ends)
        elif entry["a"] == first:
            turned = None if ci95 is None else [-ci95[1], -ci95[0]]
            result[entry["b"]] = Difference(-mean, turned, ends)
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
    for row, (name, each) in enumerate(rows.items()):
        colour = styles[name].colour if each.shown else NOTE
        if each.ci95 is not None:
            axes.plot(each.ci95, [row, row], color=colour, linewidth=2.2, label="_interval")
        axes.plot(
            each.mean, row, "o", markersize=8, color=colour if each.shown else "white",
            markeredgecolor=colour, markeredgewidth=1.8, label=name,
        )  # fmt: skip
    rows_of(axes, list(rows), [_signed(each) for each in rows.values()])
    reach = max(abs(x) for each in rows.values() for x in (each.mean, *(each.ci95 or ()))) or 1.0
    axes.set_xlim(-1.1 * reach, 1.1 * reach)
    axes.set_xlabel("difference of the mean held-out reward")
    iterations = frozenset.union(*(each.iterations for each in rows.values()))
    after = named(max(iterations)) if len(iterations) == 1 else "the last iterations"
    subtitle = f"{which}, after {after}; 95% interval; hollow: not shown to differ"
    titled(figure, f"Difference to {label(settings[0]['name'], 40, lines=1)}", subtitle)
    return figure


def _signed(each: Difference) -> str:
    bounds = "" if each.ci95 is None else f"  [{each.ci95[0]:+.3f}, {each.ci95[1]:+.3f}]"
    return f"{each.mean:+.3f}{bounds}"
