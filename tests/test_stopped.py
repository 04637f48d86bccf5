"""What ends a stage early is one line: why, what is kept, how to go on."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from selm import cli
from selm.run import artifacts, stopped, temporary
from selm.run.writing import code_commit

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The partial folder of a stage that has begun."""
    folder = tmp_path / "runs" / "a" / "iter-1" / "responses"
    partial = folder.with_name(".responses.partial")
    partial.mkdir(parents=True)
    work = stopped.Work(tmp_path / "runs", "responses", folder, partial, "python scripts/x.py r")
    monkeypatch.setattr(stopped, "work", work)
    return partial


def ended(main: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        cli.run_main(main)
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return int(str(caught.value.code)), said


@pytest.mark.parametrize(
    ("number", "word"),
    [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP")],
)
def test_a_signal_is_one_line(number: signal.Signals, word: str, at_work: Path, capsys) -> None:
    (at_work / "shard-00000000-00000004.parquet").touch()
    before = signal.getsignal(number)
    code, said = ended(lambda: os.kill(os.getpid(), number), capsys)
    assert code == 128 + number
    assert said == (
        f"stopped by {word}: 1 finished shard is kept in {at_work}; continue with: "
        "python scripts/x.py r\n"
    )
    assert signal.getsignal(number) is before


def test_what_is_kept_of_a_ranking_are_its_verdicts_too(
    at_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "verdicts"
    folder.mkdir()
    (folder / "verdicts-1.jsonl").touch()  # of a stage before this one
    monkeypatch.setattr(stopped, "work", replace(stopped.work, verdicts=folder))
    assert stopped.kept() == "no shard was finished yet; continue with: python scripts/x.py r"
    (folder / "verdicts-2.jsonl").touch()
    assert stopped.kept().startswith(
        f"no shard was finished yet, and all verdicts are kept in {folder}; continue with: "
    )
    (at_work / "shard-00000000-00000004.parquet").touch()
    assert stopped.kept().startswith(
        f"1 finished shard is kept in {at_work}, and all verdicts are kept in {folder}; "
    )


def test_what_is_kept_of_a_training_is_its_last_save(tmp_path: Path, monkeypatch) -> None:
    partial = tmp_path / ".checkpoint.partial"
    monkeypatch.setattr(
        stopped, "work", stopped.Work(tmp_path, "checkpoint", tmp_path / "c", partial, "again")
    )
    assert stopped.kept().startswith("no step was saved yet")
    for step in (2, 10):
        (partial / "steps" / f"checkpoint-{step}").mkdir(parents=True)
        (partial / "steps" / f"checkpoint-{step}" / "trainer_state.json").touch()
    (partial / "steps" / "checkpoint-12").mkdir()  # not written to its end
    assert stopped.kept() == f"the save {partial}/steps/checkpoint-10 is kept; continue with: again"


def fail_in_python() -> None:
    with open("/dev/full", "w", encoding="utf-8") as file:
        file.write("x")


def fail_in_torch() -> None:
    with open("/dev/full", "wb") as file:
        torch.save(torch.zeros(10_000_000), file)


def fail_in_safetensors() -> None:
    """In its words. It renames what it writes: given /dev/full it would replace the device."""
    raise SafetensorError("I/O error: No space left on device (os error 28)")


def fail_behind_another_error() -> None:
    try:
        fail_in_python()
    except OSError as error:
        raise ValueError("the data could not be made") from error


def fail_over_quota() -> None:
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "some/file")


def fail_as_torch_does() -> None:
    raise RuntimeError("[enforce fail at inline_container.cc:783] . unexpected pos 9 vs 8")


@pytest.mark.parametrize(
    "fail",
    [
        fail_in_python,
        fail_in_torch,
        fail_in_safetensors,
        fail_behind_another_error,
        fail_over_quota,
        fail_as_torch_does,
    ],
)
def test_a_full_disk_is_one_line(fail: Callable[[], None], at_work: Path, capsys) -> None:
    code, said = ended(fail, capsys)
    assert code == 1
    assert (
        said.startswith("error: disk full: ") and "no shard was finished yet; continue with" in said
    )


def test_an_error_of_ours_keeps_its_traceback(at_work: Path) -> None:
    for error in (OSError(errno.EACCES, "no", "/elsewhere"), RuntimeError("a bug"), KeyError("b")):

        def fail(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)):
            cli.run_main(fail)


def a_file_in_its_place(output: Path) -> Path:
    output.write_text("mine", encoding="utf-8")
    return output


def a_file_above_it(output: Path) -> Path:
    output.write_text("mine", encoding="utf-8")
    return output / "deeper" / "runs"


def where_nothing_can_be(output: Path) -> Path:
    return Path("/proc/selm/runs")


@pytest.mark.parametrize("place", [a_file_in_its_place, a_file_above_it, where_nothing_can_be])
@pytest.mark.parametrize("script", ["plan.py", "answer.py"])
def test_an_output_folder_that_cannot_be_is_one_line(
    script: str,
    place: Callable[[Path], Path],
    tiny_recipe: str,
    tmp_path: Path,
    capsys,
    monkeypatch,
) -> None:
    output = place(tmp_path / "runs")
    words = [script, tiny_recipe, f"output_dir={output}"]

    def main() -> None:
        if script == "plan.py":
            run = cli.parse_run("")
            cli.keep_text(artifacts.run_folder(run.recipe) / "plan.sh", "text")
        else:
            run, t = cli.parse_iteration("", first=0)
            stage = cli.Stage(run, "answers", t)
            assert not stage.is_done()
            stage.begin()

    iteration = ["--iteration", "0"] if script == "answer.py" else []
    monkeypatch.setattr(sys, "argv", [*words, *iteration])
    code, said = ended(main, capsys)
    assert code == 2
    assert said.startswith(f"error: output_dir: {output} cannot be written"), said


@pytest.mark.parametrize("git", [None, "refuses", "may not be run"])
def test_without_git_there_is_no_commit(git: str | None, tmp_path: Path, monkeypatch) -> None:
    assert code_commit() is None or len(str(code_commit())) >= 40
    if git is not None:
        script = "#!/bin/sh\necho 'fatal: detected dubious ownership' >&2\nexit 128\n"
        (tmp_path / "git").write_text(script, encoding="utf-8")
        (tmp_path / "git").chmod(0o755 if git == "refuses" else 0o644)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_commit() is None


TEMPORARY = """
import os, signal, sys, tempfile
from selm.run import temporary
temporary.own_folder()
print(tempfile.mkdtemp(), os.environ["TMPDIR"])
sys.stdout.flush()
if sys.argv[1] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_temporary_files_are_gone_with_their_process(tmp_path: Path) -> None:
    """With a killed one they stay, and the next one deletes them."""

    def run(how: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", TEMPORARY, how],
            env=os.environ | {"TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.split()

    made, folder = run("kill")
    assert Path(made).parent == Path(folder) and Path(made).is_dir()
    (tmp_path / "selm-ray-7").mkdir()  # another's
    with temporary.folder(str(tmp_path)) as used:
        assert not Path(folder).exists()
        run("end")
        assert Path(used).is_dir()
    assert os.listdir(tmp_path) == ["selm-ray-7"]


def test_a_process_that_we_fork_dies_of_the_signal() -> None:
    """As the workers of a reward file's Pool, which ends them so, however early it comes."""
    with stopped.listening(main=True):
        for _ in range(50):
            child = os.fork()
            if child == 0:
                try:
                    time.sleep(10)
                finally:
                    os._exit(3)  # our handler raised there, or the signal was lost
            os.kill(child, signal.SIGTERM)
            _, status = os.waitpid(child, 0)
            assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is stopped._raise
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
