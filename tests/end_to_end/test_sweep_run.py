"""`scripts/run.sh --sweep`: in parts, killed in the middle, on to the comparison, and again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from patience import PATIENCE

from selm.run import artifacts, sweep
from selm.run.stages import name, stages

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
ONE_ITERATION = "iterations=[{objective: selm, learning_rate: 1e-3}]"
SHARED = ("iter-0/answers", "iter-0/evaluation", "iter-1/responses", "iter-1/preferences")
OWN = ("iter-1/checkpoint", "iter-1/answers", "iter-1/evaluation")
NAMES = [f"tiny-alpha{alpha}-seed{seed}" for seed in (1, 2) for alpha in ("0.01", "0.5")]

Files = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Step:
    """What a command said, if it was not killed, and the files of the folder after it."""

    said: str
    files: Files


@dataclass(frozen=True)
class Commands:
    """The commands of a sweep of 2 alphas x 2 seeds with a limit on the data."""

    folder: Path
    words: tuple[str, ...]
    environment: dict[str, str]

    def sweep(self, *options: str) -> Step:
        return self._finished(["bash", "scripts/run.sh", "--sweep", *self.words, *options])

    def select(self) -> Step:
        return self._finished(["python", "scripts/sweep.py", "--select", *self.words])

    def _finished(self, command: list[str]) -> Step:
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return Step(done.stdout, written(self.folder))

    def killed(self, when: Path) -> Step:
        """`kill -9` of run.sh and all it started, as soon as there is something at this path."""
        process = subprocess.Popen(
            ["bash", "scripts/run.sh", "--sweep", *self.words],
            cwd=REPOSITORY,
            env=self.environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started = time.monotonic()
        while not when.exists():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() - started < PATIENCE
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        return Step("", written(self.folder))


def written(folder: Path) -> Files:
    """Inode and time of the runs' files; logs and what is hidden do not count."""
    aside = {"logs", "tensorboard"}
    found = {}
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in parts)
        if path.is_file() and len(parts) > 2 and not hidden and not aside & {*parts}:
            found["/".join(parts)] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found


@pytest.fixture(scope="module")
def commands(tiny_recipe: str, tmp_path_factory: pytest.TempPathFactory) -> Commands:
    folder = tmp_path_factory.mktemp("swept")
    values = ("training.alpha=0.01,0.5", "seed=1,2")
    words = (tiny_recipe, f"output_dir={folder}", ONE_ITERATION, "data.limit=8", *values)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return Commands(folder, words, os.environ | {"PATH": path})


@pytest.fixture(scope="module")
def steps(commands: Commands) -> dict[str, Step]:
    """The whole history of one sweep, in the order of the keys."""
    folder, done = commands.folder, dict[str, Step]()
    done["shared"] = commands.sweep("--only", "shared")
    done["second"] = commands.sweep("--only", "2")
    done["killed"] = commands.killed(folder / NAMES[2] / "iter-1" / "checkpoint")
    done["finished"] = commands.sweep()
    done["compared"] = Step("", compared(folder))
    done["again"] = commands.sweep()
    return done


def compared(folder: Path) -> Files:
    """Hash and size of the comparison's files."""
    files = (folder / "compare").iterdir()
    return {path.name: (hash(path.read_bytes()), path.stat().st_size) for path in files}


def runs_of(files: Files) -> set[str]:
    return {file.split("/")[0] for file in files}


def artifacts_of(files: Files) -> set[str]:
    return {file.rpartition("/")[0] for file in files if file.endswith("/manifest.json")}


def test_what_is_shared_is_made_first(steps) -> None:
    firsts = (NAMES[0], NAMES[2])
    assert artifacts_of(steps["shared"].files) == {f"{n}/{s}" for n in firsts for s in SHARED}


def test_one_run_of_an_array_links_what_is_shared_and_makes_the_rest(steps) -> None:
    step = steps["second"]
    assert f"shared with {NAMES[0]}: {', '.join(SHARED)}" in step.said
    new = artifacts_of(step.files) - artifacts_of(steps["shared"].files)
    assert new == {f"{NAMES[1]}/{stage}" for stage in (*SHARED, *OWN, "report")}


def test_nothing_that_was_finished_is_made_again(steps) -> None:
    """From step to step, also after the kill, all files stay the same."""
    for before, after in (("shared", "second"), ("second", "killed"), ("killed", "finished")):
        earlier, later = steps[before].files, steps[after].files
        assert {file: later.get(file) for file in earlier} == dict(earlier), after
    assert runs_of(steps["finished"].files) == set(NAMES)
    assert NAMES[3] not in runs_of(steps["killed"].files)


def test_all_runs_are_finished_and_what_is_shared_is_on_the_disk_once(steps, commands) -> None:
    assert "# sharing: 8 of 28 artifacts are made by an earlier run" in steps["finished"].said
    members = sweep.of(commands.words).members
    assert [member.name for member in members] == NAMES
    for member in members:
        for entry in stages(member.run.recipe):
            assert artifacts.state(member.run.recipe, *entry).current, (member.name, name(*entry))
    files = steps["finished"].files
    for one, other in (NAMES[:2], NAMES[2:]):
        of_one = [file.removeprefix(f"{one}/") for file in files if file.startswith(f"{one}/")]
        for file in of_one:
            is_one = files[f"{one}/{file}"][0] == files[f"{other}/{file}"][0]
            assert is_one == file.startswith((*SHARED, "iter-1/reference")), file


def test_it_ends_in_a_comparison_and_a_second_call_does_nothing(steps, commands) -> None:
    assert {"report.md", "compare.json"} <= steps["compared"].files.keys()
    assert any(file.endswith(".png") for file in steps["compared"].files)
    assert steps["again"].files == steps["finished"].files
    assert compared(commands.folder) == steps["compared"].files
    lines = steps["again"].said.splitlines()
    for member in NAMES:
        assert f"{commands.folder / member}: already done, 8 stages" in lines
    assert str(commands.folder / "compare") in lines[-1]


def test_a_setting_is_selected(steps, commands) -> None:
    best, following, conclusion, *_ = commands.select().said.splitlines()
    assert best.startswith("best: alpha ")
    assert "(2 seeds, 8 prompts" in best
    assert following.startswith("next: alpha ")
    assert conclusion.startswith("The runner-up is ")
