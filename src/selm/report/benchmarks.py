"""What the report says of benchmarks: in report.md, in metrics.json and in the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from selm.data.schemas import BenchmarkRow
from selm.escape import one_line
from selm.evaluation.base import Measure
from selm.markdown import code, literal, table
from selm.recipe.schema import Recipe
from selm.report import win_rates
from selm.report.measures import (
    Benchmarks,
    Result,
    headline,
    headlines,
    is_number,
    named,
    names_of,
    of,
    paired_ci95,
    shown,
)
from selm.report.paper import Paper
from selm.report.paper_tables import (
    CHAT,
    TASKS,
    View,
    against_the_paper,
    like_table_1,
    like_table_2,
)
from selm.report.statistics import Interval


def sections(recipe: Recipe, benchmarks: Benchmarks, paper: Paper | None = None) -> list[str]:
    """The part of report.md about benchmarks; empty if there are no results."""
    benchmarks = {name: results for name, results in benchmarks.items() if results}
    if not benchmarks:
        return []
    view = View(recipe, benchmarks, paper)
    picture = "![the headline of each benchmark over iterations](benchmarks.png)"
    return [
        "## Benchmarks",
        "± is half of the 95% interval: 1.96 standard errors. A number without ± has no known "
        "standard error. Numbers are in percent, except EQ-Bench (at most 100), MT-Bench (1 to 10) "
        "and lengths (characters). Judges differ, so a judged number has its judge beside it.",
        *([picture] if charted(benchmarks) else []),
        *like_table_1(view).sections(),
        *like_table_2(view).sections(),
        *against_the_paper(view),
        *_categories(view),
        *win_rates.sections(benchmarks),
        *_other_measures(view),
        *_notes(view),
        "How the held-out rewards move over iterations, as in the paper's figure 3 (right), is in "
        "the picture of their distributions above, `rewards.png`.",
    ]


def entries(
    benchmarks: Benchmarks, rows: Mapping[str, Mapping[int, Sequence[BenchmarkRow]]]
) -> dict[str, list[dict[str, Any]]]:
    """What metrics.json holds of the benchmarks: name -> one entry per iteration.

    `difference_ci95` is of the headline's difference from the first policy; null if it is unknown.

    Args:
        rows: name -> iteration -> the scores of the questions.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for name, results in benchmarks.items():
        differences = _differences(results, rows.get(name, {}))
        for t in sorted(results):
            measures = {key: _json(measure) for key, measure in results[t]["measures"].items()}
            entry = {"iteration": t, "measures": measures, "n": results[t]["n"]}
            entry |= {"judge": results[t]["judge"], "difference_ci95": differences.get(t)}
            found.setdefault(name, []).append(entry)
    return found


def _json(measure: Measure) -> dict[str, float | None]:
    """Null where there is no number, which JSON cannot write otherwise."""
    return {
        "value": measure["value"] if is_number(measure["value"]) else None,
        "standard_error": (
            measure["standard_error"] if is_number(measure["standard_error"]) else None
        ),
    }


def terminal_table(entries: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """The headline of each benchmark for every policy, as lines of aligned columns.

    Args:
        entries: those of metrics.json.

    >>> measures = [{"acc": {"value": v, "standard_error": 1.0}} for v in (20.0, 22.5)]
    >>> policies = [{"iteration": t, "judge": None, "measures": m}
    ...             for t, m in enumerate(measures)]
    >>> policies[1]["difference_ci95"] = [0.5, 4.5]
    >>> print("\\n".join(terminal_table({"gsm8k": policies})))
    95% intervals  base          iteration 1   difference from base
    gsm8k acc      20.00 ± 1.96  22.50 ± 1.96  +2.50 [+0.50, +4.50]
    """
    if not entries:
        return []
    policies = sorted({entry["iteration"] for found in entries.values() for entry in found})
    lines = [["95% intervals", *map(named, policies), f"difference from {named(policies[0])}"]]
    for name, found in entries.items():
        results = {entry["iteration"]: entry for entry in found}
        of_policies = [of(results.get(t), headline(results)) for t in policies]
        values = [shown(measure, 2) for measure in of_policies]
        judge = "".join(f" ({judge})" for judge in _judges(results))
        label = f"{name} {headline(results)}{judge}"
        difference = _difference(results) if policies[0] in headlines(results) else ""
        lines.append([label, *values, difference])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ([cell.ljust(n) for cell, n in zip(line, widths, strict=True)] for line in lines)
    return [one_line("  ".join(cells)).rstrip() for cells in padded]


def _difference(results: Mapping[int, Mapping[str, Any]]) -> str:
    """Of the last policy from the first one."""
    points, last = headlines(results), results[max(results)]
    if len(points) < 2 or max(points) != max(results):
        return ""
    interval = last.get("difference_ci95")
    difference = f"{points[max(points)]['value'] - points[min(points)]['value']:+.2f}"
    return difference + ("" if interval is None else " [{:+.2f}, {:+.2f}]".format(*interval))


def _differences(
    results: Mapping[int, Result], rows: Mapping[int, Sequence[BenchmarkRow]]
) -> dict[int, Interval | None]:
    """Iteration -> 95% interval of its headline minus the first policy's, where it can be had."""
    points = headlines(results)
    first = min(points, default=0)
    return {
        t: paired_ci95((points[t], rows.get(t, [])), (points[first], rows.get(first, [])))
        for t in points
        if t > first
    }


def charted(benchmarks: Benchmarks) -> list[str]:
    """The benchmarks that benchmarks.png shows: all but those that are a matrix of win rates."""
    return [
        name
        for name, results in benchmarks.items()
        if headlines(results) and not win_rates.is_matrix(results)
    ]


def _categories(view: View) -> list[str]:
    """MT-Bench's averages by category."""
    results = view.benchmarks.get("mt_bench", {})
    iterations = sorted(results)
    rows = [
        [category, *_values(results, category, iterations)]
        for category in names_of(results)
        if not _is_in_a_table(view, "mt_bench", category)
    ]
    header = ["category", *map(view.label, iterations)]
    return ["### MT-Bench by category", table(header, rows)] if rows else []


def _other_measures(view: View) -> list[str]:
    """Every measure that stands in no other table."""
    iterations = view.iterations(view.benchmarks)
    rows = [
        [name, measure, *_values(results, measure, iterations), ", ".join(_judges(results))]
        for name, results in view.benchmarks.items()
        if name != "mt_bench"
        for measure in names_of(results)
        if not _is_in_a_table(view, name, measure) and not win_rates.is_of_matrix(measure)
    ]
    header = ["benchmark", "measure", *map(view.label, iterations), "judge"]
    return ["### Other measures", table(header, rows, left=2)] if rows else []


def _values(results: Mapping[int, Result], measure: str, iterations: Sequence[int]) -> list[str]:
    return [shown(of(results.get(t), measure), 2) for t in iterations]


def _is_in_a_table(view: View, name: str, measure: str) -> bool:
    """Whether one of the paper's tables has a column for it."""
    results = view.benchmarks[name]
    own = ((column.benchmark, column.measure or headline(results)) for column in CHAT + TASKS)
    return (name, measure) in own


def _judges(results: Mapping[int, Result]) -> list[str]:
    return [judge for judge in dict.fromkeys(results[t]["judge"] for t in sorted(results)) if judge]


def _notes(view: View) -> list[str]:
    """How many questions, who judged, and what a reader must know; each note once."""
    items = []
    for name, results in view.benchmarks.items():
        judges = ", ".join(map(code, _judges(results)))
        head = f"- {code(name)}: {_questions(results)}" + (
            f", judged by {judges}" if judges else ""
        )
        notes = dict.fromkeys(note for t in sorted(results) for note in results[t]["notes"])
        items.append(" ".join([f"{head}.", *(literal(one_line(note)) for note in notes)]))
    return ["### Notes", "\n".join(items)]


def _questions(results: Mapping[int, Result]) -> str:
    """Their number, by iteration if it is not the same in all.

    >>> _questions({0: {"n": 805}, 1: {"n": 805}}), _questions({0: {"n": 805}, 1: {"n": 804}})
    ('805 questions', '805 (base), 804 (iteration 1) questions')
    """
    by_count: dict[int, list[str]] = {}
    for t in sorted(results):
        by_count.setdefault(results[t]["n"], []).append(named(t))
    if len(by_count) == 1:
        return f"{next(iter(by_count)):,} questions"
    counts = (f"{count:,} ({', '.join(names)})" for count, names in by_count.items())
    return ", ".join(counts) + " questions"
