"""The scripts with other rankers than chance: killed judges, models, functions that fail."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import alpaca_files
import mt_bench_questions
import pytest
from chat_server import TEMPLATE, Reply, error, longer_wins, serving
from patience import PATIENCE

from selm.data.parquet import read_rows
from selm.run import artifacts

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).parents[2]
SECRET = "sk-Secret123"


def preferences(project) -> list:
    return read_rows(artifacts.folder(project.recipe, "preferences", 1) / "train.parquet")


def manifest(project, kind: str, t: int) -> dict:
    return artifacts.read_manifest(project.recipe, kind, t)


@pytest.fixture
def judged(project_copy, tmp_path: Path):
    """The URL of a judge and further overrides in; the finished run, to be ranked by it, out."""
    (tmp_path / "judge.txt").write_text(TEMPLATE, encoding="utf-8")

    def make(url: str, *overrides: str):
        return project_copy.with_overrides(
            *("ranking.ranker=judge", "ranking.name_or_path=some-model"),
            *(f"ranking.judge.base_url={url}", f"ranking.judge.template={tmp_path / 'judge.txt'}"),
            *overrides,
        )

    return make


def test_a_killed_judge_goes_on_without_asking_again(judged, tmp_path: Path) -> None:
    """One shard of twelve prompts, 72 questions, four at a time: nothing is saved but verdicts.

    The only answers that may be asked for again are those under way when the kill came.
    """

    def slow(body: dict) -> Reply:
        return replace(longer_wins(body), wait_seconds=0.05)

    with serving(slow) as server:
        project = judged(server.url, "ranking.shard_size=100", "ranking.judge.concurrency=4")
        project.killed("rank", 1, ready=lambda: len(server.answered) >= 20)
        time.sleep(0.2)
        asked_before = Counter(server.answered)
        assert 20 <= len(asked_before) < 72
        assert not list((project.folder / "iter-1/.preferences.partial").glob("*.parquet"))
        done = project.stage("rank", 1)
        assert done.returncode == 0, done.stderr
        asked = Counter(server.answered)
        before_second = len(server.bodies)
        found = preferences(project)

        undisturbed = project.with_overrides("ranking.judge.concurrency=1")
        artifact = artifacts.folder(project.recipe, "preferences", 1)
        (artifact / "manifest.json").unlink()
        again = undisturbed.stage("rank", 1)
        assert again.returncode == 0, again.stderr
        assert len(server.bodies) == before_second  # all of it is known
    assert preferences(project) == found
    twice = [question for question, times in asked.items() if times > 1]
    assert len(twice) <= 4
    assert max(asked.values()) <= 2
    facts = manifest(project, "preferences", 1)["rankers"]["judge some-model"]
    assert facts["verdicts"] == len(asked)
    assert facts["prompt_tokens"] == 10 * len(asked)
    assert facts["flip_rate"] == 0
    assert f"judge some-model: {len(asked)} verdicts" in done.stdout.splitlines()[-1]


def test_a_judge_serves_a_whole_run_and_its_report(judged, monkeypatch, tmp_path: Path) -> None:
    """Every stage runs; the judge's key is in its requests and in nothing that is written."""
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    with serving() as server:
        project = judged(
            server.url,
            *("ranking.judge.api_key_env=JUDGE_KEY", "run_name=judged", "evaluation.limit=4"),
            "iterations=[{objective: selm, learning_rate: 1.0e-3}]",
        )
        done = project.run()
        assert done.returncode == 0, done.stderr
        assert all(headers["Authorization"] == f"Bearer {SECRET}" for headers in server.headers)
        questions = Counter(server.answered)
    assert set(questions.values()) == {1}
    assert SECRET not in done.stdout + done.stderr
    written = [path for path in project.output_dir.rglob("*") if path.is_file()]
    assert not any(SECRET.encode() in path.read_bytes() for path in written)
    metrics = json.loads((project.folder / "report" / "metrics.json").read_text(encoding="utf-8"))
    base, last = metrics["iterations"][0], metrics["iterations"][-1]
    assert base["reward_mean"] == 0.5  # the base model against itself
    assert last["win_rate_vs_base"] is not None
    rewards = read_rows(artifacts.folder(project.recipe, "evaluation", 1) / "test.parquet")
    assert {row["reward"] + row["reward_of_base"] for row in rewards} == {1.0}


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (error(401, "who are you?"), "401 who are you?; set ranking.judge.api_key_env"),
        (
            error(404, "model not found"),
            "404 model not found; check that there is a model 'some-model'",
        ),
    ],
)
def test_a_judge_that_refuses_ends_the_stage(judged, reply: Reply, words: str) -> None:
    with serving(lambda body: reply) as server:
        project = judged(server.url)
        failed = project.stage("rank", 1)
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1] == f"error: {server.url}/chat/completions: {words}" + (
        "; base_url usually ends with /v1" if "404" in words else ""
    )
    assert not artifacts.state(project.recipe, "preferences", 1).current


def test_a_judge_that_is_not_there_ends_the_stage_with_one_line(judged) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    failed = judged(url).stage("rank", 1)
    assert failed.returncode == 2
    last = failed.stderr.splitlines()[-1]
    assert last.startswith(f"error: ranking.judge.base_url: no server answers at {url}/chat/compl")


def test_a_function_that_raises_ends_the_stage_with_one_line(project_copy, tmp_path: Path) -> None:
    """In the third of six shards: the shards before it are kept, the artifact is not begun."""
    path = tmp_path / "own.py"
    path.write_text(
        "calls = []\n"
        "def reward(prompt, candidates, prompt_id):\n"
        "    calls.append(prompt_id)\n"
        "    if len(calls) == 6:\n"
        "        raise KeyError('gone')\n"
        "    return [len(text) for text in candidates]\n",
        encoding="utf-8",
    )
    project = project_copy.with_overrides(
        "ranking.ranker=function", f"ranking.name_or_path={path}:reward", "ranking.shard_size=2"
    )
    before = (artifacts.folder(project.recipe, "preferences", 1) / "manifest.json").read_bytes()
    failed = project.stage("rank", 1)
    assert failed.returncode == 2
    last = failed.stderr.splitlines()[-1]
    assert last.startswith(f"error: {path}:reward: KeyError: 'gone' (line 5), for the prompt ")
    assert "Traceback" not in failed.stderr
    folder = artifacts.folder(project.recipe, "preferences", 1)
    assert (folder / "manifest.json").read_bytes() == before  # the old artifact, stale
    assert len(list((folder.parent / ".preferences.partial").glob("*.parquet"))) == 2
    assert not (folder.parent / ".preferences.tmp").exists()


ORDINARY = {
    "dc.py": (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Score:\n    value: float\n"
        "def reward(prompt, candidates, **columns):\n"
        "    return [Score(len(t)).value for t in candidates]\n"
    ),
    "mp.py": (
        "from multiprocessing import Pool\ndef one(t): return float(len(t))\n"
        "def reward(prompt, candidates, **columns):\n"
        "    with Pool(2) as p: return p.map(one, candidates)\n"
    ),
    "sib.py": (
        "from helper import score\n"
        "def reward(prompt, candidates, **columns):\n    return [score(t) for t in candidates]\n"
    ),
}
ENDS_PYTHON = (
    "import sys\ndef reward(prompt, candidates, **columns):\n"
    "    if not prompt: return []\n    sys.exit(0)\n"
)


def test_reward_files_are_ordinary_python(project_copy, tmp_path: Path) -> None:
    """One function in three ways: the same pairs. What calls sys.exit writes nothing and fails."""
    (tmp_path / "helper.py").write_text("def score(t): return len(t)\n", encoding="utf-8")
    ranked = []
    for name, source in {**ORDINARY, "ex.py": ENDS_PYTHON}.items():
        (tmp_path / name).write_text(source, encoding="utf-8")
        project = project_copy.with_overrides(
            "ranking.ranker=function", f"ranking.name_or_path={tmp_path / name}:reward"
        )
        done = project.stage("rank", 1)
        if name in ORDINARY:
            assert done.returncode == 0, done.stderr
            ranked.append(preferences(project))
            continue
        assert done.returncode == 2
        assert "it ends the Python process: SystemExit: 0 (line 4)" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
    assert ranked[0] == ranked[1] == ranked[2]


def test_a_reward_model_ranks_and_says_what_it_cut(project_copy, tmp_path: Path) -> None:
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    base = project_copy.recipe.model.name_or_path
    config = LlamaConfig.from_pretrained(base, num_labels=1, max_position_embeddings=80)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForSequenceClassification(config).save_pretrained(tmp_path / "reward")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "reward")
    project = project_copy.with_overrides(
        "ranking.ranker=reward_model", f"ranking.name_or_path={tmp_path / 'reward'}"
    )
    done = project.stage("rank", 1)
    assert done.returncode == 0, done.stderr
    facts = manifest(project, "preferences", 1)["rankers"]
    (found,) = facts.values()
    assert found["texts"] == sum(len(row["scores"]) for row in preferences(project))
    assert 0 < found["cut_prompts"] <= found["texts"]
    assert "cut_prompts" in done.stdout.splitlines()[-1]


# The real thing: vLLM's own server


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def vllm_server(model: str, log: Path) -> Iterator[str]:
    """vLLM's OpenAI-compatible server on a free port of loopback; yields its base_url."""
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    command += ["--served-model-name", "judge", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--enforce-eager", "--dtype", "float32", "--max-num-seqs", "8"]
    # Its sockets stay behind, and their paths must be short.
    scratch = tempfile.mkdtemp(prefix="vllm-")
    quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "TMPDIR": scratch}
    with log.open("w", encoding="utf-8") as output:
        server = subprocess.Popen(
            command, stdout=output, stderr=output, env=os.environ | quiet, start_new_session=True
        )
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(timeout=PATIENCE)
        shutil.rmtree(scratch)


def wait_until_healthy(url: str, server: subprocess.Popen, log: Path) -> None:
    started = time.monotonic()
    while time.monotonic() - started < PATIENCE:
        assert server.poll() is None, log.read_text(encoding="utf-8")[-3000:]
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                if response.status == 200:
                    return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{url} does not answer: {log.read_text(encoding='utf-8')[-3000:]}")


def check_benchmarks(project, url: str, data: Path, real: bool) -> None:
    """AlpacaEval and MT-Bench with that judge, which has log-probs.

    A judge that cannot read leaves nothing to count, which is said; what it said is kept.
    """
    alpaca_files.write(data, alpaca_files.entries(8))
    mt_bench_questions.write(data, mt_bench_questions.QUESTIONS[:4], [])
    judge = f"{{ranker: judge, name_or_path: judge, judge: {{base_url: '{url}'}}}}"
    asking = project.with_overrides(f"benchmarks.judge={judge}", f"benchmarks.data={data}")
    wanted = [("alpaca_eval", 8), ("alpaca_eval", 8), ("mt_bench", 1)]
    done = [
        asking.with_overrides(f"benchmarks.names=[{name}]", f"benchmarks.limit={limit}").stage(
            "benchmark", 0
        )
        for name, limit in wanted
    ]
    files = artifacts.verdicts_folder(asking.recipe).glob("replies-*.jsonl")
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    replies = [json.loads(line) for line in lines]
    with_logprobs = [reply for reply in replies if reply["logprobs"]]
    assert len(with_logprobs) == 8  # asked once, though the command was given twice
    for reply in with_logprobs:
        assert len(reply["logprobs"]) >= 5 and max(reply["logprobs"].values()) <= 0.0
    for each in done:
        assert each.returncode == 0 or "benchmarks.judge" in each.stderr.splitlines()[-1]
    if real:  # SmolLM2 has a letter among its likeliest tokens
        folder = artifacts.folder(asking.recipe, "benchmarks/alpaca_eval/results", 0)
        found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        assert found["n"] == 8 and found["facts"]["annotation"]["logprobs"] == 8


@pytest.mark.vllm
def test_a_real_vllm_server_judges(project_copy, tiny_model: str, tmp_path: Path) -> None:
    """The evaluation stage, judged by SmolLM2 if it is here, else by the tiny model.

    Neither is a judge: SmolLM2 says A whatever it is shown, which is what the flip rate is for.
    Answers are constrained by the schema, so that with SmolLM2 every verdict can be read.
    """
    smollm2 = REPOSITORY / "models" / "smollm2-135m-instruct"
    real = (smollm2 / "config.json").is_file()
    (tmp_path / "judge.txt").write_text(TEMPLATE, encoding="utf-8")
    template = "recipes/judge.txt" if real else str(tmp_path / "judge.txt")

    def judged(url: str, model: str):
        judge = f"{{base_url: '{url}', template: '{template}', max_tokens: 32}}"
        ranking = f"{{ranker: judge, name_or_path: {model}, judge: {judge}}}"
        return project_copy.with_overrides(f"evaluation.ranking={ranking}")

    with vllm_server(str(smollm2) if real else tiny_model, tmp_path / "server.log") as url:
        for t in (0, 1):
            done = judged(url, "judge").stage("evaluate", t)
            assert done.returncode == 0, (
                done.stderr + (tmp_path / "server.log").read_text(encoding="utf-8")[-3000:]
            )
        project = judged(url, "judge")
        facts = manifest(project, "evaluation", 1)["rankers"]["judge judge"]
        judged(url, "another").stage("evaluate", 0)  # the base against itself: nothing is asked
        wrong = judged(url, "another").stage("evaluate", 1)
        check_benchmarks(project_copy, url, tmp_path / "data", real)
    assert wrong.returncode == 2
    assert "404 The model `another` does not exist" in wrong.stderr.splitlines()[-1]
    rows = read_rows(artifacts.folder(project.recipe, "evaluation", 1) / "test.parquet")
    assert {row["reward"] + row["reward_of_base"] for row in rows} == {1.0}
    assert facts["verdicts"] == 2 * len(rows)  # no answer is that of the base model
    assert facts["prompt_tokens"] > 50 * facts["verdicts"]
    assert facts["completion_tokens"] >= facts["verdicts"]
    assert facts["refusal"] == facts["too_long"] == 0
    if real:
        assert facts["unparsable"] == 0
