"""`scripts/run.sh` from nothing to the report, again, and after something was lost or changed."""

import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from selm.recipe.loading import as_yaml
from selm.run import artifacts
from selm.run.stages import stages

pytestmark = pytest.mark.slow


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every file: what was rewritten has others."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def changed(before: dict[str, tuple[int, int]], folder: Path) -> set[str]:
    """Artifacts with a file that is new or another one than before."""
    after = snapshot(folder)
    files = {file for file in after if before.get(file) != after[file]}
    folders = {str(Path(file).parent) for file in files if "/" in file}
    return {folder for folder in folders if folder.split("/")[0] not in ("logs", "tensorboard")}


def test_a_run_leaves_every_artifact_of_the_plan(finished) -> None:
    for kind, t in stages(finished.recipe):
        assert artifacts.state(finished.recipe, kind, t).current, (kind, t)
    left = {path.name for path in finished.folder.rglob("*") if path.name.startswith(".")}
    assert not left, "a partial or temporary folder was left"
    assert (finished.folder / "recipe.yaml").read_text(encoding="utf-8") == as_yaml(finished.recipe)
    assert (finished.folder / "plan.sh").is_file()


def test_each_stage_has_a_log_of_its_attempt(finished) -> None:
    logs = {path.name for path in (finished.folder / "logs").iterdir()}
    assert len(logs) == len(stages(finished.recipe)), "reports of an unfinished run have none"
    assert {
        "iter-0-answer.1.log",
        "iter-0-evaluate.1.log",
        "iter-2-train.1.log",
        "report.1.log",
    } <= logs
    text = (finished.folder / "logs" / "iter-1-generate.1.log").read_text(encoding="utf-8")
    assert "responses: written, 12 rows" in text


def test_the_logs_of_a_run_are_short_and_have_no_bars(finished) -> None:
    """Whatever libraries load and write: a log is read in an editor, or by CI."""
    texts = {path.name: path.read_bytes().decode() for path in (finished.folder / "logs").iterdir()}
    assert not [name for name, text in texts.items() if "\r" in text or "it/s]" in text]
    assert sum(len(text.splitlines()) for text in texts.values()) < 60
    assert "iteration 1: training: 3/3 steps (100%)" in texts["iter-1-train.1.log"]


def test_trackers_get_each_iteration_beside_the_losses(finished) -> None:
    folder = finished.folder / "tensorboard"
    assert {path.name for path in folder.iterdir()} == {"iter-1", "iter-2", "held-out"}
    assert len(list((folder / "held-out").iterdir())) == 3


def test_an_unfinished_run_has_a_report_of_its_evaluated_iterations(project_copy) -> None:
    report, evaluation = project_copy.folder / "report", project_copy.folder / "iter-2/evaluation"
    whole = (report / "report.md").read_text(encoding="utf-8")
    assert "The run goes on" not in whole
    shutil.rmtree(evaluation)
    # As in a notebook's cell, whose Python has the package that this names.
    in_a_notebook = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    there = replace(project_copy, environment=project_copy.environment | in_a_notebook)
    done = there.with_overrides("--so-far").stage("report")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(
        f"{report}/report.md: iterations 0 to 1 of 2, mean held-out reward "
    )
    text = (report / "report.md").read_text(encoding="utf-8")
    assert "**Iterations 0 to 1 of 2.** The run goes on" in text and "| 2 (selm) " not in text
    found = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    assert [entry["iteration"] for entry in found["iterations"]] == [0, 1]
    assert not artifacts.state(project_copy.recipe, "report", None).current
    assert project_copy.run().returncode == 0
    assert artifacts.state(project_copy.recipe, "report", None).current
    again = project_copy.with_overrides("--so-far").stage("report")
    assert "already done" in again.stdout, "a whole report is not replaced by a part of it"
    assert "| 2 (selm) " in (report / "report.md").read_text(encoding="utf-8")


def test_artifacts_are_read_by_the_libraries_of_the_field(finished) -> None:
    preferences = load_dataset(str(finished.folder / "iter-1" / "preferences"))
    assert preferences["train"].num_rows == 12
    checkpoint = str(finished.folder / "iter-2" / "checkpoint")
    policy, loading = AutoModelForCausalLM.from_pretrained(checkpoint, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    assert tokenizer.chat_template and policy.config.vocab_size == len(tokenizer)


def test_each_prompt_is_generated_for_once_and_in_order(finished) -> None:
    given = load_dataset(finished.recipe.data.name_or_path)["train"]["prompt_id"]
    generated = [
        load_dataset(str(finished.folder / f"iter-{t}" / "responses"))["train"]["prompt_id"]
        for t in (1, 2)
    ]
    assert [*generated[0], *generated[1]] == list(given)


def test_training_changed_the_policy_and_logged_both_terms(finished) -> None:
    log = json.loads(
        (finished.folder / "iter-1/checkpoint/training_log.json").read_text(encoding="utf-8")
    )
    steps = [entry for entry in log if "loss/dpo" in entry]
    assert len(steps) == 3
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-4), "it starts at its reference"
    assert steps[0]["rewards/margins"] == pytest.approx(0, abs=1e-4) != steps[2]["rewards/margins"]
    assert {"loss/optimism", "rewards/explored", "logps/explored"} <= steps[0].keys()
    before, after = (
        AutoModelForCausalLM.from_pretrained(artifacts.policy_path(finished.recipe, t))
        for t in (0, 1)
    )
    assert not before.lm_head.weight.equal(after.lm_head.weight)


def test_the_report_is_whole(finished) -> None:
    report = finished.folder / "report"
    metrics = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    assert [entry["iteration"] for entry in metrics["iterations"]] == [0, 1, 2]
    text = (report / "report.md").read_text(encoding="utf-8")
    for picture in report.glob("*.png"):
        assert f"({picture.name})" in text
        assert picture.stat().st_size > 5_000
    page = (report / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and page.count('id="data-answers"') == 1


def test_the_same_command_again_rewrites_nothing(finished) -> None:
    before = snapshot(finished.folder)
    done = finished.run()
    assert done.returncode == 0, done.stderr
    assert snapshot(finished.folder) == before
    lines = done.stdout.splitlines()
    assert sum("already done" in line for line in lines) == len(stages(finished.recipe))
    assert str(finished.folder / "report" / "report.md") in lines[-1]


def test_only_what_depends_on_a_lost_checkpoint_is_redone(project_copy) -> None:
    before = snapshot(project_copy.folder)
    shutil.rmtree(project_copy.folder / "iter-2" / "checkpoint")
    done = project_copy.run()
    assert done.returncode == 0, done.stderr
    assert changed(before, project_copy.folder) == {
        "iter-2/checkpoint",
        "iter-2/answers",
        "iter-2/evaluation",
        "report",
    }


def test_a_failing_stage_stops_the_run_and_names_the_command(project, tmp_path: Path) -> None:
    reward = tmp_path / "my reward.py"
    # well on the dataset's pair, which the run's first look puts to it
    short = "2 if any('an answer' in text for text in candidates) else 1"
    reward.write_text(
        f"def score(prompt, candidates):\n    return [1.0] * ({short})\n", encoding="utf-8"
    )
    broken = project.with_overrides(
        "ranking.ranker=function", f"ranking.name_or_path={reward}:score"
    )
    failed = broken.run()
    assert failed.returncode == 2
    assert "my reward.py:score: 1 scores for 2 candidates" in failed.stderr
    assert "stopped (exit 2) at: python scripts/evaluate.py" in failed.stderr
    assert "continue with: bash scripts/run.sh" in failed.stderr
    assert not (broken.folder / "iter-1").exists()


def test_what_cannot_work_is_said_before_the_first_stage(project) -> None:
    lora = "training.lora={target_modules: [q_porj]}"
    failed = project.with_overrides(lora).run()
    assert failed.returncode == 2
    (line,) = [line for line in failed.stderr.splitlines() if "PROBLEM" in line]
    assert line.startswith("PROBLEM training")
    assert "Traceback" not in failed.stderr
    assert not list(project.folder.glob("iter-*")), "no work was started"


def test_runs_from_another_folder_and_shows_its_usage(finished) -> None:
    script = Path(__file__).parents[2] / "scripts" / "run.sh"
    assert os.access(script, os.R_OK)
    shown = os.popen(f"cd / && bash {script} 2>&1").read()
    assert "bash scripts/run.sh recipes/smollm2-135m-instruct/selm.yaml" in shown
