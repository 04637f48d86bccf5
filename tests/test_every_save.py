"""Saves are pushed beside the training: one at a time, then the newest; no step waits for it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from loopback_hub import LoopbackHub, User
from patience import PATIENCE

from selm.hub import every_save
from selm.hub.every_save import PushSaves

REPO = "me/tiny-iter-1"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LoopbackHub]:
    started = LoopbackHub([User("me", "hf_me")]).start()
    started.create("models", REPO, private=True, files={})
    online = {"HF_ENDPOINT": started.endpoint, "HF_TOKEN": "hf_me", "HF_HOME": str(tmp_path)}
    for key, value in {**online, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}.items():
        monkeypatch.setenv(key, value)
    yield started
    started.stop()


class Training:
    """What the Trainer does with the callback, with saves of one small file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "steps").mkdir(parents=True)
        (folder / "key.json").write_text("[]", encoding="utf-8")
        self.callback = PushSaves(REPO, folder)

    def does(self, event: str, step: int = 0) -> None:
        state = SimpleNamespace(is_world_process_zero=True, global_step=step, max_steps=9)
        getattr(self.callback, event)(
            SimpleNamespace(output_dir=self.folder / "steps"), state, None
        )

    def saves(self, step: int) -> None:
        save = self.folder / "steps" / f"checkpoint-{step}"
        save.mkdir()
        (save / "optimizer.pt").write_bytes(b"%d" % step)
        self.does("on_save", step)
        (save / "optimizer.pt").unlink()  # as save_total_limit does
        save.rmdir()


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return Training(tmp_path / ".checkpoint.partial")


def wait_until(condition: Callable[[], bool]) -> None:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < PATIENCE
        time.sleep(0.01)


def titles(hub: LoopbackHub) -> list[str]:
    commits = hub.repos["models", REPO].branches.get("saves", [])
    return [commit.title for commit in commits if commit.title != "initial"]


def test_one_save_is_under_way_and_the_newest_waits(hub, training, capsys) -> None:
    answers = threading.Event()
    hub.fail("POST .*/commit/saves", times=100, until=answers)
    for step in (1, 2, 3):
        training.saves(step)
        training.does("on_step_end")
    assert titles(hub) == []
    answers.set()

    def all_pushed() -> bool:
        training.does("on_step_end")
        return "checkpoint-3: pushed" in capsys.readouterr().out

    wait_until(all_pushed)
    assert (titles(hub)[0], titles(hub)[-1]) == ("checkpoint-1", "checkpoint-3")
    assert "checkpoint-2" not in titles(hub)
    files = hub.files("models", REPO, "saves")
    assert files == {"key.json": b"[]", "checkpoint-3/optimizer.pt": b"3"}


def test_a_push_is_given_up_when_the_training_ends(hub, training, capsys, monkeypatch) -> None:
    monkeypatch.setattr(every_save, "LAST_SECONDS", 0.1)
    hub.fail("POST .*/commit/saves", times=100, until=threading.Event())
    training.saves(1)
    training.does("on_train_end")
    said = capsys.readouterr().out
    assert said == "checkpoint-1: given up on the Hub, for the training has ended\n"
    assert not (training.folder / "push").exists()
    assert titles(hub) == []


def test_a_save_that_cannot_be_linked_is_one_line(hub, training, capsys) -> None:
    (training.folder / "push").write_bytes(b"in its place")
    training.saves(1)
    training.does("on_train_end")
    said = capsys.readouterr().out
    assert said.startswith("checkpoint-1: not pushed to the Hub: ") and said.count("\n") == 1


START = """
import os, signal, sys
from pathlib import Path
from selm.hub.every_save import start
save, key = map(Path, sys.argv[1:])
print(start("me/tiny-iter-1", save, key).pid, flush=True)
sys.stdin.read()
"""


def test_a_push_ends_with_a_training_that_is_killed(hub, tmp_path: Path) -> None:
    answers = threading.Event()
    hub.fail("POST .*/commit/saves", times=100, until=answers)
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "key.json").write_text("[]", encoding="utf-8")
    words = [sys.executable, "-c", START, tmp_path / "checkpoint-1", tmp_path / "key.json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as training:
        assert training.stdout is not None
        push = os.pidfd_open(int(training.stdout.readline()))
        wait_until(lambda: "saves" in hub.repos["models", REPO].branches)
        training.kill()
    try:
        wait_until(lambda: has_ended(push))
    finally:
        os.close(push)
        answers.set()


def has_ended(process: int) -> bool:
    try:
        signal.pidfd_send_signal(process, 0)
    except ProcessLookupError:
        return True
    return False
