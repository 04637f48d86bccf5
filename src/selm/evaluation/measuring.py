"""Measures one policy with one benchmark, and says what was found."""

from typing import Any

from selm.data.parquet import read_rows
from selm.evaluation.base import Measured, Measuring
from selm.evaluation.kinds import BENCHMARKS
from selm.run import artifacts
from selm.run.benchmarks import stages_of
from selm.run.lineage import inputs
from selm.run.plan import Run


def measured(run: Run, name: str, t: int) -> Measured:
    """The benchmark's results for policy t, whose inputs are known to be current."""
    stage = stages_of(name)[-1]
    entries = [entry for entry in inputs(run.recipe, stage, t) if entry[0] != "checkpoint"]
    files = {i: artifacts.folder(run.recipe, of, i) / "test.parquet" for of, i in entries}
    asked = Measuring(
        recipe=run.recipe,
        t=t,
        policy=artifacts.policy_path(run.recipe, t),
        folder=artifacts.partial_folder(run, stage, t),
        what=f"iteration {t}: {name}",
        answers={i: read_rows(path) for i, path in files.items()},
        verdicts=artifacts.verdicts_folder(run.recipe),
    )
    return BENCHMARKS[name].measure(asked)


def results(name: str, t: int, found: Measured) -> dict[str, Any]:
    """The content of results.json."""
    return {
        "benchmark": name,
        "iteration": t,
        "measures": found.measures,
        "n": len({row["prompt_id"] for row in found.rows}),
        "judge": found.judge,
        "notes": list(found.notes),
        "facts": found.facts,
    }


def in_words(found: Measured) -> str:
    """The first measure for a stage's last line: `lc_win_rate 24.31 +- 1.20`."""
    for name, measure in found.measures.items():
        error = measure["standard_error"]
        return f"{name} {measure['value']:.2f}" + ("" if error is None else f" +- {error:.2f}")
    return ""
