"""A whole run with PairRM as ranker and judge: small random weights, every stage."""

import json
from pathlib import Path

import numpy as np
import pairrm_weights as small
import pytest
from pools import pools_of

from selm.data.parquet import read_rows
from selm.ranking.pairrm import PairRMRanker
from selm.run import artifacts

pytestmark = pytest.mark.slow


@pytest.fixture
def ranker_folder(tmp_path: Path) -> Path:
    return small.write_transformers(tmp_path / "PairRM")


def test_a_whole_run_is_ranked_and_judged_by_pairrm(project, ranker_folder: Path) -> None:
    mine = project.with_overrides("ranking.ranker=pairrm", f"ranking.name_or_path={ranker_folder}")
    done = mine.run()
    assert done.returncode == 0, done.stderr
    metrics = json.loads((mine.folder / "report" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["ranker"] == metrics["judge"] == "pairrm"
    base = read_rows(artifacts.folder(mine.recipe, "evaluation", 0) / "test.parquet")
    texts = {row["prompt_id"]: row["response"] for row in base}
    ranker = PairRMRanker(str(ranker_folder))
    for t, entry in enumerate(metrics["iterations"]):
        rows = read_rows(artifacts.folder(mine.recipe, "evaluation", t) / "test.parquet")
        scores = ranker.score(
            pools_of(
                [row["prompt_id"] for row in rows],
                [row["prompt"] for row in rows],
                [[row["response"], texts[row["prompt_id"]]] for row in rows],
            )
        )
        rewards = [of_response for of_response, _ in scores]
        assert np.allclose([row["reward"] for row in rows], rewards, rtol=0, atol=1e-5)
        assert entry["reward_mean"] == pytest.approx(np.mean(rewards), abs=1e-5)
    assert metrics["iterations"][0]["reward_mean"] == 0, "the base beside itself"
    assert metrics["iterations"][2]["reward_mean"] != 0

    [preferred, *_] = read_rows(artifacts.folder(mine.recipe, "preferences", 1) / "train.parquet")
    assert sum(preferred["scores"]) == pytest.approx(0, abs=1e-5), "each win is another's loss"

    again = mine.run()
    assert again.returncode == 0 and "written" not in again.stdout


def test_wrong_weights_stop_the_stage_and_leave_nothing_half_written(
    project, ranker_folder: Path
) -> None:
    (ranker_folder / "model.safetensors").write_bytes(b"nonsense")
    mine = project.with_overrides("ranking.ranker=pairrm", f"ranking.name_or_path={ranker_folder}")
    assert mine.stage("answer", 0).returncode == 0
    failed = mine.stage("evaluate", 0)
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
    last = failed.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "PairRM/model.safetensors: cannot be read" in last
    assert not artifacts.folder(mine.recipe, "evaluation", 0).exists()
