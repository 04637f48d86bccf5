"""The report of an unfinished run: which iterations are in it, and when the plan writes it."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from written_runs import runs_in, write, write_all

from selm.run import artifacts, plan
from selm.run.artifacts import finished_iterations, folder
from selm.run.stages import stages
from selm.run.writing import replacing


@pytest.fixture
def runs(tiny_recipe: str, tiny_data: str, tmp_path: Path) -> Any:
    return runs_in(tmp_path, tiny_recipe, tiny_data)


def commands(run: plan.Run, done: Any = None) -> list[str]:
    """Script and iteration of each line that runs something."""
    lines = [line.split() for line in plan.script(run, done).splitlines()]
    named = [line for line in lines if line and line[0] in ("python", "accelerate")]
    return [
        next(word for word in line if word.startswith("scripts/"))[8:-3]
        + (line[line.index("--iteration") + 1] if "--iteration" in line else "")
        + ("--so-far" if "--so-far" in line else "")
        for line in named
    ]


def test_iterations_count_up_to_the_last_evaluation_without_a_gap(runs) -> None:
    run, lasts = runs(), []
    for entry in stages(run.recipe)[:-1]:
        write(run, *entry)
        found = finished_iterations(run.recipe)
        lasts.append(found[-1] if found else None)
    zero, one, two = (("evaluation", t) for t in range(3))
    assert lasts == [None, *[zero] * 5, *[one] * 5, two]
    shutil.rmtree(folder(run.recipe, "answers", 1))
    assert finished_iterations(run.recipe)[-1] == zero, "later ones depend on it, or do not count"


def test_the_plan_writes_a_report_after_each_evaluation_but_the_last(runs) -> None:
    run = runs("training.alpha=0.02")
    assert commands(run) == [
        *("answer0", "evaluate0", "generate1", "rank1", "train1", "answer1", "evaluate1"),
        "report--so-far",
        *("generate2", "rank2", "train2", "answer2", "evaluate2", "report"),
    ]
    line = f"python scripts/report.py {run.path} --so-far training.alpha=0.02"
    assert f'{line} || goes_on "$?"' in plan.script(run).splitlines()
    assert not [c for c in commands(runs("evaluation.every_iteration=false")) if "so-far" in c]


@pytest.mark.parametrize(
    ("exit_code", "ran", "said"),
    [
        (1, 13, "the report so far failed (exit 1); the run goes on"),
        (130, 7, "stopped (exit 130) at: the report so far\ncontinue with: bash scripts/run.sh "),
    ],
)
def test_a_report_so_far_that_fails_stops_nothing_but_a_signal_does(
    runs, tmp_path: Path, exit_code: int, ran: int, said: str
) -> None:
    """The plan's own bash; a stand-in for both programs that it calls says how they end."""
    stand_in = f'#!/bin/sh\ncase "$*" in *--so-far*) exit {exit_code} ;; esac\necho ran\n'
    for name in ("python", "accelerate"):
        (tmp_path / name).write_text(stand_in, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", plan.script(runs())],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (0 if exit_code == 1 else exit_code)
    assert done.stdout.splitlines() == ["ran"] * ran, "without the one that failed"
    assert done.stderr.startswith(said)


def test_what_is_evaluated_already_needs_no_report_of_its_own(runs) -> None:
    run = runs()
    write_all(run)
    assert commands(run, artifacts.done(run.recipe)) == ["report"]
    shutil.rmtree(folder(run.recipe, "evaluation", 1))
    rest = commands(run, artifacts.done(run.recipe))
    assert rest == ["evaluate1", "report--so-far", "report"]


def test_a_report_so_far_is_replaced_by_the_whole_one(runs) -> None:
    """It has no manifest, so it is never taken for a finished artifact."""
    run = runs()
    for entry in stages(run.recipe)[:-1]:
        write(run, *entry)
    with replacing(folder(run.recipe, "report", None)) as building:
        (building / "report.md").write_text("of iteration 1", encoding="utf-8")
    assert artifacts.state(run.recipe, "report", None).why == "missing"
    write(run, "report", None)
    assert artifacts.state(run.recipe, "report", None).current
    assert not (folder(run.recipe, "report", None) / "report.md").exists()


def test_a_report_that_fails_leaves_the_earlier_one(runs) -> None:
    report = folder(runs().recipe, "report", None)
    with replacing(report) as building:
        (building / "report.md").write_text("earlier", encoding="utf-8")
    with pytest.raises(ZeroDivisionError), replacing(report) as building:
        raise ZeroDivisionError
    assert (report / "report.md").read_text(encoding="utf-8") == "earlier"
