"""Measures of benchmarks as the report reads and shows them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from selm.data.schemas import BenchmarkRow
from selm.evaluation.base import Measure
from selm.report.statistics import Interval, bootstrap_ci95

Result = Mapping[str, Any]  # the content of a results.json
Benchmarks = Mapping[str, Mapping[int, Result]]  # name -> iteration -> result

HALF_WIDTH = 1.96  # of a 95% interval, in standard errors


def named(t: int) -> str:
    return "base" if t == 0 else f"iteration {t}"


def is_number(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def of(result: Result | None, measure: str) -> Measure | None:
    """A policy's measure, if it has it and it is a number."""
    found = None if result is None else result["measures"].get(measure)
    return found if found is not None and is_number(found["value"]) else None


def half_width(measure: Measure) -> float | None:
    """Half of the 95% interval, if the standard error is known."""
    error = measure["standard_error"]
    return HALF_WIDTH * error if error is not None and is_number(error) else None


def shown(measure: Measure | None, digits: int) -> str:
    """The measure with half of its interval.

    >>> shown({"value": 24.25, "standard_error": 1.0}, 1)
    '24.2 ± 2.0'
    """
    if measure is None:
        return ""
    half = half_width(measure)
    return f"{measure['value']:.{digits}f}" + ("" if half is None else f" ± {half:.{digits}f}")


def names_of(results: Mapping[int, Result]) -> list[str]:
    """The names of the measures of all iterations, in order."""
    return list(dict.fromkeys(name for t in sorted(results) for name in results[t]["measures"]))


def headline(results: Mapping[int, Result]) -> str:
    """The first measure of the last iteration that has any; empty if none has."""
    firsts = [next(iter(results[t]["measures"]), "") for t in sorted(results)]
    return next((name for name in reversed(firsts) if name), "")


def headlines(results: Mapping[int, Result]) -> dict[int, Measure]:
    """Iteration -> the headline."""
    found = {t: of(results[t], headline(results)) for t in sorted(results)}
    return {t: measure for t, measure in found.items() if measure is not None}


def paired_ci95(
    later: tuple[Measure, Sequence[BenchmarkRow]], base: tuple[Measure, Sequence[BenchmarkRow]]
) -> Interval | None:
    """The 95% interval of a measure minus the base's, paired by question.

    None unless both have the same questions and both measures are the means of the questions'
    scores, as they are or in percent: a length-controlled win rate, say, is no such mean.
    """
    scores = [_by_question(rows) for _, rows in (later, base)]
    if not scores[0] or scores[0].keys() != scores[1].keys():
        return None
    for scale in (1, 100):
        means = [scale * sum(found.values()) / len(found) for found in scores]
        values = [measure["value"] for measure, _ in (later, base)]
        if all(math.isclose(*pair, abs_tol=1e-4) for pair in zip(means, values, strict=True)):
            return bootstrap_ci95([scale * (scores[0][i] - scores[1][i]) for i in scores[0]])
    return None


def _by_question(rows: Sequence[BenchmarkRow]) -> dict[str, float]:
    """Question -> the mean of the scores of its parts."""
    scores: dict[str, list[float]] = {}
    for row in rows:
        scores.setdefault(row["prompt_id"], []).append(row["score"])
    return {question: sum(found) / len(found) for question, found in scores.items()}
