"""One process at a time: who holds a lock, who lets go of it, and who waits."""

import errno
import fcntl
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from selm.errors import OutsideError, UserError
from selm.run import alone

HOLD = """
import os, pathlib, sys, time
from selm.run.alone import lock

held = lock(pathlib.Path(sys.argv[1]))
if os.fork():
    print("held", flush=True)
time.sleep(900)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".locks" / "a"


@pytest.fixture
def holder(path: Path):
    """Another process that holds the lock; a child of it outlives it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None and process.stdout.readline() == b"held\n"
    yield process
    os.killpg(process.pid, 9)
    process.wait()


def test_the_second_is_told_who_was_first(path: Path, holder: subprocess.Popen[bytes]) -> None:
    it = f"process {holder.pid} on {socket.gethostname()}"
    with pytest.raises(OutsideError, match=f"{path}: {it} is already working on this stage"):
        alone.lock(path)


def test_a_killed_process_holds_nothing(path: Path, holder: subprocess.Popen[bytes]) -> None:
    """Nor do its children."""
    holder.kill()
    holder.wait()
    alone.lock(path).close()
    assert path.read_text(encoding="utf-8") == f"process {os.getpid()} on {socket.gethostname()}\n"


def test_a_lost_machine_is_waited_for(
    path: Path, holder: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock goes away after a while; one that stays is another machine at work."""
    path.write_text("process 7 on node-7\n", encoding="utf-8")
    monkeypatch.setattr(alone, "PATIENCE", 0.1)
    with pytest.raises(OutsideError, match="process 7 on node-7 is already working on this stage"):
        alone.lock(path)
    monkeypatch.setattr(alone, "PATIENCE", 30)
    threading.Timer(0.5, holder.kill).start()
    alone.lock(path).close()


@pytest.mark.parametrize("kind", ["link", "folder's link", "hard link", "fifo", "folder"])
def test_no_link_is_followed(path: Path, kind: str, tmp_path: Path) -> None:
    """In a folder that others write to, too, what they point to is not overwritten."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "a").write_text("precious", encoding="utf-8")
    if kind == "folder's link":
        path.parent.symlink_to(theirs)
    else:
        path.parent.mkdir()
        {
            "link": lambda: path.symlink_to(theirs / "a"),
            "hard link": lambda: path.hardlink_to(theirs / "a"),
            "fifo": lambda: os.mkfifo(path),
            "folder": path.mkdir,
        }[kind]()
    with pytest.raises(UserError, match=f"{path}: there is a link, or not a plain file"):
        alone.lock(path)
    assert (theirs / "a").read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_disk_without_locks_is_worked_on(
    path: Path, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    alone.lock(path).close()
    assert "this disk has no file locks" in capsys.readouterr().out


def test_what_others_wrote_into_a_lock_is_shown_harmless(path: Path, holder, monkeypatch) -> None:
    path.write_bytes(b"\x1b[31m \xff process 7")
    monkeypatch.setattr(alone, "PATIENCE", 0.1)
    with pytest.raises(OutsideError) as caught:
        alone.lock(path)
    assert "\x1b" not in str(caught.value)
