"""Tables in the form of the paper's tables 1 and 2: ours, the paper's, and the difference."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from selm.evaluation.base import Measure
from selm.markdown import literal, table
from selm.recipe.schema import Recipe
from selm.report.measures import Benchmarks, headline, of, shown
from selm.report.paper import Paper, Policy, differences, is_regularised

TITLES = {
    "alpaca_eval": "AlpacaEval 2",
    "mt_bench": "MT-Bench",
    "gsm8k": "GSM8K",
    "hellaswag": "HellaSwag",
    "arc_challenge": "ARC-C",
    "truthfulqa": "TruthfulQA",
    "eq_bench": "EQ-Bench",
    "openbookqa": "OpenBookQA",
}
AVERAGE = "average"  # stands in the place of a task's name
NOT_COMPARABLE = "†"


@dataclass(frozen=True)
class Column:
    """One number of each policy; `measure` None is the benchmark's headline."""

    benchmark: str
    measure: str | None
    label: str
    digits: int


CHAT = (
    Column("alpaca_eval", "lc_win_rate", "LC win rate", 2),
    Column("alpaca_eval", "win_rate", "win rate", 2),
    Column("alpaca_eval", "length", "length", 0),
    Column("mt_bench", "average", "average", 2),
    Column("mt_bench", "first_turn", "1st turn", 2),
    Column("mt_bench", "second_turn", "2nd turn", 2),
)
TASKS = tuple(
    Column(name, None, TITLES[name], 1)
    for name in ("gsm8k", "hellaswag", "arc_challenge", "truthfulqa", "eq_bench", "openbookqa")
)


@dataclass(frozen=True)
class View:
    """Everything that the tables read."""

    recipe: Recipe
    benchmarks: Benchmarks
    paper: Paper | None

    def iterations(self, names: Iterable[str]) -> list[int]:
        return sorted({t for name in names for t in self.benchmarks.get(name, {})})

    def label(self, t: int) -> str:
        return "base" if t == 0 else f"{t} ({self.recipe.iteration(t).objective})"

    def judge(self, name: str, t: int) -> str:
        result = self.benchmarks[name].get(t)
        return "" if result is None else result["judge"] or ""

    def present(self, columns: Iterable[Column]) -> list[Column]:
        """The columns of which the run has a number of any policy."""
        return [
            column
            for column in columns
            if any(self.measure(column, t) for t in self.benchmarks.get(column.benchmark, {}))
        ]

    def measure(self, column: Column, t: int) -> Measure | None:
        """A policy's number; the average only where all tasks are there."""
        if column.benchmark == AVERAGE:
            return _average([self.measure(task, t) for task in self.present(TASKS)])
        results = self.benchmarks[column.benchmark]
        return of(results.get(t), column.measure or headline(results))

    def policy(self, t: int) -> Policy | None:
        return None if self.paper is None else self.paper.policy(self.recipe, t)

    def of_paper(self, policy: Policy, column: Column) -> float | None:
        """The paper's number; its average is over the same tasks as ours."""
        if column.benchmark != AVERAGE:
            return policy.value(column.benchmark, column.measure)
        names = [task.benchmark for task in self.present(TASKS)]
        if {*names, AVERAGE} == set(policy.tasks):
            return policy.tasks[AVERAGE]
        values = [policy.tasks[name] for name in names if name in policy.tasks]
        return sum(values) / len(values) if values and len(values) == len(names) else None

    def reasons(self, column: Column, t: int) -> list[str]:
        """Why our number cannot be compared with the paper's; empty if it can."""
        if column.benchmark == AVERAGE:
            return [why for task in self.present(TASKS) for why in self.reasons(task, t)]
        result = self.benchmarks[column.benchmark].get(t)
        if self.paper is None or result is None:
            return []
        of_column = (column.benchmark, column.measure)
        return list(differences(self.paper, self.recipe, t, *of_column, result))


def _average(measures: Sequence[Measure | None]) -> Measure | None:
    """The mean of measures that were taken independently; None if one of them is missing.

    >>> _average([{"value": 40.0, "standard_error": 3.0}, {"value": 60.0, "standard_error": 4.0}])
    {'value': 50.0, 'standard_error': 2.5}
    """
    known = [measure for measure in measures if measure is not None]
    if len(known) < len(measures):
        return None
    errors = [measure["standard_error"] for measure in known]
    error = None if None in errors else math.hypot(*filter(None, errors)) / len(errors)
    return {
        "value": sum(measure["value"] for measure in known) / len(known),
        "standard_error": error,
    }


@dataclass(frozen=True)
class Table:
    title: str
    header: list[str]
    rows: list[list[str]]

    def sections(self) -> list[str]:
        """Its part of report.md; empty without rows."""
        return [f"### {self.title}", table(self.header, self.rows)] if self.rows else []


def like_table_1(view: View) -> Table:
    """AlpacaEval 2 and MT-Bench; the judge stands beside each."""
    columns = view.present(CHAT)
    groups = {
        name: [column for column in columns if column.benchmark == name]
        for name in dict.fromkeys(column.benchmark for column in columns)
    }
    header = ["iteration"]
    for name, group in groups.items():
        titles = [_heading(view, column) for column in group]
        header += [f"{TITLES[name]}: {titles[0]}", *titles[1:], "judge"]
    rows = []
    for label, cells, judges in _rows(view, columns):
        row = [label]
        for name, group in groups.items():
            row += [*(cells[column] for column in group), judges.get(name, "")]
        rows.append(row)
    title = " and ".join(TITLES[name] for name in groups)
    return Table(title, header, rows if columns else [])


def _heading(view: View, column: Column) -> str:
    results = view.benchmarks[column.benchmark].values()
    if column.measure == "lc_win_rate" and not all(map(is_regularised, results)):
        return f"{column.label}, not regularised"
    return column.label


def like_table_2(view: View) -> Table:
    """The academic tasks and their average."""
    columns = view.present(TASKS)
    if len(columns) > 1:
        columns.append(Column(AVERAGE, None, AVERAGE, 1))
    header = ["iteration", *(column.label for column in columns)]
    rows = [[label, *cells.values()] for label, cells, _ in _rows(view, columns)]
    return Table("Academic tasks", header, rows if columns else [])


def _rows(
    view: View, columns: Sequence[Column]
) -> Iterator[tuple[str, dict[Column, str], dict[str, str]]]:
    """For each iteration our numbers, then, where the paper has some, its own and the difference.

    Yields:
        the row's label, a cell for each column, and benchmark -> judge.
    """
    names = [name for name in view.benchmarks if name in {c.benchmark for c in columns}]
    for t in view.iterations(names):
        ours = {column: shown(view.measure(column, t), column.digits) for column in columns}
        yield view.label(t), ours, {name: view.judge(name, t) for name in names}
        policy = view.policy(t)
        if view.paper is None or policy is None:
            continue
        theirs = {column: view.of_paper(policy, column) for column in columns}
        judges = {name: setup.judge or "" for name, setup in view.paper.measured.items()}
        quoted = {
            column: "" if value is None else f"{value:.{column.digits}f}"
            for column, value in theirs.items()
        }
        yield f"paper: {policy.name}", quoted, judges
        yield "difference", {c: _difference(view, t, c, value) for c, value in theirs.items()}, {}


def _difference(view: View, t: int, column: Column, theirs: float | None) -> str:
    ours = view.measure(column, t)
    if ours is None or theirs is None:
        return ""
    mark = NOT_COMPARABLE if view.reasons(column, t) else ""
    return f"{ours['value'] - theirs:+.{column.digits}f}{mark}"


def against_the_paper(view: View) -> list[str]:
    """The part of report.md about the paper: see `sources`."""
    said, reasons = sources(view)
    text = [" ".join(map(literal, said))] if said else []
    items = [f"- {literal(why)}: {literal(', '.join(names))}" for why, names in reasons.items()]
    return [*text, "\n".join(items)] if items else text


def sources(view: View) -> tuple[list[str], dict[str, list[str]]]:
    """Where the paper's numbers are from, and which differences are not comparable, and why.

    Returns:
        sentences, and reason -> the columns that it is about.
    """
    columns = view.present(CHAT + TASKS)
    if view.paper is None or not columns:
        return [], {}
    source = view.paper.source
    if not view.paper.results:
        return [f"{source} has no results for this model."], {}
    compared = [(column, t) for column in columns for t in _compared(view, column)]
    if not compared:
        return [f"{source} has no results for these iterations."], {}
    setups = (view.paper.measured.get(name) for name in view.benchmarks)
    said = [f"The paper's numbers are from {source}."]
    said += [setup.note for setup in setups if setup and setup.note]
    reasons: dict[str, dict[str, None]] = {}  # dicts as sets that keep their order
    for column, t in compared:
        for reason in view.reasons(column, t):
            reasons.setdefault(reason, {})[_full_name(column)] = None
    if not reasons:
        return [*said, "Ours were measured as the paper's, as far as it says."], {}
    said.append(f"A difference marked {NOT_COMPARABLE} is not comparable, for these reasons:")
    return said, {why: list(names) for why, names in reasons.items()}


def _compared(view: View, column: Column) -> list[int]:
    """The iterations of which both we and the paper have this number."""
    policies = {t: view.policy(t) for t in view.benchmarks[column.benchmark]}
    return [
        t
        for t, policy in policies.items()
        if policy is not None
        and view.of_paper(policy, column) is not None
        and view.measure(column, t) is not None
    ]


def _full_name(column: Column) -> str:
    title = TITLES[column.benchmark]
    return title if column.measure is None else f"{title} {column.label}"
