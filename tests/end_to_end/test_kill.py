"""`kill -9` in the middle of a stage, then the same command: the same result as without."""

import fcntl
import json
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import torch
from patience import PATIENCE
from transformers import AutoModelForCausalLM

from selm.data.parquet import read_rows
from selm.run import artifacts

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]


def rows(project, kind: str) -> list:
    return read_rows(artifacts.folder(project.recipe, kind, 1) / "train.parquet")


def shards(project, kind: str) -> list[Path]:
    return list((project.folder / "iter-1" / f".{kind}.partial").glob("shard-*.parquet"))


def test_generate(project, finished) -> None:
    """Twelve shards of one row; the first one is kept."""
    slow = project.with_overrides("generation.shard_size=1")
    slow.stage("answer", 0)
    slow.killed_at("shard", 1, "generate", 1)
    assert len(shards(slow, "responses")) == 1
    assert not (slow.folder / "iter-1" / "responses").exists()
    again = slow.stage("generate", 1)
    assert again.returncode == 0, again.stderr
    assert "resumed" in again.stderr, again.stdout
    assert rows(slow, "responses") == rows(finished, "responses")


@pytest.fixture
def counting_ranker(tmp_path: Path) -> Path:
    """Scores lengths, and writes the prompt of each call to a file beside it: `calls`."""
    file = tmp_path / "slow.py"
    file.write_text(
        "calls = open(__file__ + '.calls', 'a')\n"
        "def score(prompt, candidates):\n"
        "    print(prompt[-1]['content'], file=calls, flush=True)\n"
        "    return [float(len(text)) for text in candidates]\n",
        encoding="utf-8",
    )
    return file


def calls(ranker: Path) -> list[str]:
    return Path(f"{ranker}.calls").read_text(encoding="utf-8").splitlines()


def test_rank(project_copy, finished, counting_ranker: Path) -> None:
    slow = project_copy.with_overrides(
        "ranking.ranker=function",
        f"ranking.name_or_path={counting_ranker}:score",
        "ranking.shard_size=2",
    )
    slow.killed_at("shard", 2, "rank", 1)
    assert slow.stage("rank", 1).returncode == 0
    found = rows(slow, "preferences")
    assert len({row["prompt_id"] for row in found}) == len(found)
    assert len(calls(counting_ranker)) == 12, "a finished shard was ranked again"

    undisturbed = slow.with_overrides("run_name=undisturbed")
    (project_copy.output_dir / "undisturbed/iter-1").mkdir(parents=True)
    (project_copy.folder / "iter-1/responses").rename(
        project_copy.output_dir / "undisturbed/iter-1/responses"
    )
    assert undisturbed.stage("rank", 1).returncode == 0
    assert rows(undisturbed, "preferences") == found


def test_evaluate(project_copy, counting_ranker: Path) -> None:
    """Eight answers in four shards; answers of both policies stay as another judge scores them."""
    ranking = f"{{ranker: function, name_or_path: '{counting_ranker}:score', shard_size: 2}}"
    judged = project_copy.with_overrides(f"evaluation.ranking={ranking}")
    judged.killed_at("shard", 2, "evaluate", 1)
    assert len(shards(judged, "evaluation")) == 2
    again = judged.stage("evaluate", 1)
    assert again.returncode == 0, again.stderr
    assert "resumed" in again.stderr, again.stdout
    assert len(calls(counting_ranker)) == 8, "a finished shard was scored again"
    answers, base = (
        read_rows(artifacts.folder(judged.recipe, "answers", t) / "test.parquet") for t in (1, 0)
    )
    found = read_rows(artifacts.folder(judged.recipe, "evaluation", 1) / "test.parquet")
    for row, answer, of_base in zip(found, answers, base, strict=True):
        assert row["response"] == answer["responses"][0]
        assert row["reward"] == len(row["response"])
        assert row["reward_of_base"] == len(of_base["responses"][0])


def test_logps(project) -> None:
    """Eight pairs in four shards, two are kept: the numbers are those of an undisturbed call."""
    slow = project.with_overrides("generation.shard_size=2")
    slow.killed_at("shard", 2, "logps", 0)
    partial = slow.folder / "iter-0" / ".logps.partial"
    kept = {path.name: path.read_bytes() for path in partial.glob("shard-*.parquet")}
    assert len(kept) == 2 and not (slow.folder / "iter-0" / "logps").exists()
    again = slow.stage("logps", 0)
    assert again.returncode == 0, again.stderr
    assert "resumed" in again.stderr, again.stdout
    assert "iter-0/logps: written, 8 rows" in again.stdout.splitlines()[-1]
    undisturbed = project.with_overrides("run_name=undisturbed")
    assert undisturbed.stage("logps", 0).returncode == 0
    found, wanted = (
        read_rows(artifacts.folder(each.recipe, "logps", 0) / "test.parquet")
        for each in (slow, undisturbed)
    )
    for row, other in zip(found, wanted, strict=True):
        assert row["prompt_id"] == other["prompt_id"]
        assert row["chosen_logps"] == pytest.approx(other["chosen_logps"], abs=1e-3)


def test_train(project_copy, finished) -> None:
    """Killed after a saved step, it goes on from there and ends at the same weights."""
    slow = project_copy.with_overrides("training.save_steps=1")
    checkpoint = slow.folder / "iter-2" / "checkpoint"
    wanted = AutoModelForCausalLM.from_pretrained(checkpoint).state_dict()
    wanted_log = json.loads((checkpoint / "training_log.json").read_text(encoding="utf-8"))
    (checkpoint / "manifest.json").unlink()
    slow.killed_at("save", 1, "train", 2)
    again = slow.stage("train", 2)
    assert again.returncode == 0, again.stderr
    assert "resuming from" in again.stdout
    found = AutoModelForCausalLM.from_pretrained(checkpoint).state_dict()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    log = json.loads((checkpoint / "training_log.json").read_text(encoding="utf-8"))
    for one, other in zip(log, wanted_log, strict=True):
        assert one.get("loss") == pytest.approx(other.get("loss"), abs=1e-5)


def is_free(lock: Path) -> bool:
    with lock.open("a", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.mark.parametrize("processes", [1, 2])
def test_train_ends_with_its_launcher(project_copy, processes: int) -> None:
    """Only the launcher is killed; its processes do not go on behind the next one's back."""
    config = {1: "single", 2: "ddp"}[processes]
    slow = project_copy.with_overrides(
        "training.save_steps=1",
        "training.num_train_epochs=50",
        f"training.num_processes={processes}",
        f"training.accelerate_config=accelerate_configs/{config}.yaml",
    )
    partial = slow.folder / "iter-1" / ".checkpoint.partial" / "steps"
    launcher = subprocess.Popen(
        slow.command("train", 1), cwd=REPOSITORY, env=slow.all_environment()
    )
    until = time.monotonic() + PATIENCE
    while not any(partial.glob("checkpoint-*/files.json")):
        assert launcher.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    lock = slow.output_dir / ".locks" / "tiny-iter-1-train"
    assert not is_free(lock)
    launcher.kill()
    launcher.wait()
    until = time.monotonic() + PATIENCE  # fifty epochs, that is 150 saves, would take longer
    while not is_free(lock):
        assert time.monotonic() < until, "it trains on"
        time.sleep(0.01)


def test_a_stage_is_made_by_one_process_at_a_time(project) -> None:
    slow = project.with_overrides("generation.shard_size=1")
    slow.stage("answer", 0)
    first = subprocess.Popen(
        slow.command("generate", 1), cwd=REPOSITORY, env=slow.all_environment()
    )
    while not shards(slow, "responses"):
        assert first.poll() is None
        time.sleep(0.001)
    first.send_signal(signal.SIGSTOP)
    second = slow.stage("generate", 1)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 1
    assert (
        f"process {first.pid} on {socket.gethostname()} is already working on this stage"
        in second.stderr
    )
    assert first.wait() == 0
    assert len(rows(slow, "responses")) == 12
