"""Data as users have them, good and bad, through the real stages."""

import json
from pathlib import Path
from typing import Any

import pytest

from selm.data.parquet import read_rows
from selm.run import artifacts

pytestmark = pytest.mark.slow

ONE_ITERATION = "iterations=[{objective: selm, learning_rate: 1e-4}]"


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return f"data.name_or_path={path}"


def test_one_file_of_pairs_runs_through(project, tmp_path: Path) -> None:
    """TRL's plain form in a single file: its last tenth is held out."""
    rows = [
        {"prompt": f"Question {i}?", "chosen": f"Yes, {i}.", "rejected": f"No {i}"}
        for i in range(20)
    ]
    mine = project.with_overrides(write(tmp_path / "pairs.jsonl", rows), ONE_ITERATION)
    done = mine.run()
    assert done.returncode == 0, done.stderr
    assert "report.md" in done.stdout.splitlines()[-1]
    metrics = json.loads((mine.folder / "report" / "metrics.json").read_text(encoding="utf-8"))
    assert [entry["n"] for entry in metrics["iterations"]] == [2, 2]
    preferred = read_rows(artifacts.folder(mine.recipe, "preferences", 1) / "train.parquet")
    assert {row["prompt"][0]["content"] for row in preferred} <= {r["prompt"] for r in rows[:18]}


def test_prompts_alone_are_answered_twice_and_ranked(project, tmp_path: Path) -> None:
    """The pool of a prompt is then what the policy said, in `num_samples` samples."""
    rows = [{"prompt": f"Tell me about the number {i}."} for i in range(20)]
    mine = project.with_overrides(
        write(tmp_path / "prompts.jsonl", rows),
        ONE_ITERATION,
        "generation.num_samples=2",
        "generation.temperature=1.0",
    )
    done = mine.run()
    assert done.returncode == 0, done.stderr
    preferred = read_rows(artifacts.folder(mine.recipe, "preferences", 1) / "train.parquet")
    assert len(preferred) >= 15
    for row in preferred:
        assert len(row["scores"]) == 2
        assert row["explored_role"] in ("chosen", "rejected")


def test_prompts_alone_with_one_sample_say_what_is_missing(project, tmp_path: Path) -> None:
    rows = [{"prompt": f"Number {i}?"} for i in range(20)]
    mine = project.with_overrides(write(tmp_path / "prompts.jsonl", rows), ONE_ITERATION)
    failed = mine.run()
    assert failed.returncode == 2
    assert "generation.num_samples" in failed.stderr


def test_unusable_rows_are_dropped_and_counted(project, tmp_path: Path) -> None:
    good = [{"prompt": f"Q{i}", "chosen": "Yes.", "rejected": "No."} for i in range(8)]
    bad = [
        {"prompt": "Q0", "chosen": "Again.", "rejected": "Twice."},
        {"prompt": "empty", "chosen": " ", "rejected": "No."},
        {"prompt": "same", "chosen": "Yes.", "rejected": "Yes."},
        {"prompt": "long " * 600, "chosen": "Yes.", "rejected": "No."},
    ]
    mine = project.with_overrides(
        write(tmp_path / "mixed.jsonl", bad + good + good[:2]), ONE_ITERATION
    )
    done = mine.stage("generate", 1)
    assert done.returncode == 0, done.stderr
    manifest = artifacts.read_manifest(mine.recipe, "responses", 1)
    assert manifest["dropped"] == {
        "duplicate_prompt": 1,
        "empty_response": 1,
        "chosen_is_rejected": 1,
        "prompt_longer_than_context": 1,
    }
    assert manifest["rows"] == 8


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"question": "Q", "answer": "A"}, "columns question, answer; wanted: prompt"),
        ({"prompt": "Q", "chosen": "A"}, "a dataset needs both chosen and rejected"),
        ({"prompt": "Q", "chosen": "", "rejected": ""}, "nothing left to use"),
    ],
)
def test_a_dataset_that_cannot_be_used_is_named(
    row: dict[str, str], named: str, project, tmp_path: Path
) -> None:
    mine = project.with_overrides(write(tmp_path / "broken.jsonl", [row] * 20), ONE_ITERATION)
    failed = mine.stage("answer", 0)
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
    last = failed.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "broken.jsonl" in last and named in last


def test_a_missing_input_names_the_command_that_makes_it(project) -> None:
    failed = project.stage("rank", 2)
    assert failed.returncode == 2
    assert "iter-2/responses: missing; run: python scripts/generate.py" in failed.stderr
    failed = project.stage("evaluate", 0)
    assert failed.returncode == 2
    assert "iter-0/answers: missing; run: python scripts/answer.py" in failed.stderr
