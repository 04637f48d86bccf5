"""The real scripts, as subprocesses, on the tiny model."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from loopback_hub import LoopbackHub, User
from patience import PATIENCE

from selm.recipe.loading import load_recipe
from selm.recipe.schema import Recipe
from selm.run import artifacts

REPOSITORY = Path(__file__).parents[2]
DIES = "tests/end_to_end/dies.py"


@dataclass(frozen=True)
class Project:
    """A recipe, an output folder, and the commands that a user would type.

    environment: variables of the commands, beside those of the tests; None unsets one.
    """

    recipe_path: str
    output_dir: Path
    overrides: tuple[str, ...] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict)

    def with_overrides(self, *overrides: str) -> "Project":
        return replace(self, overrides=(*self.overrides, *overrides))

    def online(self, hub: LoopbackHub, token: str, home: Path) -> "Project":
        """On a machine that reaches the Hub, by LFS, not Xet; `home`: of its cache."""
        environment = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": token,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": None,
            "HF_HUB_DISABLE_XET": "1",
        }
        return replace(self, environment=environment)

    @property
    def words(self) -> list[str]:
        return [self.recipe_path, f"output_dir={self.output_dir}", *self.overrides]

    @property
    def recipe(self) -> Recipe:
        return load_recipe(self.words[0], self.words[1:])

    @property
    def folder(self) -> Path:
        return artifacts.run_folder(self.recipe)

    def run(self) -> subprocess.CompletedProcess[str]:
        """The whole recipe from wherever it stands: `bash scripts/run.sh RECIPE ...`."""
        return self._finished(["bash", "scripts/run.sh", *self.words])

    def stage(self, script: str, t: int | None = None) -> subprocess.CompletedProcess[str]:
        """One stage: `python scripts/<script>.py RECIPE --iteration t ...`."""
        return self._finished(self.command(script, t))

    def killed_at(self, point: str, times: int, script: str, t: int) -> None:
        """`kill -9` of a stage of one process as soon as it got so often to a point of dies.py."""
        process = self._group(self.command(script, t, f"{DIES} {point} {times} ".split()))
        assert process.wait(timeout=PATIENCE) == -signal.SIGKILL, f"{script} did not get to {point}"

    def killed(self, script: str, t: int, ready: Callable[[], bool]) -> None:
        """Start a stage and `kill -9` all its processes as soon as `ready()` is true.

        For what is ready outside of the stage; there must be enough left to do then.
        """
        process = self._group(self.command(script, t))
        started = time.monotonic()
        while not ready():
            assert process.poll() is None, f"{script} ended before it could be killed"
            assert time.monotonic() - started < PATIENCE
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

    def _group(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=self.all_environment(),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def command(self, script: str, t: int | None, within: Sequence[str] = ()) -> list[str]:
        """within: a script with arguments that is given the stage's, and runs it."""
        launch = ["python"]
        if script == "train":
            training = self.recipe.training
            launch = ["accelerate", "launch", "--config_file", training.accelerate_config]
            launch += ["--num_processes", str(training.num_processes or 1)]
            launch += ["--log_dir", os.devnull]  # or it leaves a folder in /tmp when it is killed
        iteration = [] if t is None else ["--iteration", str(t)]
        return [*launch, *within, f"scripts/{script}.py", *self.words, *iteration]

    def _finished(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=REPOSITORY,
            env=self.all_environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def all_environment(self) -> dict[str, str]:
        """`python` and `accelerate` are those that run the tests."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        given = os.environ | {"PATH": path} | self.environment
        return {key: value for key, value in given.items() if value is not None}


@pytest.fixture(scope="session")
def untouched_hub() -> LoopbackHub:
    """The Hub that `finished` could reach, but has no reason to."""
    return LoopbackHub([User("me", "hf_me")]).start()


@pytest.fixture(scope="session")
def finished(
    tiny_recipe: str, tmp_path_factory: pytest.TempPathFactory, untouched_hub: LoopbackHub
) -> Project:
    """A whole run of two iterations. Shared: look, do not touch; `project_copy` is for changing."""
    folder = tmp_path_factory.mktemp("finished")
    home = tmp_path_factory.mktemp("home")
    project = Project(tiny_recipe, folder).online(untouched_hub, "hf_me", home)
    done = project.run()
    assert done.returncode == 0, done.stderr
    return project


@pytest.fixture
def project_copy(finished: Project, tmp_path: Path) -> Project:
    """The finished run in a folder of the test's own."""
    shutil.copytree(finished.output_dir, tmp_path / "runs")
    return Project(finished.recipe_path, tmp_path / "runs")


@pytest.fixture
def project(tiny_recipe: str, tmp_path: Path) -> Project:
    """The tiny recipe with nothing done yet."""
    return Project(tiny_recipe, tmp_path / "runs")
