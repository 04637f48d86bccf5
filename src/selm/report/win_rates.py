"""Every iteration against every other: the matrix of win rates, as the paper's figure 2."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import digits

from selm.markdown import code, table
from selm.report.measures import Benchmarks, Result, half_width, named, of

_AGAINST = re.compile(r"(lc_)?win_rate_vs_(\d+)")
KINDS = {"win_rate_vs_": "win rate", "lc_win_rate_vs_": "length-controlled win rate"}

# (row, column) -> the row's win rate against the column, in percent, and half of its interval.
Cells = dict[tuple[int, int], tuple[float, float | None]]


@dataclass(frozen=True)
class Matrices:
    """The win rates of one benchmark.

    Attributes:
        iterations: on both axes.
        cells: kind of win rate -> its matrix; pairs that were not compared are missing.
    """

    judges: tuple[str, ...]
    iterations: tuple[int, ...]
    cells: dict[str, Cells]


def is_of_matrix(measure: str) -> bool:
    return _AGAINST.fullmatch(measure) is not None


def is_matrix(results: Mapping[int, Result]) -> bool:
    """Whether its first measures are win rates against other iterations."""
    firsts = [next(iter(result["measures"])) for result in results.values() if result["measures"]]
    return bool(firsts) and all(map(is_of_matrix, firsts))


def matrices(benchmarks: Benchmarks) -> Matrices | None:
    """The win rates of the first benchmark that has some; None if there is no such benchmark."""
    results = next((found for found in benchmarks.values() if is_matrix(found)), None)
    if results is None:
        return None
    kinds = {kind: _cells(results, prefix) for prefix, kind in KINDS.items()}
    kinds = {kind: cells for kind, cells in kinds.items() if cells}
    iterations = sorted({t for cells in kinds.values() for pair in cells for t in pair})
    judges = dict.fromkeys(results[t]["judge"] for t in sorted(results))
    return Matrices(tuple(filter(None, judges)), tuple(iterations), kinds) if kinds else None


def _cells(results: Mapping[int, Result], prefix: str) -> Cells:
    """Both triangles: what one side does not win, the other wins.

    >>> half = {"win_rate_vs_0": {"value": 60.0, "standard_error": None}}
    >>> _cells({1: {"measures": half}}, "win_rate_vs_")
    {(1, 0): (60.0, None), (0, 1): (40.0, None)}
    """
    cells: Cells = {}
    for t, result in results.items():
        for name in result["measures"]:
            measure = of(result, name)
            if measure is None or not is_of_matrix(name) or name.rstrip(digits) != prefix:
                continue
            other, half = int(name.removeprefix(prefix)), half_width(measure)
            cells[t, other] = (measure["value"], half)
            cells[other, t] = (100 - measure["value"], half)
    return cells


def sections(benchmarks: Benchmarks) -> list[str]:
    """The picture, and a table for each kind of win rate."""
    found = matrices(benchmarks)
    if found is None:
        return []
    by = f", according to {', '.join(map(code, found.judges))}" if found.judges else ""
    parts = [
        "### Win rates between iterations",
        f"How often the answers of the row win against those of the column, in percent{by}.",
        "![win rates of every iteration against every other](win_rates.png)",
    ]
    for kind, cells in found.cells.items():
        header = [kind, *(f"vs. {named(t)}" for t in found.iterations)]
        rows = [
            [named(row), *(_shown(cells.get((row, column))) for column in found.iterations)]
            for row in found.iterations
        ]
        parts.append(table(header, rows))
    return parts


def _shown(cell: tuple[float, float | None] | None) -> str:
    if cell is None:
        return ""
    value, half = cell
    return f"{value:.1f}" + ("" if half is None else f" ± {half:.1f}")
