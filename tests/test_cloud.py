"""The examples for rented machines: the tools take them, and what they run is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[1]
STEPS = (
    "make setup STACK=cuda",
    'make zephyr-selm ARGS="hub.push=true hub.namespace=$NAMESPACE"',
)


def hf_dry_run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The script, with a `hf` that adds --dry-run for the real one, which then submits nothing."""
    real = Path(sys.executable).with_name("hf")
    stand_in = folder / "hf"
    stand_in.write_text(f'#!/bin/sh\nshift 2\nexec {real} jobs run --dry-run "$@"\n')
    stand_in.chmod(0o755)
    given = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "HF_TOKEN": "hf_of_nobody"}
    script = ["bash", str(REPOSITORY / "examples/hf_jobs.sh"), *words]
    return subprocess.run(script, env=given, capture_output=True, text=True)


def test_the_job_of_hugging_face_is_one_that_its_command_takes(tmp_path: Path) -> None:
    done = hf_dry_run(tmp_path, "https://example.org/selm.git", "me")
    assert done.returncode == 0, done.stderr
    said = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert "a100x8" in said["flavor"] and "me" in said["namespace"]
    assert "REPOSITORY=https://example.org/selm.git" in done.stdout
    assert "HF_TOKEN=***" in said["secrets"]
    assert all(step in done.stdout for step in ('git clone "$REPOSITORY" selm', *STEPS))


def test_the_job_s_script_says_how_it_is_used(tmp_path: Path) -> None:
    done = hf_dry_run(tmp_path, "https://example.org/selm.git")
    assert (done.returncode, done.stderr) == (2, "")
    assert "bash examples/hf_jobs.sh https://" in done.stdout


def test_the_task_of_skypilot_runs_the_same_and_gets_what_it_reads() -> None:
    task = yaml.safe_load((REPOSITORY / "examples/skypilot.yaml").read_text(encoding="utf-8"))
    lines = (task["setup"] + task["run"]).splitlines()
    assert [line for line in lines if line.startswith("make ")] == list(STEPS)
    read = set(re.findall(r"\$([A-Z_]+)", task["setup"] + task["run"]))
    assert read <= set(task["envs"]) and "HF_TOKEN" in task["secrets"]


@pytest.mark.parametrize("step", STEPS)
def test_what_the_examples_make_has_a_target(step: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", *step.split()[1:2]], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_what_the_image_is_made_from_is_not_ignored() -> None:
    """And what is made here, which may hold a token in a log or weigh gigabytes, is."""
    ignored = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").split()
    needed = ("Makefile", "README.md", "setup.py", "requirements", "scripts", "src", "recipes")
    assert not set(needed) & set(ignored)
    assert {".git", ".venv", "models", "runs"} <= set(ignored)
