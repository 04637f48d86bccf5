"""Where a run stands, told from its folder: finished, at work, stopped, failed, stale."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from written_runs import runs_in, write, write_all

from selm import progress
from selm.cli import keep_text
from selm.recipe.loading import as_yaml
from selm.run import artifacts
from selm.run.alone import holder, lock
from selm.run.plan import Run
from selm.run.spans import path_of
from selm.run.stages import Entry, stages
from selm.run.status import Standing, Status, table

REPOSITORY = Path(__file__).parents[1]
HOLD = "import sys; from pathlib import Path; from selm.run.alone import lock\n"
HOLD += "held = lock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def run(tiny_recipe: str, tiny_data: str, tmp_path: Path) -> Run:
    """A run with nothing but its recipe."""
    made = runs_in(tmp_path, tiny_recipe, tiny_data)()
    keep_text(folder(made) / "recipe.yaml", as_yaml(made.recipe))
    return made


def folder(run: Run) -> Path:
    return artifacts.run_folder(run.recipe)


def standings(run: Run) -> dict[Entry, Standing]:
    return {(each.stage, each.t): each for each in Status(folder(run)).standings}


def log(run: Run, name: str, text: str = "") -> Path:
    path = folder(run) / "logs" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_until(run: Run, last: Entry) -> None:
    for entry in stages(run.recipe):
        write(run, *entry)
        if entry == last:
            return


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another process holds this lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    try:
        yield
    finally:
        process.communicate(timeout=60)


def test_the_holder_of_a_lock_is_known_as_long_as_it_lives(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "a"
    assert holder(path) is None
    with held(path):
        assert str(holder(path)).startswith("process ")
    assert holder(path) is None, "its text is still there, but the process has ended"
    lock(path).close()  # to look has not locked it


def test_nothing_is_begun_without_a_stage(run: Run) -> None:
    found = standings(run)
    assert list(found) == stages(run.recipe)
    assert {each.kind for each in found.values()} == {"not begun"}
    assert all(each.left is not None and each.left > 0 for each in found.values())
    lines = table(Status(folder(run)))
    assert lines[-1].startswith("0 of 13 stages are done, in 0 s; about ")
    assert lines[-1].endswith("left; no stage is at work")


def test_a_finished_run_has_nothing_left(run: Run) -> None:
    write_all(run)
    found = standings(run)
    assert {each.kind for each in found.values()} == {"done"}
    assert found["responses", 1].text == "3 rows" and found["responses", 1].seconds is not None
    assert table(Status(folder(run)))[-1].startswith("13 of 13 stages are done, in ")


def test_a_stage_at_work_says_how_far_it_is(run: Run) -> None:
    write_until(run, ("evaluation", 0))
    path = log(run, "iter-1-generate.2.log")
    note = {"what": "iteration 1: generating", "unit": "row", "done": 6, "total": 12}
    progress.note_of(path).write_text(json.dumps(note | {"began_with": 4, "seconds": 20}))
    with held(folder(run).parent / ".locks" / "tiny-iter-1-generate"):
        found = standings(run)["responses", 1]
        lines = table(Status(folder(run)))
    assert (found.kind, found.text) == ("running", "generating, 6/12 rows, 10 s/row")
    assert found.left == 60, "two of the six rows took 20 seconds in this attempt"
    assert found.seconds is not None and 0 <= found.seconds < 600
    assert "no stage is at work" not in lines[-1]
    assert standings(run)["responses", 1].kind == "stopped", "the process has ended"


def test_the_first_part_of_a_training_does_not_tell_how_long_it_takes(run: Run) -> None:
    write_until(run, ("preferences", 1))
    path = log(run, "iter-1-train.1.log")
    note = {"what": "reference log-probs", "unit": "batch", "done": 1, "total": 1000}
    progress.note_of(path).write_text(json.dumps(note | {"began_with": 0, "seconds": 50}))
    with held(folder(run).parent / ".locks" / "tiny-iter-1-train"):
        found = standings(run)["checkpoint", 1]
    assert found.text == "reference log-probs, 1/1,000 batches, 50 s/batch"
    assert found.left is not None and found.left < 49_950


def test_a_stage_that_is_about_to_end_is_still_at_work(run: Run) -> None:
    """Its artifact is there, but trackers or the Hub still get it."""
    write_until(run, ("evaluation", 1))
    assert table(Status(folder(run)))[-1].endswith("no stage is at work")
    with held(folder(run).parent / ".locks" / "tiny-iter-1-evaluate"):
        assert "no stage" not in table(Status(folder(run)))[-1]


def test_a_stopped_stage_says_what_is_kept(run: Run) -> None:
    write_until(run, ("evaluation", 0))
    partial = artifacts.partial_folder(run, "responses", 1)
    for span in (range(0, 4), range(8, 12)):
        path_of(partial, span).touch()
    log(run, "iter-1-generate.1.log", "begun\nstopped by Ctrl-C: 2 finished shards are kept\n")
    found = standings(run)["responses", 1]
    assert (found.kind, found.text) == ("stopped", "8/12 rows are kept")
    assert found.tail[-1] == "stopped by Ctrl-C: 2 finished shards are kept"
    write_until(run, ("preferences", 1))
    steps = artifacts.partial_folder(run, "checkpoint", 1) / "steps"
    for step in (9, 10):
        (steps / f"checkpoint-{step}").mkdir(parents=True)
        (steps / f"checkpoint-{step}" / "trainer_state.json").touch()
    assert standings(run)["checkpoint", 1].text == "saved at step 10"


def test_a_failed_stage_shows_the_end_of_its_latest_log(run: Run) -> None:
    log(run, "iter-0-answer.9.log", "an older attempt\n")
    secret = "hf_" + "a" * 30
    last = f"error: disk full\x1b[2J {secret}\n"
    log(run, "iter-0-answer.10.log", "bar 1\rbar 2\rbar 3\n\n" + last)
    found = standings(run)["answers", 0]
    assert found.kind == "failed" and len(found.tail) == 3
    lines = table(Status(folder(run)))
    assert "iter-0-answer ended with:" in lines
    assert lines[-2].startswith("  error: disk full") and "\x1b" not in lines[-2]
    assert secret not in "\n".join(lines) and "older" not in "\n".join(lines)


def test_a_stage_whose_artifact_was_deleted_is_not_begun(run: Run) -> None:
    log(run, "iter-0-answer.1.log", "runs/tiny/iter-0/answers: written, 8 rows, 20 s\n")
    assert standings(run)["answers", 0].kind == "not begun"


def test_what_a_changed_recipe_makes_again_is_stale(run: Run) -> None:
    write_all(run)
    text = as_yaml(run.recipe).replace("alpha: 0.01", "alpha: 0.02")
    (folder(run) / "recipe.yaml").write_text(text, encoding="utf-8")
    found = standings(run)
    assert "training.alpha (0.01 -> 0.02)" in found["checkpoint", 1].text
    assert found["responses", 1].kind == "done" and found["report", None].kind == "stale"


def test_a_run_that_was_moved_is_found(run: Run, tmp_path: Path) -> None:
    write_until(run, ("preferences", 2))
    (tmp_path / "elsewhere").mkdir()
    os.rename(folder(run), tmp_path / "elsewhere" / "tiny")
    found = Status(tmp_path / "elsewhere" / "tiny").standings
    kinds = {(each.stage, each.t): each.kind for each in found}
    assert kinds["preferences", 1] == "done" and kinds["answers", 2] == "not begun"
    command = [sys.executable, str(REPOSITORY / "scripts" / "status.py"), "."]
    inside = {"cwd": tmp_path / "elsewhere" / "tiny", "text": True}
    done = subprocess.run(command, capture_output=True, check=True, **inside)
    assert "9 of 13 stages are done" in done.stdout


def test_the_script_prints_the_table_without_torch(run: Run) -> None:
    write_all(run)
    script = REPOSITORY / "scripts" / "status.py"
    code = f"import sys, runpy; sys.argv = ['status.py', {str(folder(run))!r}]\n"
    code += f"runpy.run_path({str(script)!r}, run_name='__main__')\n"
    code += "assert not {'torch', 'datasets', 'transformers'} & set(sys.modules), 'slow imports'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split() == ["stage", "iteration", "state", "time", "left"]


@pytest.mark.parametrize("which", ["", "nowhere"])
def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path, which: str) -> None:
    command = [sys.executable, "scripts/status.py", str(tmp_path / which)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "name the folder of a run" in done.stderr
