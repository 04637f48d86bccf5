"""What the report says of benchmarks: in report.md, in metrics.json and in a terminal's line."""

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
        *like_table_1(view),
        *like_table_2(view),
        *against_the_paper(view),
        *_categories(view),
        *win_rates.sections(benchmarks),
        *_other_measures(view),
        *_notes(view),
        "How the held-out rewards move over iterations, as in the paper's figure 3 (right), is in "
        "the picture of their distributions above, `rewards.png`.",
    ]


def entries(benchmarks: Benchmarks) -> dict[str, list[dict[str, Any]]]:
    """What metrics.json holds of the benchmarks: name -> one entry per iteration."""
    return {
        name: [
            {
                "iteration": t,
                "measures": {key: _json(found) for key, found in results[t]["measures"].items()},
                "n": results[t]["n"],
                "judge": results[t]["judge"],
            }
            for t in sorted(results)
        ]
        for name, results in benchmarks.items()
        if results
    }


def _json(measure: Measure) -> dict[str, float | None]:
    """Null where there is no number, which JSON cannot write otherwise."""
    return {
        "value": measure["value"] if is_number(measure["value"]) else None,
        "standard_error": (
            measure["standard_error"] if is_number(measure["standard_error"]) else None
        ),
    }


def in_words(
    benchmarks: Benchmarks, intervals: Mapping[str, Interval | None] | None = None
) -> list[str]:
    """A line per benchmark for the terminal: its headline at the first iteration and the last.

    Args:
        intervals: name -> 95% interval of the last minus the first, where it is known
            (`intervals`).

    >>> values = {t: {"value": v, "standard_error": 1.0} for t, v in ((0, 20.0), (2, 22.5))}
    >>> results = {t: {"measures": {"accuracy": m}, "judge": None} for t, m in values.items()}
    >>> in_words({"gsm8k": results})
    ['gsm8k accuracy: 20.00 (base) -> 22.50 (iteration 2)']
    """
    lines = []
    for name, results in benchmarks.items():
        points = headlines(results)
        if not points:
            continue
        ends = dict.fromkeys([min(points), max(points)])
        values = " -> ".join(f"{points[t]['value']:.2f} ({named(t)})" for t in ends)
        interval, judge = (intervals or {}).get(name), results[max(points)]["judge"]
        difference = ""
        if interval is not None and len(ends) > 1:
            difference = ", 95% interval of the difference [{:+.2f}, {:+.2f}]".format(*interval)
        by = f", according to {judge}" if judge else ""
        lines.append(one_line(f"{name} {headline(results)}: {values}{difference}{by}"))
    return lines


def intervals(
    benchmarks: Benchmarks, rows: Mapping[str, Mapping[int, Sequence[BenchmarkRow]]]
) -> dict[str, Interval | None]:
    """Name -> 95% interval of the headline's last value minus its first, where it can be had.

    Args:
        rows: name -> iteration -> the scores of the questions.
    """
    found: dict[str, Interval | None] = {}
    for name, results in benchmarks.items():
        points = headlines(results)
        if len(points) > 1:
            ends = ((points[t], rows[name][t]) for t in (max(points), min(points)))
            found[name] = paired_ci95(*ends)
    return found


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
