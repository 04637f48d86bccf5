"""`make doctor` says what a report of a problem needs, without secrets, whatever is broken."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from selm.check import doctor
from selm.run.writing import code_commit

SCRIPT = Path(__file__).parents[1] / "scripts" / "doctor.py"


def said(*options: str, **environment: str) -> list[str]:
    found = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/root"), **environment}
    done = subprocess.run(
        [sys.executable, *options, str(SCRIPT)], capture_output=True, text=True, env=found
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_every_question_has_an_answer() -> None:
    lines = said()
    assert {line.split()[0] for line in lines} == set(doctor.LOOKS)
    text = "\n".join(lines)
    assert "cannot be found out" not in text
    assert f"torch {doctor.version('torch')}" in text
    assert f"python      {sys.version.split()[0]}" in text
    assert str(code_commit() or "").removesuffix("-dirty") in text
    assert len([line for line in lines if re.match(r"disk +\d+\.\d GB free for ", line)]) == 4


def test_secrets_and_names_are_not_printed() -> None:
    secrets = {
        "HF_TOKEN": "hf_" + "s" * 20,
        "WANDB_API_KEY": "0123456789",
        "OPENAI_API_KEY": "sk-unknown",
        "HTTPS_PROXY": "http://me:pw@proxy",
        "HF_ENDPOINT": "http://inside",
        "MY_OWN_SECRET": "hidden",
        "OMP_NUM_THREADS": "2; export X=secret",
    }
    text = "\n".join(said(**secrets, HF_HUB_OFFLINE="1"))
    assert not [value for value in secrets.values() if value in text]
    assert "MY_OWN_SECRET" not in text
    assert re.search(r"HF_TOKEN is set$", text, re.MULTILINE)
    assert "HF_HUB_OFFLINE = 1" in text
    assert "HF_TOKEN is not set" in "\n".join(said())


def test_the_home_folder_is_not_named() -> None:
    assert doctor._without_home(f"in {Path.home()}/selm") == "in ~/selm"


def test_it_needs_no_package_and_no_program() -> None:
    """As where the set-up has failed: no site-packages, no git, no nvidia-smi, no UTF-8."""
    lines = said("-S", PATH="/nowhere", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    text = "\n".join(lines)
    assert "none of selm's are installed: make setup" in text
    assert "git is not installed" in text and "nvidia-smi is missing" in text
    assert "0 of " in next(line for line in lines if "cpu.lock" in line)


def test_what_differs_from_a_lock_is_named(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    numpy = doctor.version("numpy")
    lock.write_text(f"# a comment\nnumpy=={numpy}\ntorch==1.0\nno-such-package==2\n")
    pins = doctor.pins(lock)
    assert pins == {"numpy": numpy, "torch": "1.0", "no-such-package": "2"}
    found = doctor._compared(pins)
    torch = doctor.version("torch")
    assert found == (
        f"1 of 3 packages as in the lock; missing: no-such-package; others: torch {torch} "
        "(lock: 1.0)"
    )


def test_a_look_that_fails_does_not_end_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[str]:
        raise RuntimeError("a secret path")

    monkeypatch.setitem(doctor.LOOKS, "memory", broken)
    lines = list(doctor.lines())
    assert "memory      cannot be found out: RuntimeError" in lines
    assert lines[-1].startswith("environment")
