"""The outputs of a run's stages that the report reads."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selm.data.parquet import read_rows
from selm.data.schemas import BenchmarkRow, EvaluationRow
from selm.recipe.schema import Recipe
from selm.run import artifacts
from selm.run.stages import benchmark_of, stages


@dataclass(frozen=True)
class Results:
    """Everything in a run that the report reads.

    Attributes:
        evaluations: t -> rows; t = 0 is the base model.
        roles: t -> how often the explored response was `chosen`, `rejected`, `neither`.
        logs: t -> the trainer's log, one dict per logged step.
        manifests: (stage, t) -> manifest, in the order of the plan.
        benchmarks: name -> t -> the content of results.json, for the benchmarks that were run.
        benchmark_rows: name -> t -> the scores of their questions.
    """

    evaluations: dict[int, list[EvaluationRow]]
    roles: dict[int, Counter[str]]
    logs: dict[int, list[dict[str, float]]]
    manifests: dict[tuple[str, int], dict[str, Any]]
    benchmarks: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    benchmark_rows: dict[str, dict[int, list[BenchmarkRow]]] = field(default_factory=dict)

    @property
    def summaries(self) -> dict[int, dict[str, Any]]:
        """t -> the summary of its ranking (`selm.ranking.summary`); empty if nothing was ranked."""
        manifests = self.manifests.items()
        return {t: found["summary"] for (stage, t), found in manifests if stage == "preferences"}


def load(recipe: Recipe) -> Results:
    """Read the outputs of the stages, which are known to exist."""
    done = [(stage, t) for stage, t in stages(recipe) if t is not None]

    finished = artifacts.finished_benchmarks(recipe)

    def read(stage: str, name: str, how: Callable[[Path], Any]) -> dict[int, Any]:
        return {t: how(artifacts.file(recipe, stage, t, name)) for of, t in done if of == stage}

    return Results(
        evaluations=read("evaluation", "test.parquet", read_rows),
        roles=read("preferences", "train.parquet", _roles),
        logs=read("checkpoint", "training_log.json", _log),
        manifests={entry: artifacts.read_manifest(recipe, *entry) for entry in done},
        benchmarks=_of_benchmarks(recipe, finished, "results.json", _json),
        benchmark_rows=_of_benchmarks(recipe, finished, "test.parquet", read_rows),
    )


def _of_benchmarks(
    recipe: Recipe, entries: Sequence[tuple[str, int]], file: str, how: Callable[[Path], Any]
) -> dict[str, dict[int, Any]]:
    """Name -> t -> a file of its results."""
    found: dict[str, dict[int, Any]] = {}
    for stage, t in entries:
        of_name = found.setdefault(str(benchmark_of(stage)), {})
        of_name[t] = how(artifacts.file(recipe, stage, t, file))
    return found


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _roles(path: Path) -> Counter[str]:
    return Counter(row["explored_role"] for row in read_rows(path))


def _log(path: Path) -> list[dict[str, float]]:
    return training_steps(_json(path))


def training_steps(log_history: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """The entries of single steps; the Trainer's closing summary has no `loss`.

    Without the optimism term (alpha = 0) the loss is DPO's.

    >>> training_steps([{"step": 1, "loss": 0.7}, {"step": 1, "train_runtime": 9.0}])
    [{'loss/dpo': 0.7, 'step': 1, 'loss': 0.7}]
    """
    return [{"loss/dpo": entry["loss"], **entry} for entry in log_history if "loss" in entry]
