"""Trackers get each iteration's numbers, as they read them themselves."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from written_runs import runs_in, write_all

from selm.report import tracked
from selm.run import artifacts
from selm.run.plan import Run
from selm.run.stages import stages


@pytest.fixture
def runs(tiny_recipe: str, tiny_data: str, tmp_path: Path) -> Any:
    return runs_in(tmp_path, tiny_recipe, tiny_data)


def rows(*rewards: float) -> list[Any]:
    """Against a base model whose rewards are all 0.5."""
    return [
        {"reward": r, "reward_of_base": 0.5, "num_tokens": 10 + i} for i, r in enumerate(rewards)
    ]


def written(run: Run) -> dict[str, dict[int, float]]:
    """Tag -> step -> value, as TensorBoard itself reads the folder."""
    read = EventAccumulator(str(artifacts.run_folder(run.recipe) / "tensorboard" / "held-out"))
    read.Reload()
    return {
        tag: {event.step: event.value for event in read.Scalars(tag)}
        for tag in read.Tags()["scalars"]
    }


def test_tensorboard_has_a_step_for_each_iteration(runs) -> None:
    run = runs()
    write_all(run)
    assert tracked.report(run.recipe, 0, rows(0.5, 0.5)) == ["tensorboard"]
    tracked.report(run.recipe, 1, rows(0.0, 1.0))
    tracked.report(run.recipe, 2, rows(1.0, 0.5, 0.9))
    found = written(run)
    assert found["held_out/reward"] == pytest.approx({0: 0.5, 1: 0.5, 2: 0.8})
    assert found["held_out/win_rate_vs_base"] == pytest.approx({1: 0.5, 2: 2.5 / 3})
    assert found["held_out/response_tokens"] == pytest.approx({0: 10.5, 1: 10.5, 2: 11.0})
    took = dict.fromkeys(range(3), 0.0)
    for stage, t in stages(run.recipe)[:-1]:
        took[t] += artifacts.read_manifest(run.recipe, stage, t)["seconds"]
    assert found["iteration/seconds"] == pytest.approx(took, abs=1e-5)


def test_an_iteration_that_is_evaluated_again_replaces_its_step_alone(runs) -> None:
    run = runs()
    write_all(run)
    for t, reward in ((0, 0.1), (1, 0.2), (2, 0.3), (1, 0.9)):
        tracked.report(run.recipe, t, rows(reward))
    assert written(run)["held_out/reward"] == pytest.approx({0: 0.1, 1: 0.9, 2: 0.3})


@pytest.mark.parametrize(
    ("given", "told"),
    [("none", []), ("[tensorboard, wandb]", ["tensorboard", "wandb"]), ("all", None)],
)
def test_the_recipe_names_the_trackers(runs, given: str, told: list[str] | None) -> None:
    from accelerate.tracking import get_available_trackers

    installed = [name for name in tracked._TRACKERS if name in map(str, get_available_trackers())]
    if "wandb" in installed or "trackio" in installed:
        pytest.skip("it would send something")
    run = runs(f"training.report_to={given}")
    write_all(run)
    expected = installed if told is None else [name for name in told if name in installed]
    assert tracked.report(run.recipe, 1, rows(0.2)) == expected


STAND_IN = """
import json

def told(**what):
    with open({log!r}, "a") as file:
        file.write(json.dumps({{"package": __name__, **what}}) + "\\n")

class Run:
    def log(self, values, step=None, **_):
        told(step=step, reward=values["held_out/reward"])

    def finish(self):
        told(finished=True)

def init(project, **given):
    told(project=project, **given)
    return Run()
"""

REPORTS = """
import sys
from selm.recipe.loading import load_recipe
from selm.report import tracked

recipe = load_recipe(sys.argv[1], sys.argv[2:])
row = {"reward": 0.25, "reward_of_base": 0.5, "num_tokens": 3}
assert tracked.report(recipe, 1, [row]) == ["wandb", "trackio"]
"""


def test_trackers_that_are_installed_are_started_told_and_finished(runs, tmp_path: Path) -> None:
    """In a process of its own, as a stage is, so that nothing else has set up accelerate's state.

    The packages are not in the lock, and would send: small ones stand in for them.
    """
    run = runs("training.report_to=[wandb,trackio]", "training.project=ours")
    write_all(run)
    log = tmp_path / "told.jsonl"
    for name in ("wandb", "trackio"):
        folder = tmp_path / "packages" / f"{name}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (tmp_path / "packages" / f"{name}.py").write_text(STAND_IN.format(log=str(log)))
    subprocess.run(
        [sys.executable, "-c", REPORTS, run.path, *run.overrides],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "packages"), "WANDB_PROJECT": "mine"},
        check=True,
    )
    told = [json.loads(line) for line in log.read_text().splitlines()]
    name, rest = "tiny-held-out", [{"step": 1, "reward": 0.25}, {"finished": True}]
    started = {
        "wandb": {"project": "mine", "name": name, "id": name, "resume": "allow"},
        "trackio": {"project": "ours", "name": name, "resume": "allow"},
    }
    assert told == [
        {"package": package, **what} for package, how in started.items() for what in (how, *rest)
    ]
