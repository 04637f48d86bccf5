"""How many workers there are, and what a user hears where there cannot be so many."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from selm.errors import UserError
from selm.ranking.scoring import _workers
from selm.recipe.schema import Ranking
from selm.run.workers import Workers, _reserved, spread

NO_SHARDS: dict[range, list] = {}


def test_auto_is_one_per_gpu_or_group_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for there, each, wanted in [(0, 1, 1), (1, 1, 1), (8, 1, 8), (8, 2, 4), (8, 3, 2), (2, 8, 1)]:
        monkeypatch.setattr(torch.cuda, "device_count", lambda there=there: there)
        assert Workers("auto", each).count() == wanted
    assert Workers(3, 2).count() == 3


def test_auto_is_one_where_a_ranker_needs_no_gpu_or_has_limits() -> None:
    def wanted(kinds: list[str], workers: str | int = "auto") -> str | int:
        members = tuple(Ranking(ranker=kind) for kind in kinds)
        one = members[0].model_copy(update={"workers": workers})
        many = Ranking(ranker="ensemble", rankers=members, workers=workers)
        return _workers(one if len(kinds) == 1 else many).wanted

    assert wanted(["pairrm"]) == wanted(["reward_model"]) == "auto"
    assert wanted(["function"]) == wanted(["random"]) == wanted(["judge"]) == 1
    assert wanted(["function", "reward_model"]) == "auto"
    assert wanted(["judge", "reward_model"]) == 1
    assert wanted(["judge"], workers=4) == 4


def test_what_each_worker_has_of_the_cluster() -> None:
    assert _reserved(Workers(4, gpus=2), 4, {"CPU": 64.0, "GPU": 8.0}) == {
        "num_cpus": 1,
        "num_gpus": 2,
    }
    assert _reserved(Workers(3), 3, {"CPU": 16.0})["num_cpus"] == 5
    assert _reserved(Workers(3), 3, {"CPU": 2.0})["num_cpus"] == 1
    with pytest.raises(UserError, match=r"generation\.workers: 5 workers x 2 GPUs.*at most 4"):
        _reserved(Workers(5, 2, "generation.workers"), 5, {"CPU": 64.0, "GPU": 8.0})


def test_without_ray_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    with pytest.raises(UserError, match=r"ranking\.workers: 2 workers need Ray.*pip install"):
        list(spread(NO_SHARDS, list, Workers(2, key="ranking.workers"), 2, tmp_path))


def test_a_cluster_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UserError, match=r"RAY_ADDRESS: no Ray cluster answers at 127.0.0.1:1"):
        list(spread(NO_SHARDS, list, Workers(2), 2, tmp_path))


def test_one_worker_does_without_ray(tmp_path: Path) -> None:
    """It is not even imported: that takes half a second, and it may not be installed."""
    code = (
        "import sys, pathlib, typing\n"
        "from selm.run.shards import run_shards\n"
        "Row = typing.TypedDict('Row', {'n': int})\n"
        "rows, folder = [{'n': 1}, {'n': 2}], pathlib.Path(sys.argv[1])\n"
        "assert run_shards(rows, lambda: list, Row, folder, 1, 'test') == rows\n"
        "assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
