"""ZeRO-3 sums gradients in fp32: two processes with 32 micro-batches each, weights in bf16."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from patience import PATIENCE

from selm.training.zero import BUCKET, sum_in_fp32

REPOSITORY = Path(__file__).parents[1]


def by_accelerate(out: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2"),
            *("--config_file", REPOSITORY / "accelerate_configs/zero3.yaml"),
            *("--log_dir", os.devnull, Path(__file__).parent / "zero3_gradients.py", out),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def flat(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradients[name].double().flatten() for name in sorted(gradients)])


def error(found: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> float:
    """The norm of the difference, relative to the norm."""
    return float((flat(found) - flat(exact)).norm() / flat(exact).norm())


@pytest.mark.slow
def test_a_step_has_the_exact_sum_of_its_gradients(tmp_path: Path) -> None:
    """Ours is off by fp32's rounding; a sum in bf16 by as much as all of bf16's other rounding."""
    by_accelerate(tmp_path / "found.pt")
    found = torch.load(tmp_path / "found.pt")
    ours, plain, exact = found["ours"], found["plain"], found["exact"]
    assert found["trainer"] == {"sum": torch.float32, "reduce": torch.float32}
    assert (ours["sum"], ours["reduce"]) == (torch.float32, torch.float32)
    assert (plain["sum"], plain["reduce"]) == (torch.bfloat16, torch.bfloat16)
    assert error(ours["gradients"], exact["bfloat16"]) < 1e-6
    assert 2e-3 < error(plain["gradients"], exact["bfloat16"]) < 2e-2
    # 0.6 % and 0.9 %: independent errors, whose squares add up
    in_fp32 = [error(way["gradients"], exact["float32"]) for way in (ours, plain)]
    assert 1.15 * in_fp32[0] < in_fp32[1]


def test_only_zero3_and_only_what_is_not_said_is_set() -> None:
    two: dict[str, Any] = {"zero_optimization": {"stage": 2}}
    sum_in_fp32(two)
    assert two == {"zero_optimization": {"stage": 2}}
    three: dict[str, Any] = {
        "zero_optimization": {"stage": 3, "reduce_bucket_size": 7},
        "data_types": {"grad_accum_dtype": "bf16"},
        "communication_data_type": "bf16",
    }
    before = {**three, "data_types": {**three["data_types"]}}
    sum_in_fp32(three)
    assert three == before
    plain: dict[str, Any] = {"zero_optimization": {"stage": 3}}
    sum_in_fp32(plain)
    assert plain == {
        "zero_optimization": {"stage": 3, "reduce_bucket_size": BUCKET},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
    }
