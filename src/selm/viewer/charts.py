"""The charts of the page, as numbers; the page's own scripts draw them (`static/chart*.js`).

Every chart has {kind, id, title, note}. Beside these:

    points      {x: labels, unit, even, series: [{name, values, low, high, dashed}]}, low and high
                are the bounds of the 95% interval or null; `dashed` is of the paper's numbers;
                `even` is the value at which two policies are alike, or null; `range` are values
                that the axis also holds, where several charts have the same
    forest      {unit, even, rows: [{name, value, low, high}]}, below each other
    histogram   {unit, edges, series: [{name, shares, mean}]}, shares in percent, the first is the
                base model's, whose outline the others have
    boxes       {x: labels, unit, series: [{name, boxes}]}, a box is five quantiles or null
    matrix      {labels, cells, half}, of the row against the column in percent
    curves      {unit, marks: [{at, label}], series: [{name, x, y}]}, of training: x are optimizer
                steps over all iterations, `at` is the first step of an iteration
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from selm.report import win_rates
from selm.report.benchmarks import charted
from selm.report.figures import SOURCES, Steps, spans
from selm.report.measures import half_width, headline, headlines, named
from selm.report.metrics import Metrics
from selm.report.paper_tables import TITLES, View
from selm.report.results import Results
from selm.viewer.answers import number
from selm.viewer.limits import spread

Chart = dict[str, Any]
BINS = 24
MOST_POINTS = 1500  # of a curve in one iteration; a screen has no more columns

CURVES = (
    ("loss", "Preference loss", {"loss/dpo": "preference loss"}),
    ("optimism", "Optimism term of the loss", {"loss/optimism": "optimism term"}),
    (
        "rewards",
        "Implicit reward, β (log π - log π_ref)",
        {
            "rewards/chosen": "chosen",
            "rewards/rejected": "rejected",
            "rewards/explored": "explored",
        },
    ),
    ("accuracy", "Share of pairs in the right order", {"rewards/accuracies": "accuracy"}),
    (
        "logps",
        "Log-probability of the answers",
        {"logps/chosen": "chosen", "logps/rejected": "rejected", "logps/explored": "explored"},
    ),
    ("gradient", "Norm of the gradient", {"grad_norm": "norm"}),
    ("rate", "Learning rate", {"learning_rate": "learning rate"}),
)


def overview(metrics: Metrics, results: Results, view: View) -> list[Chart]:
    """The charts of the first view, the headline first."""
    entries, rows = metrics["iterations"], results.evaluations
    rewards = {t: [row["reward"] for row in rows[t]] for t in rows}
    lengths = {t: [float(row["num_tokens"]) for row in rows[t]] for t in rows}
    found = [_reward(entries), *_against_base(entries), *_benchmarks(view)]
    found += _matrices(view)
    if results.summaries:
        found.append(_scores(results.summaries))
    return [
        *found,
        _histogram("rewards", "Rewards", "reward", rewards),
        _histogram("lengths", "Lengths of answers", "tokens", lengths),
    ]


def points_chart(
    ident: str, title: str, x: Sequence[str], series: Sequence[Mapping[str, Any]], **more: Any
) -> Chart:
    chart = {"kind": "points", "id": ident, "title": title, "x": list(x), "note": "", "unit": ""}
    return chart | {"even": None, "series": list(series)} | more


def points_series(
    name: str,
    values: Sequence[float | None],
    bounds: Sequence[Sequence[float] | None] = (),
    dashed: bool = False,
) -> dict[str, Any]:
    intervals = list(bounds) or [None] * len(values)
    return {
        "name": name,
        "values": [number(value) for value in values],
        "low": [None if each is None else number(each[0]) for each in intervals],
        "high": [None if each is None else number(each[1]) for each in intervals],
        "dashed": dashed,
    }


def _reward(entries: Sequence[Metrics]) -> Chart:
    means = [entry["reward_mean"] for entry in entries]
    bounds = [entry["reward_ci95"] for entry in entries]
    note = f"{entries[0]['n']} held-out prompts, greedy answers; bars: 95% bootstrap interval."
    x = [named(entry["iteration"]) for entry in entries]
    series = [points_series("reward", means, bounds)]
    return points_chart("reward", "Mean held-out reward", x, series, note=note, unit="reward")


def _against_base(entries: Sequence[Metrics]) -> list[Chart]:
    later = [entry for entry in entries if entry["iteration"] > 0]
    x = [named(entry["iteration"]) for entry in later]
    differences = points_series(
        "difference",
        [entry["paired_difference_vs_base"] for entry in later],
        [entry["paired_difference_ci95"] for entry in later],
    )
    rates = points_series("win rate", [100 * entry["win_rate_vs_base"] for entry in later])
    return [
        points_chart(
            "difference",
            "Difference from the base model",
            x,
            [differences],
            note="Of the same prompt's rewards; above zero is better. Bars: 95% interval.",
            unit="reward",
            even=0,
        ),
        points_chart(
            "win-rate",
            "Win rate against the base model",
            x,
            [rates],
            note="Share of prompts with a higher reward; a tie is half a win.",
            unit="%",
            even=50,
        ),
    ]


def _benchmarks(view: View) -> list[Chart]:
    """The headline of each benchmark, and the paper's number where it has one."""
    found = []
    for name in charted(view.benchmarks):
        results = view.benchmarks[name]
        measure, points = headline(results), headlines(results)
        halves = {t: half_width(point) for t, point in points.items()}
        values = [point["value"] for point in points.values()]
        bounds = [
            None if (half := halves[t]) is None else (point["value"] - half, point["value"] + half)
            for t, point in points.items()
        ]
        series = [points_series("this run", values, bounds)]
        theirs = [
            None if (policy := view.policy(t)) is None else policy.value(name, measure)
            for t in points
        ]
        if any(value is not None for value in theirs):
            series.append(points_series("the paper", theirs, dashed=True))
        judges = dict.fromkeys(filter(None, (results[t]["judge"] for t in points)))
        note = f"{measure}{''.join(f', judged by {judge}' for judge in judges)}"
        x = [named(t) for t in points]
        title = TITLES.get(name, name)
        found.append(points_chart(f"benchmark-{name}", title, x, series, note=note, unit=measure))
    return found


def _histogram(ident: str, title: str, unit: str, values: Mapping[int, Sequence[float]]) -> Chart:
    """Shares of prompts in the same bins for every policy."""
    kept = {t: [v for v in of if np.isfinite(v)] for t, of in values.items()}
    low = min((min(of) for of in kept.values() if of), default=0.0)
    high = max((max(of) for of in kept.values() if of), default=1.0)
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    series = []
    for t, of in kept.items():
        counts, _ = np.histogram(of, edges)
        shares = [number(100 * count / max(len(of), 1), 2) for count in counts]
        mean = number(float(np.mean(of))) if of else None
        series.append({"name": named(t), "shares": shares, "mean": mean})
    note = "Share of held-out prompts; outline: the base model; dashes: the mean."
    return {
        "kind": "histogram",
        "id": ident,
        "title": title,
        "note": note,
        "unit": unit,
        "edges": [number(float(edge)) for edge in edges],
        "series": series,
    }


def _scores(summaries: Mapping[int, Mapping[str, Any]]) -> Chart:
    series = [
        {"name": label, "boxes": [found["scores"].get(source) for found in summaries.values()]}
        for source, (_, label) in SOURCES.items()
        if any(source in found["scores"] for found in summaries.values())
    ]
    return {
        "kind": "boxes",
        "id": "scores",
        "title": "The ranker's scores of training answers",
        "note": "Boxes: half of the scores; line: the median; whiskers: 90%.",
        "unit": "score",
        "x": [named(t) for t in summaries],
        "series": series,
    }


def _matrices(view: View) -> list[Chart]:
    found = win_rates.matrices(view.benchmarks)
    if found is None:
        return []
    pairs = [[(row, column) for column in found.iterations] for row in found.iterations]
    by = f" Judged by {', '.join(found.judges)}." if found.judges else ""
    return [
        {
            "kind": "matrix",
            "id": f"matrix-{k}",
            "title": f"{kind[0].upper()}{kind[1:]} between iterations",
            "note": f"How often the row's answers win against the column's, in percent.{by}",
            "labels": [named(t) for t in found.iterations],
            "cells": [[number(cells.get(p, (None, None))[0], 2) for p in row] for row in pairs],
            "half": [[number(cells.get(p, (None, None))[1], 2) for p in row] for row in pairs],
        }
        for k, (kind, cells) in enumerate(found.cells.items())
    ]


def training(logs: Mapping[int, Steps]) -> list[Chart]:
    """The curves that were logged; steps are counted over all iterations."""
    marks = [{"at": start, "label": named(t)} for t, (start, _) in spans(logs).items()]
    found = []
    for ident, title, keys in CURVES:
        series = [_curve(logs, key, name) for key, name in keys.items()]
        series = [curve for curve in series if any(value is not None for value in curve["y"])]
        if series:
            chart = {"kind": "curves", "id": ident, "title": title, "note": "", "unit": "step"}
            found.append(chart | {"marks": marks, "series": series})
    return found


def _curve(logs: Mapping[int, Steps], key: str, name: str) -> dict[str, Any]:
    """One curve over all iterations; a null between two of them, where the line breaks."""
    x: list[float] = []
    y: list[float | None] = []
    for t, (start, _) in spans(logs).items():
        steps = spread([step for step in logs[t] if key in step], MOST_POINTS)
        if x and steps:
            x.append(start)
            y.append(None)
        x += [start + step["step"] for step in steps]
        y += [number(step[key], 9) for step in steps]
    return {"name": name, "x": x, "y": y}
