"""docs/tutorial.md from top to bottom: all its commands, in one shell, on the tiny model."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from loopback_hub import LoopbackHub, User
from patience import PATIENCE

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "tutorial.md"
COPIED = ("Makefile", "accelerate_configs", "recipes", "scripts", "src")
# The sweep has two runs of one short iteration in place of six runs of two.
SIX_RUNS = "seed=1,2,3"
TWO_RUNS = "seed=1 data.limit=16 'iterations=[{objective: selm, learning_rate: 1e-3}]'"
MARK = "== "  # begins the line before each block's output


@dataclass(frozen=True)
class Block:
    """Consecutive indented lines, and the number of the first."""

    line: int
    text: str


@dataclass(frozen=True)
class Told:
    """The tutorial, once it is over.

    Attributes:
        said: what each block's commands printed, stdout and stderr together, by its first command.
    """

    folder: Path
    said: Mapping[str, str]
    hub: LoopbackHub


def blocks(page: str) -> list[Block]:
    """The indented blocks of a page in Markdown; blank lines within one are part of it.

    >>> blocks("Text:\\n\\n    cd a\\n\\n    ls\\n\\n- an item\\n  of two lines\\n")
    [Block(line=3, text='cd a\\n\\nls\\n')]
    """
    found, lines = list[Block](), [*page.splitlines(), "end"]
    start = None
    for number, line in enumerate(lines):
        if line.startswith("    "):
            start = number if start is None else start
        elif line and start is not None:
            text = textwrap.dedent("\n".join(lines[start:number])).strip("\n")
            found.append(Block(start + 1, f"{text}\n"))
            start = None
    return found


def first_command(block: Block) -> str:
    return block.text.splitlines()[0]


@pytest.fixture(scope="module")
def told(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The tiny model lies where the quickstart's does; no command is changed but the sweep's."""
    folder = tmp_path_factory.mktemp("tutorial")
    for name in COPIED:
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, folder / name)
    shutil.copytree(tiny_model, folder / "models" / "smollm2-135m-instruct")
    (folder / ".venv").symlink_to(sys.prefix)
    parts = blocks(PAGE.read_text(encoding="utf-8"))
    script = "".join(f"echo '{MARK}{number}'\n{part.text}" for number, part in enumerate(parts))
    assert script.count(SIX_RUNS) == 3, "the sweep is planned, run, and asked for its best"
    hub = LoopbackHub([User("me", "hf_me")]).start()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"exec 2>&1\n{script.replace(SIX_RUNS, TWO_RUNS)}"],
        cwd=folder,
        env=environment(folder, hub),
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    _, *outputs = re.split(rf"^{MARK}\d+\n", done.stdout, flags=re.MULTILINE)
    last = parts[len(outputs) - 1]
    assert done.returncode == 0, f"{PAGE}, block in line {last.line}: {outputs[-1]}"
    commands = map(first_command, parts)
    return Told(folder, dict(zip(commands, outputs, strict=True)), hub)


def environment(folder: Path, hub: LoopbackHub) -> dict[str, str]:
    """That of a user with a token who has no screen; the copy's package is imported.

    What `make test` hands on is left out: a make below it names its folder around each answer.
    """
    dropped = ("HF_HUB_OFFLINE", "DISPLAY", "WAYLAND_DISPLAY")
    dropped += tuple(key for key in os.environ if key.startswith(("MAKE", "MFLAGS")))
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    return kept | {
        "PYTHONPATH": str(folder / "src"),
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": "hf_me",
        "HF_HOME": str(folder / "home"),
        "HF_HUB_DISABLE_XET": "1",
    }


def test_an_indented_block_ends_with_its_last_command() -> None:
    page = "Text:\n\n    cd a\n\n    ls\n\n- an item\n  of two lines\n\n    pwd\n"
    assert blocks(page) == [Block(3, "cd a\n\nls\n"), Block(10, "pwd\n")]


def test_the_reward_that_is_tried_by_hand_prefers_the_answer_that_the_page_says(told) -> None:
    scores = json.loads(told.said["PYTHONPATH=mine python - <<'END'"])
    assert max(scores) == scores[1]


def test_plan_and_check_say_what_the_page_says(told) -> None:
    written = told.said["cat > mine/selm.yaml <<'END'"]
    assert "scripts/train.py mine/selm.yaml --iteration 2" in written
    assert "PROBLEM" not in written
    refused = next(said for command, said in told.said.items() if "training.alhpa" in command)
    assert "did you mean alpha?" in refused
    assert refused.endswith("refused, as it should be\n")


def test_the_run_ends_with_a_report_and_the_page_is_found(told) -> None:
    said = told.said["bash scripts/run.sh mine/selm.yaml"].splitlines()
    assert "report.md" in said[-1]
    viewed = told.said["make view RUN=runs/about-words"].strip()
    assert viewed == "runs/about-words/report/report.html"
    status = told.said["make status RUN=runs/about-words"]
    assert "13 of 13 stages are done" in status


def test_held_out_prompts_are_as_many_as_the_page_says(told) -> None:
    path = told.folder / "runs/about-words/report/metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    assert [entry["n"] for entry in metrics["iterations"]] == [18, 18, 18]
    assert "18 that are held out" in PAGE.read_text(encoding="utf-8")


def test_the_sweep_is_compared_and_a_best_alpha_is_named(told) -> None:
    swept = told.folder / "runs/about-words-sweep"
    assert (swept / "compare/report.md").is_file()
    asked = next(said for command, said in told.said.items() if command.endswith("--select"))
    assert asked.startswith("best: alpha ")
    assert (told.folder / "runs/about-words-compared/report.md").is_file()


def test_model_and_page_are_on_the_hub_and_private(told) -> None:
    mine = {name: repo for (_, name), repo in told.hub.repos.items()}
    assert {"me/about-words-iter-1", "me/about-words-iter-2"} <= mine.keys()
    assert all(repo.private for repo in mine.values())
    there = told.hub.files("datasets", "me/about-words-evaluation", "report")
    page = (told.folder / "about-words.html").read_bytes()
    assert there["report/report.html"] == page
