"""What `make setup` says: about versions that do not fit together."""

import re
import runpy
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
