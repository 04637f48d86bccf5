"""Runs a task of lm-eval on a policy."""

import glob
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval
import yaml
from datasets.exceptions import DatasetNotFoundError
from httpx2 import HTTPError
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.tasks import TaskManager
from lm_eval.utils import hash_string

from selm.data.schemas import BenchmarkRow
from selm.errors import UserError
from selm.evaluation.base import Measure, Measured, Measuring
from selm.evaluation.lm_eval import Task, local_files
from selm.evaluation.lm_eval_requests import Shards
from selm.recipe.schema import Recipe
from selm.run import temporary

DEFINITIONS = Path(lm_eval.__file__).parent / "tasks"

# Without the network, or with a Hub that has no such dataset (for us).
UNREACHABLE = (
    *(ConnectionError, TimeoutError, HTTPError, HfHubHTTPError, LocalEntryNotFoundError),
    DatasetNotFoundError,
)


def measure(task: Task, measuring: Measuring) -> Measured:
    """The scores of lm-eval's command line, with lm-eval's own seed for the examples."""
    settings = measuring.recipe.benchmarks
    model = Shards(measuring)
    measuring.folder.mkdir(parents=True, exist_ok=True)
    with temporary.folder(str(measuring.folder)) as scratch, _quiet():
        loaded = _load(task, measuring.recipe, Path(scratch))
        _prepare(task, loaded)
        results = lm_eval.evaluate(
            model,
            loaded,
            limit=settings.limit,
            apply_chat_template=settings.chat_template,
            fewshot_as_multiturn=True,
        )
    samples = results["samples"][task.task]
    return Measured(
        measures=_measures(task, results["results"][task.task]),
        rows=[_row(task, sample) for sample in _of_headline(task, samples)],
        notes=_notes(measuring.recipe, results["n-samples"][task.task], model),
        tokens=model.tokens,
        facts=_facts(task, results, samples),
    )


def _load(task: Task, recipe: Recipe, scratch: Path) -> Any:
    """lm-eval's task with its dataset; `scratch` holds what that takes on the disk."""
    # Its index of all tasks takes many seconds, so the definition is named by its file.
    load = TaskManager(include_defaults=False).load
    files = local_files(task, recipe)
    if files:
        with _rows_to_blame(task, files):
            loaded = load([str(_with_rows(task, files, scratch))])
            _prepare(task, loaded)
            loaded["tasks"][task.task].build_all_requests(limit=recipe.benchmarks.limit)
        return loaded
    try:
        return load([str(DEFINITIONS / task.file)])
    except UNREACHABLE as error:
        raise UserError(
            f"benchmarks.data: the questions of {task.name} cannot be read from the Hub "
            f"({_first_line(error)}); without a network set it to a folder that has "
            + " and ".join(f"{task.name}/{split}.jsonl" for split in task.splits)
        ) from error


@contextmanager
def _rows_to_blame(task: Task, files: Mapping[str, Path]) -> Iterator[None]:
    """One line for rows that lm-eval cannot read; templates raise all kinds of errors for them."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"benchmarks.data: the rows of {files[task.splits[-1]].parent} are not of the form "
            f"that {task.name} has on the Hub: {_first_line(error.__cause__ or error)}"
        ) from error


def _prepare(task: Task, loaded: Any) -> None:
    """As `lm_eval run --num_fewshot` does; the examples are drawn from here on."""
    loaded["tasks"][task.task].set_config("num_fewshot", task.shots)
    loaded["tasks"][task.task].set_fewshot_seed(DEFAULT_OTHER_SEED)


def _with_rows(task: Task, files: Mapping[str, Path], scratch: Path) -> Path:
    """lm-eval's own definition with these rows as its dataset."""
    patterns = {split: glob.escape(str(path.resolve())) for split, path in files.items()}
    changed = {
        "include": str(DEFINITIONS / task.file),
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": patterns, "cache_dir": str(scratch / "cache")},
    }
    path = scratch / "task.yaml"
    path.write_text(yaml.safe_dump(changed), encoding="utf-8")
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of what lm-eval and datasets print; `Shards` shows what takes time."""
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
    ):
        yield


def _measures(task: Task, found: Mapping[str, Any]) -> dict[str, Measure]:
    """In percent. lm-eval's standard error is "N/A" where there is one question only."""
    measures: dict[str, Measure] = {}
    for name, key in task.metrics.items():
        metric, _, chosen = key.partition(",")
        error = found[f"{metric}_stderr,{chosen}"]
        known = isinstance(error, float)
        measures[name] = {
            "value": float(found[key]) * task.percent,
            "standard_error": error * task.percent if known else None,
        }
    return measures


def _of_headline(task: Task, samples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """There is a sample for each question and filter."""
    chosen = _headline(task)[1]
    return [sample for sample in samples if sample["filter"] == chosen]


def _headline(task: Task) -> tuple[str, str]:
    """Metric and filter of the first measure."""
    metric, _, chosen = next(iter(task.metrics.values())).partition(",")
    return metric, chosen


def _row(task: Task, sample: Mapping[str, Any]) -> BenchmarkRow:
    details = {
        "metrics": {name: float(sample[name]) for name in sample["metrics"]},
        "target": sample["target"],
        "replies": [replies[0] for replies in sample["resps"]],
        "read": sample["filtered_resps"],
        **{name: sample[name] for name in ("doc_hash", "prompt_hash", "target_hash")},
    }
    return {
        "prompt_id": str(sample["doc_id"]),
        "part": "",
        "score": float(sample[_headline(task)[0]]) * task.percent,
        "details": json.dumps(details, ensure_ascii=False),
    }


def _notes(recipe: Recipe, counts: Mapping[str, int], model: Shards) -> list[str]:
    notes = []
    if recipe.benchmarks.data is not None:
        notes.append("Its questions are those of benchmarks.data, not the published ones.")
    if counts["effective"] < counts["original"]:
        notes.append(f"Asked the first {counts['effective']} of {counts['original']} questions.")
    if recipe.benchmarks.chat_template:
        notes.append("Questions and examples are turns of a chat, in the model's template.")
    if model.cut:
        notes.append(f"{model.cut} prompts did not fit the model's context: they lost the start.")
    return notes


def _facts(task: Task, results: Mapping[str, Any], samples: Sequence[Any]) -> dict[str, Any]:
    """`samples_hash` is what lm-eval's command line writes as `task_hashes`."""
    hashes = [
        sample["doc_hash"] + sample["prompt_hash"] + sample["target_hash"] for sample in samples
    ]
    return {
        "task": task.task,
        "task_version": results["versions"][task.task],
        "shots": results["n-shot"][task.task],
        "metric": next(iter(task.metrics.values())),
        "questions": dict(results["n-samples"][task.task]),
        "samples_hash": hash_string("".join(hashes)),
        "few_shot_seed": DEFAULT_OTHER_SEED,
        "lm_eval": version("lm_eval"),
    }


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
