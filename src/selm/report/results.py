"""The outputs of a run's stages that the report reads."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selm.data.parquet import read_rows
from selm.data.schemas import BenchmarkRow, EvaluationRow, PreferenceRow, ResponseRow
from selm.ranking.base import Candidate, Pool, Said
from selm.ranking.kinds import said_of
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
        responses: t -> the rows that were ranked.
        preferences: t -> the pairs that were made of them.
        said: t -> prompt_id -> what judges said of the held-out answer and the base model's.
    """

    evaluations: dict[int, list[EvaluationRow]]
    roles: dict[int, Counter[str]]
    logs: dict[int, list[dict[str, float]]]
    manifests: dict[tuple[str, int], dict[str, Any]]
    benchmarks: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    benchmark_rows: dict[str, dict[int, list[BenchmarkRow]]] = field(default_factory=dict)
    responses: dict[int, list[ResponseRow]] = field(default_factory=dict)
    preferences: dict[int, list[PreferenceRow]] = field(default_factory=dict)
    said: dict[int, dict[str, list[Said]]] = field(default_factory=dict)

    @property
    def summaries(self) -> dict[int, dict[str, Any]]:
        """t -> the summary of its ranking (`selm.ranking.summary`); empty if nothing was ranked."""
        manifests = self.manifests.items()
        return {t: found["summary"] for (stage, t), found in manifests if stage == "preferences"}


def load(recipe: Recipe, done: Sequence[tuple[str, int]] | None = None) -> Results:
    """Read the outputs of the stages, which are known to exist.

    Args:
        done: of an unfinished run, the stages up to an evaluation.
    """
    if done is None:
        done = [(stage, t) for stage, t in stages(recipe) if t is not None]
    finished = artifacts.finished_benchmarks(recipe)

    def read(stage: str, name: str, how: Callable[[Path], Any]) -> dict[int, Any]:
        return {t: how(artifacts.file(recipe, stage, t, name)) for of, t in done if of == stage}

    evaluations = read("evaluation", "test.parquet", read_rows)
    preferences = read("preferences", "train.parquet", read_rows)
    return Results(
        evaluations=evaluations,
        roles={t: _roles(rows) for t, rows in preferences.items()},
        logs=read("checkpoint", "training_log.json", _log),
        manifests={entry: artifacts.read_manifest(recipe, *entry) for entry in done},
        benchmarks=_of_benchmarks(recipe, finished, "results.json", _json),
        benchmark_rows=_of_benchmarks(recipe, finished, "test.parquet", read_rows),
        responses=read("responses", "train.parquet", read_rows),
        preferences=preferences,
        said=_said(recipe, evaluations),
    )


def _said(
    recipe: Recipe, evaluations: dict[int, list[EvaluationRow]]
) -> dict[int, dict[str, list[Said]]]:
    """What is kept of judges' words about held-out answers; nothing if no judge was asked.

    The base model's own answers are compared with themselves, of which nobody is asked.
    """
    ranking, verdicts = recipe.held_out_ranking(), artifacts.verdicts_folder(recipe)
    base = {row["prompt_id"]: row["response"] for row in evaluations[0]}
    found: dict[int, dict[str, list[Said]]] = {}
    for t, rows in evaluations.items():
        pools = [
            Pool(
                row["prompt_id"],
                row["prompt"],
                [
                    Candidate(row["response"], "policy"),
                    Candidate(base[row["prompt_id"]], "base"),
                ],
            )
            for row in rows
            if t > 0 and row["prompt_id"] in base
        ]
        said = said_of(ranking, pools, verdicts)
        found[t] = {pool.prompt_id: each for pool, each in zip(pools, said, strict=True) if each}
    return {t: of_prompts for t, of_prompts in found.items() if of_prompts}


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


def _roles(rows: Sequence[PreferenceRow]) -> Counter[str]:
    return Counter(row["explored_role"] for row in rows)


def _log(path: Path) -> list[dict[str, float]]:
    return training_steps(_json(path))


def training_steps(log_history: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """The entries of single steps; the Trainer's closing summary has no `loss`.

    Without the optimism term (alpha = 0) the loss is DPO's.

    >>> training_steps([{"step": 1, "loss": 0.7}, {"step": 1, "train_runtime": 9.0}])
    [{'loss/dpo': 0.7, 'step': 1, 'loss': 0.7}]
    """
    return [{"loss/dpo": entry["loss"], **entry} for entry in log_history if "loss" in entry]
