"""One process at a time: who holds a lock, who lets go of it, and who waits."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from selm import alone
from selm.errors import OutsideError


def test_the_second_is_told_who_was_first(tmp_path: Path) -> None:
    first = alone.lock(tmp_path / "logs" / "a.lock")
    me = f"process {os.getpid()} on {socket.gethostname()}"
    with pytest.raises(OutsideError, match=f"a.lock: {me} makes this already"):
        alone.lock(tmp_path / "logs" / "a.lock")
    first.close()
    alone.lock(tmp_path / "logs" / "a.lock").close()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import sys, pathlib, time; from selm.alone import lock\n"
            "held = lock(pathlib.Path(sys.argv[1])); print('held', flush=True); time.sleep(60)",
            str(tmp_path / "a.lock"),
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    with pytest.raises(OutsideError, match=f"process {holder.pid} "):
        alone.lock(tmp_path / "a.lock")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    alone.lock(tmp_path / "a.lock").close()


def test_a_lost_machine_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock goes away after a while; one that stays is another machine at work."""
    path = tmp_path / "a.lock"
    held = alone.lock(path)
    path.write_text("process 7 on node-7\n")
    monkeypatch.setattr(alone, "PATIENCE", 0.1)
    with pytest.raises(OutsideError, match="process 7 on node-7 makes this already"):
        alone.lock(path)
    monkeypatch.setattr(alone, "PATIENCE", 30)
    threading.Timer(0.5, held.close).start()
    alone.lock(path).close()
    assert path.read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
