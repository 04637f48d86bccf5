"""Progress: a bar on a terminal, otherwise a line now and then, and never a bar in a log file."""

import os
import pty
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from selm import progress

# 200 steps of a bar whose clock runs 3 seconds a step, around a second bar inside.
WORK = """
import sys, time
from pathlib import Path
from selm import progress
from selm.run.logs import log_to

passed = [0.0]
time.monotonic = lambda: passed[0]
if len(sys.argv) > 1:
    log_to(Path(sys.argv[1]), "iter-1-rank")
with progress.Bar(200, "ranking", "row") as bar:
    for _ in range(200):
        with progress.Bar(2, "scoring", "text", inner=True) as inner:
            inner.update(2)
        passed[0] += 3
        bar.show({"loss": 0.5})
        bar.update()
progress.say("a note")
print("done")
"""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, which the test moves on."""
    passed = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: passed[0])
    monkeypatch.setattr(progress, "_places", progress._Places())
    return passed


def on_a_terminal(*arguments: str) -> str:
    """What `WORK` draws on a terminal."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 100))
    process = subprocess.Popen(
        [sys.executable, "-c", WORK, *arguments], stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    found = b""
    while True:
        try:
            ready = select.select([master], [], [], 120)[0]
            assert ready, found
            more = os.read(master, 65536)
        except OSError:  # the terminal's last user has gone
            break
        if not more:
            break
        found += more
    os.close(master)
    assert process.wait(timeout=60) == 0, found
    return found.decode()


def test_a_line_comes_early_then_by_tenths_then_at_the_end(clock, capsys) -> None:
    with progress.Bar(200, "ranking", "row") as bar:
        for _ in range(200):
            clock[0] += 3
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "ranking: 10/200 rows (5%), 3 s/row, 09:30 left"
    assert lines[1].startswith("ranking: 30/200 rows (15%)")
    assert lines[-1] == "ranking: 200/200 rows (100%), 3 s/row, 10:00"
    assert len(lines) == 11


def test_lines_are_half_a_minute_apart(clock, capsys) -> None:
    with progress.Bar(10, "training", "step") as bar:
        for _ in range(10):
            clock[0] += 10
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["3/10", "6/10", "9/10", "10/10"]


def test_resumed_work_has_a_line_and_the_speed_of_its_own_rows(clock, capsys) -> None:
    with progress.Bar(100, "generating", "row", done=90) as bar:
        clock[0] += 5
        bar.update(10)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "generating: 90/100 rows, resumed",
        "generating: 100/100 rows (100%), 2 rows/s, 00:05",
    ]


def test_short_inner_work_and_other_processes_say_nothing(clock, capsys, monkeypatch) -> None:
    with progress.Bar(2, "scoring", "text", inner=True) as bar:
        bar.update(2)
    monkeypatch.setenv("RANK", "1")
    assert list(progress.each("ab", 2, "reference log-probs", "batch")) == ["a", "b"]
    said = capsys.readouterr()
    assert not said.out and not said.err


def test_work_that_fails_has_no_last_line(clock, capsys) -> None:
    with pytest.raises(KeyError), progress.Bar(2, "scoring", "text") as bar:
        bar.update()
        raise KeyError
    assert not capsys.readouterr().err


def test_a_terminal_gets_a_bar_and_its_log_lines(tmp_path: Path) -> None:
    shown = on_a_terminal(str(tmp_path))
    assert "ranking: 100%|" in shown and "\r" in shown and "loss=0.5" in shown
    assert "a note" in shown and "ranking: 10/200" not in shown
    log = (tmp_path / "iter-1-rank.1.log").read_bytes().decode()
    assert "\r" not in log and "\x1b" not in log
    lines = log.splitlines()
    assert lines[0].startswith("ranking: 10/200 rows (5%), 3 s/row") and len(lines) == 13
    assert lines[-2:] == ["a note", "done"] and "loss 0.5000" in lines[0]
    assert "%|" in on_a_terminal(), "without a log there is a bar, too"


def test_a_pipe_and_its_log_get_the_same_lines(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORK, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "\r" not in done.stdout + done.stderr
    log = (tmp_path / "iter-1-rank.1.log").read_text(encoding="utf-8")
    assert sorted(log.splitlines()) == sorted((done.stdout + done.stderr).splitlines())
    assert [path.name for path in tmp_path.iterdir()] == ["iter-1-rank.1.log"]


def test_a_running_stage_notes_how_far_it_is(clock, monkeypatch, tmp_path: Path) -> None:
    log = tmp_path / "iter-1-train.2.log"
    monkeypatch.setattr(progress._places, "note", progress.note_of(log))
    with progress.Bar(8, "training", "step", done=2) as bar:
        clock[0] += 4
        bar.update(3)
        with progress.Bar(5, "inner", "text") as inner:
            inner.update()
        found = {"done": 5, "total": 8, "began_with": 2, "seconds": 4.0}
        assert progress.noted(log) == {"what": "training", "unit": "step", **found}
    assert progress.noted(log) is None and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("verbose", "shown"), [([], False), (["-v"], True)])
def test_libraries_bars_are_shown_on_demand(verbose: list[str], shown: bool) -> None:
    """As the libraries themselves decide it, from the environment that a stage gives them."""
    script = (
        "import sys; from selm.progress import hush_libraries; hush_libraries('-v' in sys.argv)\n"
        "import datasets, huggingface_hub.utils as hub, transformers.utils.logging as logging\n"
        "print(logging.is_progress_bar_enabled(), not hub.are_progress_bars_disabled(),"
        " datasets.utils.logging.is_progress_bar_enabled())"
    )
    names = (*progress._SWITCHES, progress.VERBOSE)
    environment = {key: value for key, value in os.environ.items() if key not in names}
    done = subprocess.run(
        [sys.executable, "-c", script, *verbose], capture_output=True, text=True, env=environment
    )
    assert done.stdout.split() == [str(shown)] * 3, done.stderr


def test_a_log_is_numbered_by_its_attempt(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from selm.run.logs import log_to\n"
    script += "log_to(Path(sys.argv[1]), 'report'); print('hello')"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.1.log", "report.2.log"]


def test_tqdm_is_used_in_one_place() -> None:
    sources = Path(progress.__file__).parent.rglob("*.py")
    users = [path.name for path in sources if "import tqdm" in path.read_text(encoding="utf-8")]
    assert users == ["progress.py"]
