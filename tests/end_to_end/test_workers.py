"""Two Ray workers on this machine: the rows of one process, whatever happens to a worker."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from selm import artifacts, data

pytestmark = pytest.mark.slow

TWO = ("generation.workers=2", "generation.shard_size=1", "ranking.workers=2")
# 12 prompts at 200 tokens: about a second each, so that there is a middle to be killed in.
LONG = ("generation.max_tokens=200", "generation.shard_size=1")


def partial(project, kind: str) -> Path:
    return project.folder / "iter-1" / f".{kind}.partial"


def written(project, kind: str) -> bytes:
    return (artifacts.folder(project.recipe, kind, 1) / "train.parquet").read_bytes()


def shards(project, kind: str) -> list[Path]:
    return list(partial(project, kind).glob("shard-*.parquet"))


@pytest.fixture(scope="module")
def long_answers(finished, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What one process writes in `LONG`."""
    alone = type(finished)(finished.recipe_path, tmp_path_factory.mktemp("alone"), LONG)
    done = alone.stage("generate", 1)
    assert done.returncode == 0, done.stderr
    return written(alone, "responses")


def test_two_workers_write_what_one_process_writes(project, finished) -> None:
    two = project.with_overrides(*TWO)
    for script, kind in (("generate", "responses"), ("rank", "preferences")):
        done = two.stage(script, 1)
        assert done.returncode == 0, done.stderr
        assert written(two, kind) == written(finished, kind)
        assert "12/12" in done.stderr, "the progress bar counts rows"
        assert done.stdout.splitlines()[-1].startswith(f"{two.folder}/iter-1/{kind}: written, 12")
    left = {path.name for path in two.folder.rglob("*") if path.name.startswith((".", "worker"))}
    assert not left, "a partial folder or a worker's log was left"


def test_a_killed_worker_costs_nothing_but_time(project, long_answers: bytes) -> None:
    """kill -9 of one of two workers, at one of the shards that come after the first."""
    two = project.with_overrides(*LONG, "generation.workers=2")
    process = subprocess.Popen(
        two.command("generate", 1),
        cwd=Path(__file__).parents[2],
        env=two.all_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = partial(two, "responses") / "worker-0.log"
    while not (shards(two, "responses") and log.is_file()):
        assert process.poll() is None
        time.sleep(0.001)
    os.kill(int(re.findall(r"process (\d+)", log.read_text())[0]), signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert re.search(r"rows (\d+)\.\.\1: the worker process died, another one is started", said)
    assert written(two, "responses") == long_answers


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_killed_stage_goes_on_with_any_number_of_workers(
    project, long_answers: bytes, before: int, after: int
) -> None:
    first = project.with_overrides(*LONG, f"generation.workers={before}")
    first.killed("generate", 1, ready=lambda: len(shards(first, "responses")) >= 2)
    assert 2 <= len(shards(first, "responses")) < 12
    done = first.with_overrides(f"generation.workers={after}").stage("generate", 1)
    assert done.returncode == 0, done.stderr
    assert "resumed" in done.stderr
    assert written(first, "responses") == long_answers


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (
            "raise ValueError('not this one')",
            2,
            r"error: \S+bad.py:score: ValueError: not this one",
        ),
        ("os.kill(os.getpid(), 9)", 1, r"error: rows 4\.\.5: 3 worker processes died of it"),
    ],
)
def test_what_fails_in_a_worker_reaches_the_user(
    project_copy, tmp_path: Path, body: str, code: int, said: str
) -> None:
    """Rows 4 and 5 are one shard; the others are kept."""
    rows = data.read(artifacts.folder(project_copy.recipe, "responses", 1) / "train.parquet")
    bad = tmp_path / "bad.py"
    bad.write_text(
        "import os\n"
        "def score(prompt, candidates):\n"
        f"    if prompt[-1]['content'] == {rows[4]['prompt'][-1]['content']!r}:\n"
        f"        {body}\n"
        "    return [float(len(text)) for text in candidates]\n"
    )
    failing = project_copy.with_overrides(
        "ranking.ranker=function",
        f"ranking.name_or_path={bad}:score",
        "ranking.workers=2",
        "ranking.shard_size=2",
    )
    done = failing.stage("rank", 1)
    assert done.returncode == code, done.stderr
    assert re.match(said, done.stderr.splitlines()[-1]), done.stderr
    assert shards(failing, "preferences")
