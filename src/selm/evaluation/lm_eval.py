"""The academic benchmarks, tasks of lm-eval: their descriptions (`lm_eval_run.py` measures).

Prompts, examples and scores are lm-eval's own, so the scores are those of its command line. The
policy answers in the recipe's engine, with the recipe's workers, shard by shard.
"""

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from selm.errors import UserError
from selm.evaluation.base import Benchmark, Measured, Measuring, Workload
from selm.recipe.schema import Recipe

# Characters of a row for each token of its text, which has one answer and no names of columns.
ROW_PER_TOKEN = 15


@dataclass(frozen=True)
class Task:
    """A row of `lm_eval_tasks.yaml`, which explains the fields; `name` is ours."""

    name: str
    task: str
    file: str
    shots: int
    metrics: Mapping[str, str]
    percent: float
    splits: tuple[str, ...]
    columns: tuple[str, ...]
    questions: int
    requests: float
    text_tokens: float
    answer_tokens: float


def _read() -> dict[str, Task]:
    text = Path(__file__).with_name("lm_eval_tasks.yaml").read_text(encoding="utf-8")
    return {name: Task(name=name, **row) for name, row in yaml.safe_load(text).items()}


TASKS = _read()


def check_installed() -> None:
    """UserError if lm-eval is not installed; imports nothing."""
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError(
            "benchmarks.names: lm_eval is not installed; run `make setup`, or "
            "pip install 'selm[lm_eval]'"
        )


def local_files(task: Task, recipe: Recipe) -> dict[str, Path]:
    """Split -> the file with its rows; empty if they come from the Hub.

    Raises:
        UserError: `benchmarks.data` lacks a file that the task reads.
    """
    if recipe.benchmarks.data is None:
        return {}
    folder = Path(recipe.benchmarks.data) / task.name
    found = {split: folder / f"{split}.jsonl" for split in task.splits}
    missing = [path.name for path in found.values() if not path.is_file()]
    if missing:
        raise UserError(
            f"benchmarks.data: {folder} lacks {' and '.join(missing)}; {task.name} wants "
            f"{' and '.join(path.name for path in found.values())} there, with rows as in its "
            "dataset on the Hub"
        )
    return found


def check_rows(task: Task, recipe: Recipe) -> None:
    """UserError for a row of `benchmarks.data` that is no JSON or lacks a column, and for too few
    rows to take the examples from."""
    for split, path in local_files(task, recipe).items():
        rows = _check_lines(task, path)
        wanted = 1 if split == task.splits[-1] else task.shots
        if rows < wanted:
            raise UserError(
                f"benchmarks.data: {path} has {rows} rows; {task.name} needs {wanted} or more"
            )


def _check_lines(task: Task, path: Path) -> int:
    """The number of rows."""
    rows = 0
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode())
        except ValueError as error:
            raise UserError(f"benchmarks.data: {path} line {number}: no JSON ({error})") from error
        held = row if isinstance(row, dict) else {}
        lacking = [column for column in task.columns if held.get(column) is None]
        if lacking:
            raise UserError(
                f"benchmarks.data: {path} line {number}: no column {' and '.join(lacking)}, which "
                f"a question of {task.name} has"
            )
        rows += 1
    return rows


def _files(task: Task, recipe: Recipe) -> Mapping[str, Path]:
    return {f"{task.name}/{path.name}": path for path in local_files(task, recipe).values()}


def _settings(recipe: Recipe) -> Mapping[str, Any]:
    return {"chat_template": recipe.benchmarks.chat_template}


def _check(task: Task, recipe: Recipe) -> None:
    local_files(task, recipe)


def _workload(task: Task, recipe: Recipe) -> Workload:
    questions, text_tokens = task.questions, task.text_tokens
    rows = [_lines(path) for path in local_files(task, recipe).values()]
    if rows:
        questions = len(rows[-1])
    if len(rows) > 1:  # the examples are local, too
        text_tokens = (task.shots * _mean_length(rows[0]) + _mean_length(rows[-1])) / ROW_PER_TOKEN
    questions = min(questions, recipe.benchmarks.limit or questions)
    texts = round(questions * task.requests)
    return Workload(questions, texts, text_tokens, task.answer_tokens)


def _lines(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().splitlines() if line.strip()]


def _mean_length(lines: list[bytes]) -> float:
    return sum(map(len, lines)) / max(len(lines), 1)


def _measure(task: Task, measuring: Measuring) -> Measured:
    check_installed()
    check_rows(task, measuring.recipe)
    from selm.evaluation.lm_eval_run import measure

    return measure(task, measuring)


def _benchmark(task: Task) -> Benchmark:
    return Benchmark(
        revision=1,
        measure=partial(_measure, task),
        workload=partial(_workload, task),
        files=partial(_files, task),
        settings=_settings,
        check=partial(_check, task),
    )


BENCHMARKS_OF_LM_EVAL: dict[str, Benchmark] = {
    name: _benchmark(task) for name, task in TASKS.items()
}
