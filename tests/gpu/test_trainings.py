"""Whole trainings by the real scripts: the quickstart, and each launcher against one GPU."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from end_to_end.conftest import REPOSITORY, Project
from on_device import trained
from patience import PATIENCE

QUICKSTART = "recipes/smollm2-135m-instruct/selm.yaml"

# Losses of three steps in fp32, added up in another order, by other kernels.
LOSS = 1e-3
# In bf16: log-probs of 30 tokens and more, each off by 2 ** -8 of its size at most, times beta.
LOSS_16 = 5e-2

TWO = "training.num_processes=2"
QLORA = "training.lora={r: 4, load_in_4bit: true}"


@pytest.fixture(scope="module")
def alone(ranked: Project, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of one process on one GPU, on TRL's computation."""
    folder = tmp_path_factory.mktemp("alone") / "runs"
    return trained(ranked, folder, "single", "training.forward=padded")


def test_the_policy_starts_at_its_reference(alone: list[float]) -> None:
    assert len(alone) == 3
    assert alone[0] == pytest.approx(math.log(2), abs=LOSS)


def test_the_shared_path_takes_the_same_steps(
    ranked: Project, alone: list[float], tmp_path: Path
) -> None:
    found = trained(ranked, tmp_path / "runs", "single", "training.forward=shared")
    assert found == pytest.approx(alone, abs=LOSS)


@pytest.mark.gpus(2)
@pytest.mark.parametrize("config", ["ddp", "zero3", "fsdp2"])
def test_two_gpus_take_the_same_steps(
    config: str, ranked: Project, alone: list[float], tmp_path: Path
) -> None:
    assert trained(ranked, tmp_path / "runs", config, TWO) == pytest.approx(alone, abs=LOSS)


@pytest.fixture(scope="module")
def alone_16(ranked_16: Project, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    folder = tmp_path_factory.mktemp("alone-16") / "runs"
    return trained(ranked_16, folder, "single", "training.forward=padded")


@pytest.mark.gpus(2)
@pytest.mark.parametrize("config", ["ddp", "zero3", "fsdp2"])
def test_two_gpus_in_bf16(
    config: str, ranked_16: Project, alone_16: list[float], tmp_path: Path
) -> None:
    found = trained(ranked_16, tmp_path / "runs", config, TWO)
    assert found == pytest.approx(alone_16, abs=LOSS_16)


def test_qlora_on_one_gpu(ranked_16: Project, tmp_path: Path) -> None:
    found = trained(ranked_16, tmp_path / "runs", "single", QLORA)
    assert found[0] == pytest.approx(math.log(2), abs=LOSS_16)
    assert all(math.isfinite(loss) for loss in found)


@pytest.mark.gpus(2)
def test_qlora_on_two_gpus(ranked_16: Project, tmp_path: Path) -> None:
    one = trained(ranked_16, tmp_path / "one", "single", QLORA)
    two = trained(ranked_16, tmp_path / "two", "ddp", QLORA, TWO)
    assert two == pytest.approx(one, abs=LOSS_16)


def test_the_quickstart_on_one_gpu(tiny_model: str, tmp_path: Path) -> None:
    """Its recipe with few rows, and with the tiny model where the real one was not fetched."""
    figures = quickstart(tmp_path, tiny_model, os.environ.get("CUDA_VISIBLE_DEVICES", "0"))
    assert [row["iteration"] for row in figures] == [0, 1, 2, 3]
    assert all(0 <= row["reward_mean"] <= 1 for row in figures)


def quickstart(folder: Path, tiny_model: str, gpus: str) -> list[dict]:
    """The iterations of its metrics.json. gpus: the first of them is used."""
    words = ["data.limit=24", "evaluation.limit=8", f"output_dir={folder}"]
    if not (REPOSITORY / "models/smollm2-135m-instruct").is_dir():
        words.append(f"model.name_or_path={tiny_model}")
    done = subprocess.run(
        ["bash", "scripts/run.sh", QUICKSTART, *words],
        cwd=REPOSITORY,
        env=os.environ
        | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        | {"CUDA_VISIBLE_DEVICES": gpus.split(",")[0]},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = folder.glob("*/report/metrics.json")
    return json.loads(path.read_text(encoding="utf-8"))["iterations"]
