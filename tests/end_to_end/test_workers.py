"""Two Ray workers on this machine: the bytes that one process writes, whatever dies on the way."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from patience import PATIENCE

from selm.data.parquet import read_rows
from selm.run import artifacts

pytestmark = pytest.mark.slow

# Twelve greedy answers of up to 200 tokens, half a second each: a middle to be killed in.
LONG = ("generation.max_tokens=200", "generation.shard_size=1")


def partial(project, kind: str) -> Path:
    return project.folder / "iter-1" / f".{kind}.partial"


def written(project, kind: str) -> bytes:
    return (artifacts.folder(project.recipe, kind, 1) / "train.parquet").read_bytes()


def shards(project, kind: str) -> list[Path]:
    return list(partial(project, kind).glob("shard-*.parquet"))


def at_a_shard(folder: Path) -> list[int]:
    """Process ids of the workers that are at work; Ray makes a process's title say what it does."""
    logs = "".join(log.read_text(encoding="utf-8") for log in folder.glob("worker-*.log"))
    there = [int(pid) for pid in re.findall(r"process (\d+) on", logs)]
    return [pid for pid in there if "ray::_Worker.work" in psutil.Process(pid).cmdline()]


def test_generation_survives_the_death_of_the_stage_and_of_a_worker(project, tmp_path) -> None:
    """kill -9 of the stage while one process does it all; then two workers go on, and one of them
    is killed in the middle of a shard."""
    alone = type(project)(project.recipe_path, tmp_path / "alone", LONG)
    assert alone.stage("generate", 1).returncode == 0

    two = project.with_overrides(*LONG)
    two.killed_at("shard", 2, "generate", 1)
    assert len(shards(two, "responses")) == 2
    two = two.with_overrides("generation.workers=2")
    process = subprocess.Popen(
        two.command("generate", 1),
        cwd=Path(__file__).parents[2],
        env=two.all_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (victims := at_a_shard(partial(two, "responses"))):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(victims[0], signal.SIGKILL)
    out, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert re.search(r"rows (\d+)\.\.\1: the worker process died; a new one is started", said)
    assert "resumed" in said and "12/12" in said
    assert out.splitlines()[-1].startswith(f"{two.folder}/iter-1/responses: written, 12 rows")
    assert written(two, "responses") == written(alone, "responses")
    left = {path.name for path in two.folder.rglob("*") if path.name.startswith((".", "worker"))}
    assert not left, "a partial folder or a worker's log was left"


def test_ranking_is_the_same_with_two_workers_and_a_death(project_copy, tmp_path: Path) -> None:
    """The function ends its process where it is told to, the first time it gets there."""
    reward = tmp_path / "reward.py"
    reward.write_text(
        "import os, pathlib\n"
        "def score(prompt, candidates):\n"
        "    dies = pathlib.Path(os.environ.get('DIES_ONCE', 'nowhere'))\n"
        "    if dies.is_file() and dies.read_text() == prompt[-1]['content']:\n"
        "        dies.unlink()\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return [float(len(text)) for text in candidates]\n",
        encoding="utf-8",
    )
    own = ("ranking.ranker=function", f"ranking.name_or_path={reward}:score")
    alone = project_copy.with_overrides(*own, "ranking.shard_size=2")
    assert alone.stage("rank", 1).returncode == 0
    wanted = written(alone, "preferences")
    (alone.folder / "iter-1/preferences/manifest.json").unlink()

    dies = tmp_path / "dies"
    responses = read_rows(artifacts.folder(alone.recipe, "responses", 1) / "train.parquet")
    dies.write_text(responses[5]["prompt"][-1]["content"], encoding="utf-8")
    two = replace(alone.with_overrides("ranking.workers=2"), environment={"DIES_ONCE": str(dies)})
    done = two.stage("rank", 1)
    assert done.returncode == 0, done.stderr
    assert "rows 4..5: the worker process died; a new one is started" in done.stderr
    assert written(two, "preferences") == wanted


def test_scores_are_the_same_with_two_workers(project_copy, tmp_path: Path) -> None:
    reward = tmp_path / "reward.py"
    reward.write_text(
        "def score(prompt, candidates):\n    return [len(text) for text in candidates]\n",
        encoding="utf-8",
    )
    ranking = f"{{ranker: function, name_or_path: '{reward}:score', shard_size: 2}}"
    judged = project_copy.with_overrides(f"evaluation.ranking={ranking}")
    evaluation = judged.folder / "iter-1/evaluation"
    rows = []
    for workers in (1, 2):
        done = judged.with_overrides(f"evaluation.ranking.workers={workers}").stage("evaluate", 1)
        assert done.returncode == 0, done.stderr
        rows.append((evaluation / "test.parquet").read_bytes())
        (evaluation / "manifest.json").unlink()
    assert rows[0] == rows[1]


FAILURES = """
import os, sys
from pathlib import Path
from selm.cli import run_main
from selm.errors import UserError
from selm.run.workers import Workers, spread

HOW = sys.argv[1]

def load():
    def work(rows):
        if rows == [{"n": 4}] and HOW == "dies":
            os.kill(os.getpid(), 9)
        if rows == [{"n": 4}] and HOW == "allocates":
            import torch
            torch.empty(2**60)
        if rows == [{"n": 4}]:
            raise UserError("the mistake is here")
        return rows
    return work

def main():
    shards = {range(n, n + 2): [{"n": n}] for n in range(0, 8, 2)}
    for span, _ in spread(shards, load, Workers(2), 2, Path(sys.argv[2])):
        print(span.start, flush=True)

run_main(main)
"""


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("raises", 2, "error: the mistake is here"),
        ("allocates", 1, "error: out of memory: .*DefaultCPUAllocator"),
        ("dies", 1, r"error: rows 4\.\.5: 3 worker processes died of it.*worker-\*\.log"),
    ],
)
def test_what_fails_in_a_worker_reaches_the_user(
    tmp_path: Path, how: str, code: int, said: str
) -> None:
    before = {path.name for path in Path("/tmp").glob("selm-ray-*")}
    script = tmp_path / "script.py"
    script.write_text(FAILURES, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script, how, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert re.match(said, done.stderr.splitlines()[-1]), done.stderr
    assert {"0", "2"} <= set(done.stdout.split()), "what others have done before is not lost"
    assert {path.name for path in Path("/tmp").glob("selm-ray-*")} <= before
