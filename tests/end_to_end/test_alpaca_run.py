"""AlpacaEval 2 and the pairwise comparison by the real scripts: kills, workers, what is written."""

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import alpaca_files
import pytest
from alpaca_files import longer_wins
from chat_server import Reply, serving

from selm.data.parquet import read_rows
from selm.evaluation.length_control import win_rate
from selm.run import artifacts

pytestmark = pytest.mark.slow
COUNT = 24


@pytest.fixture
def data(tmp_path: Path) -> str:
    folder = alpaca_files.write(tmp_path / "data", alpaca_files.entries(COUNT), table=True)
    return f"benchmarks.data={folder}"


def results(project, name: str, t: int) -> Path:
    return artifacts.folder(project.recipe, f"benchmarks/{name}/results", t)


def test_a_killed_annotation_goes_on_and_asks_only_the_rest(project, data: str) -> None:
    def slow(body: dict) -> Reply:
        return replace(longer_wins(body), wait_seconds=0.1)

    with serving(slow) as server:
        judge = f"{{ranker: judge, name_or_path: j, judge: {{base_url: '{server.url}'}}}}"
        own = ("benchmarks.names=[alpaca_eval]", f"benchmarks.judge={judge}", data)
        judged = project.with_overrides(*own, "benchmarks.judge.judge.concurrency=2")
        judged.killed("benchmark", 0, ready=lambda: len(server.answered) >= 6)
        time.sleep(0.5)
        before = Counter(server.answered)
        assert 6 <= len(before) < COUNT
        done = judged.stage("benchmark", 0)
        assert done.returncode == 0, done.stderr
        asked = Counter(server.answered)
        again = judged.stage("benchmark", 0)
        assert "already done" in again.stdout
        assert Counter(server.answered) == asked
    twice = [question for question, times in asked.items() if times > 1]
    assert len(asked) == COUNT
    assert len(twice) <= 2 and max(asked.values()) <= 2  # those under way when the kill came
    folder = results(judged, "alpaca_eval", 0)
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    annotations = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    rate = win_rate([each["preference"] for each in annotations])
    assert found["measures"]["win_rate"]["value"] == pytest.approx(rate.win_rate, rel=1e-12)
    assert next(iter(found["measures"])) == "lc_win_rate"
    assert (found["n"], found["judge"]) == (COUNT, "judge j")
    assert f"{folder}: written, {COUNT} rows, lc_win_rate " in done.stdout.splitlines()[-1]


def test_two_workers_give_the_bytes_of_one(project, data: str, tmp_path: Path) -> None:
    reward = tmp_path / "reward.py"
    reward.write_text(
        "def score(prompt, candidates):\n    return [text.count('e') for text in candidates]\n",
        encoding="utf-8",
    )
    written = []
    for workers in (1, 2):
        judge = f"{{ranker: function, name_or_path: '{reward}:score', shard_size: 5}}"
        own = ("benchmarks.names=[alpaca_eval]", f"benchmarks.judge={judge}", data)
        several = (f"generation.workers={workers}", f"benchmarks.judge.workers={workers}")
        made = replace(project, output_dir=tmp_path / f"runs-{workers}").with_overrides(
            *own, *several
        )
        done = made.stage("benchmark", 0)
        assert done.returncode == 0, done.stderr
        folder = results(made, "alpaca_eval", 0)
        files = ("test.parquet", "results.json", "annotations.json", "model_outputs.json")
        written.append([(folder / name).read_bytes() for name in files])
    assert written[0] == written[1]


def test_policies_meet_each_other(project_copy, data: str) -> None:
    with serving(longer_wins) as server:
        judge = f"{{ranker: judge, name_or_path: j, judge: {{base_url: '{server.url}'}}}}"
        own = (data, f"benchmarks.judge={judge}", "benchmarks.limit=8")
        judged = project_copy.with_overrides(*own, "benchmarks.names=[alpaca_eval, pairwise]")
        for t in (0, 1):
            done = judged.stage("benchmark", t)
            assert done.returncode == 0, done.stderr
        first = json.loads((results(judged, "pairwise", 0) / "results.json").read_text())
        assert first["measures"] == {} and first["n"] == 0
        found = json.loads((results(judged, "pairwise", 1) / "results.json").read_text())
        assert set(found["measures"]) == {"lc_win_rate_vs_0", "win_rate_vs_0"}
        rows = read_rows(results(judged, "pairwise", 1) / "test.parquet")
        assert [row["part"] for row in rows] == ["0"] * 8
        assert found["measures"]["win_rate_vs_0"]["value"] == pytest.approx(
            win_rate([row["score"] + 1 for row in rows]).win_rate, rel=1e-12
        )

        held_out = project_copy.with_overrides(*own, "benchmarks.names=[pairwise]")
        done = held_out.stage("benchmark", 1)
        assert done.returncode == 0, done.stderr
        prompts = read_rows(artifacts.folder(held_out.recipe, "answers", 1) / "test.parquet")
        rows = read_rows(results(held_out, "pairwise", 1) / "test.parquet")
        assert [row["prompt_id"] for row in rows] == [row["prompt_id"] for row in prompts][:8]
