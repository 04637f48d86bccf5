"""The charts of a comparison's page, as numbers (their kinds: `charts.py`)."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from selm.compare.figures import about
from selm.compare.metrics import Metrics
from selm.compare.paper_figures import alpha_of, by_alpha, rest_of
from selm.compare.rows import to_the_first
from selm.compare.settings import Comparison
from selm.escape import one_line
from selm.report.measures import named
from selm.viewer.answers import number
from selm.viewer.charts import Chart, points_chart, points_series

MOST_SERIES = 4  # in one chart, as many as the page has colours for lines

Setting = Mapping[str, Any]  # an entry of `settings` in compare.json


def charts(comparison: Comparison, metrics: Metrics) -> list[Chart]:
    """Those that the runs have numbers for, the headline first."""
    settings, which = metrics["settings"], about(comparison)
    found = [*_over_iterations(settings, which), _last(settings, which)]
    return [*found, *_differences(metrics, which), *_against_alpha(settings, which)]


def _over_iterations(settings: Sequence[Setting], which: str) -> list[Chart]:
    """A line for each setting; more than four are in several charts with one scale."""
    count = -(-len(settings) // MOST_SERIES)
    bounds = [k * len(settings) // count for k in range(count + 1)]  # none has a line alone
    parts = [settings[a:b] for a, b in pairwise(bounds)]
    iterations = sorted({entry["iteration"] for each in settings for entry in each["iterations"]})
    entries = [entry for each in settings for entry in each["iterations"]]
    values = [entry["reward_mean"] for entry in entries]
    values += [bound for entry in entries for bound in entry["reward_ci95"] or ()]
    scale = [number(min(values)), number(max(values))] if len(parts) > 1 else []
    return [
        points_chart(
            f"rewards-{k}",
            "Held-out reward over iterations" + (f", {k} of {len(parts)}" if scale else ""),
            [named(t) for t in iterations],
            [_line(one_line(each["name"]), each["iterations"], iterations) for each in part],
            note=f"{which}; bars: 95% interval" + ("; all charts have one scale" if scale else ""),
            unit="reward",
            range=scale,
        )
        for k, part in enumerate(parts, start=1)
    ]


def _line(
    name: str, entries: Sequence[Mapping[str, Any]], at: Sequence[Any], key: str = "iteration"
) -> dict[str, Any]:
    """The mean rewards of a line; nothing where it has no entry."""
    of = {entry[key]: entry for entry in entries}
    found = [of.get(each) for each in at]
    values = [entry and entry["reward_mean"] for entry in found]
    return points_series(name, values, [entry and entry["reward_ci95"] for entry in found])


def _last(settings: Sequence[Setting], which: str) -> Chart:
    """All settings below each other, the best first."""
    rows = []
    for each in settings:
        entry = each["iterations"][-1]
        name = f"{one_line(each['name'])}, {named(entry['iteration'])}"
        rows.append(_row(name, entry["reward_mean"], entry["reward_ci95"]))
    rows.sort(key=lambda row: -row["value"])
    note = f"{which}; lines: 95% interval"
    return _forest("last", "Held-out reward after the last iteration", rows, note)


def _differences(metrics: Metrics, which: str) -> list[Chart]:
    settings = metrics["settings"]
    found = to_the_first(metrics["differences"], settings)
    rows = [_row(one_line(name), each.mean, each.ci95) for name, each in found.items()]
    if not rows:
        return []
    title = f"Difference to {one_line(settings[0]['name'])}"
    note = f"{which}, after the last iterations; lines: 95% interval. Above zero is better."
    return [_forest("differences", title, rows, note, even=0)]


def _against_alpha(settings: Sequence[Setting], which: str) -> list[Chart]:
    """A line for each group of settings that differ in alpha alone, at most four of them."""
    groups = by_alpha(settings)
    alphas = sorted({alpha_of(each) for group in groups for each in group})
    lines = [
        _line(
            rest_of(group[0]) or "reward",
            [{"alpha": alpha_of(each)} | each["iterations"][-1] for each in group],
            alphas,
            "alpha",
        )
        for group in groups[:MOST_SERIES]
    ]
    if not lines:
        return []
    note = f"{which}; last iteration; bars: 95% interval"
    if len(groups) > MOST_SERIES:
        note += f"; {MOST_SERIES} of {len(groups)} lines, the table has all"
    x = [f"alpha {alpha:g}" for alpha in alphas]
    return [points_chart("alpha", "Reward against alpha", x, lines, note=note, unit="reward")]


def _row(name: str, value: float, interval: Sequence[float] | None) -> dict[str, Any]:
    low, high = interval or (None, None)
    return {"name": name, "value": number(value), "low": number(low), "high": number(high)}


def _forest(
    ident: str, title: str, rows: Sequence[Any], note: str, even: float | None = None
) -> Chart:
    chart = {"kind": "forest", "id": ident, "title": title, "note": note, "unit": "reward"}
    return chart | {"even": even, "rows": list(rows)}
