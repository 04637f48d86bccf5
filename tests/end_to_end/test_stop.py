"""Ctrl-C and other signals to `scripts/run.sh`: one line, and nothing keeps running."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def start(tmp_path: Path):
    """Starts run.sh in a process group of its own, and waits until it is in the middle."""
    started: list[subprocess.Popen[bytes]] = []

    def start(project, in_the_middle: Callable[[], bool]) -> subprocess.Popen[bytes]:
        with (tmp_path / "said").open("wb") as said:
            process = subprocess.Popen(
                ["bash", "scripts/run.sh", *project.words],
                cwd=REPOSITORY,
                env=project.all_environment(),
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        started.append(process)
        until = time.monotonic() + 120
        while not in_the_middle():
            assert process.poll() is None and time.monotonic() < until, said_in(tmp_path)
            time.sleep(0.01)
        return process

    yield start
    for process in started:
        for left in running(process.pid):
            left.kill()


def said_in(folder: Path) -> str:
    return (folder / "said").read_text(encoding="utf-8")


def running(session: int) -> list[psutil.Process]:
    """What was started in a session and has not ended; the tees of logs have their own."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return found


def await_end(session: int) -> None:
    until = time.monotonic() + 20
    while running(session):
        assert time.monotonic() < until, [process.cmdline() for process in running(session)]
        time.sleep(0.05)
    time.sleep(0.2)  # for the last words to be written


@pytest.mark.parametrize(
    ("number", "whole_group", "code", "word"),
    [
        (signal.SIGINT, True, 130, "Ctrl-C"),
        (signal.SIGTERM, False, -15, "SIGTERM"),
        (signal.SIGKILL, False, -9, "SIGTERM"),
    ],
)
def test_a_stage_ends_with_run_sh(
    project, start, tmp_path: Path, number: int, whole_group: bool, code: int, word: str
) -> None:
    slow = project.with_overrides("generation.max_tokens=250", "generation.shard_size=1")
    partial = slow.folder / "iter-0" / ".answers.partial"
    process = start(slow, lambda: any(partial.glob("shard-*.parquet")))
    (os.killpg if whole_group else os.kill)(process.pid, number)
    assert process.wait(timeout=30) == code
    await_end(process.pid)
    said = said_in(tmp_path)
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("stopped by")]
    assert len(lines) == 1, said
    assert lines[0].startswith(f"stopped by {word}: ") and f"kept in {partial}" in lines[0]
    assert "continue with: python scripts/answer.py" in lines[0]
    log = (slow.folder / "logs" / "iter-0-answer.1.log").read_text(encoding="utf-8")
    assert lines[0] in log
    if whole_group:
        assert said.splitlines()[-1].startswith("continue with: bash scripts/run.sh")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_training_ends_with_run_sh(project_copy, start, tmp_path: Path, processes: int) -> None:
    """Nor does the launcher add a word to what the training says."""
    config = {1: "single", 2: "ddp"}[processes]
    slow = project_copy.with_overrides(
        "training.save_steps=1",
        "training.num_train_epochs=50",
        f"training.num_processes={processes}",
        f"training.accelerate_config=accelerate_configs/{config}.yaml",
    )
    steps = slow.folder / "iter-1" / ".checkpoint.partial" / "steps"
    process = start(slow, lambda: any(steps.glob("checkpoint-*/trainer_state.json")))
    os.killpg(process.pid, signal.SIGINT)
    code = process.wait(timeout=60)
    await_end(process.pid)
    said = said_in(tmp_path)
    assert (code, "Traceback" in said) == (130, False), said
    assert said.count("stopped by Ctrl-C: the save ") == 1, said
    assert "stopped (exit 130) at: accelerate launch" in said


def test_a_failing_training_of_two_processes_says_one_line(project_copy, tmp_path: Path) -> None:
    """With the exit code of the training itself, and no temporary folder of the launcher's."""
    (tmp_path / "tmp").mkdir()
    shutil.rmtree(project_copy.folder / "iter-2" / "checkpoint")
    bad = project_copy.with_overrides(
        "training.max_length=2",
        "training.num_processes=2",
        "training.accelerate_config=accelerate_configs/ddp.yaml",
    )
    bad.environment["TMPDIR"] = str(tmp_path / "tmp")
    failed = bad.run()
    assert failed.returncode == 2, failed.stderr
    assert "Traceback" not in failed.stderr
    assert failed.stderr.count("error: ") == 1, failed.stderr
    assert os.listdir(tmp_path / "tmp") == []


# Well on the dataset's pair, which the run's first look puts to it.
FAILS_LATE = """def score(prompt, candidates):
    return [1.0] * (2 if any('an answer' in text for text in candidates) else 1)
"""


def test_a_recipe_is_named_as_seen_from_where_the_user_is(project, tmp_path: Path) -> None:
    """And an output folder with whatever characters is the one that the recipe names."""
    shutil.copy(project.recipe_path, tmp_path / "my recipe.yaml")
    output = tmp_path / "two  spaces 'and' \"quotes\""
    (tmp_path / "reward.py").write_text(FAILS_LATE, encoding="utf-8")
    reward = f"ranking.name_or_path={tmp_path}/reward.py:score"
    words = ["my recipe.yaml", f"output_dir={output}", "ranking.ranker=function", reward]
    done = subprocess.run(
        ["bash", REPOSITORY / "scripts/run.sh", *words],
        cwd=tmp_path,
        env=project.all_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert set(os.listdir(output)) <= {"tiny", ".locks", ".hashes.json"}, (
        "plan.sh is in the run's folder, and nowhere else"
    )
    assert (output / "tiny" / "plan.sh").read_text(encoding="utf-8").startswith("#!/usr/bin/env")
