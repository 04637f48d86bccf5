"""The simulation that says how many prompts and seeds a comparison needs."""

import sys
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import power as tool

from selm.compare.seeds import difference

SPREAD = tool.Spread(seed=0.02, prompt=0.2, interaction=0.3, gain=0.1)


def one(gain: float = 0.05, seeds: int = 5, prompts: int = 60, repeats: int = 150) -> float:
    return tool.power(SPREAD, seeds, prompts, [gain], repeats)[0]


def test_without_a_difference_the_test_is_wrong_in_5_of_100_cases() -> None:
    """Of 400 cases 20 are expected; 8 and 38 are four standard errors away."""
    assert 8 / 400 <= one(gain=0.0, repeats=400) <= 38 / 400


def test_more_prompts_more_seeds_and_a_larger_difference_are_seen_more_often() -> None:
    usual = one()
    assert 0.05 < usual < 0.9
    assert one(prompts=240) > usual + 0.1
    assert one(seeds=12) > usual
    assert one(gain=0.1) > usual + 0.2


def test_a_true_difference_shifts_the_interval_and_nothing_else() -> None:
    a_SP, b_SP = tool.pair_of_settings(SPREAD, 4, 30, np.random.default_rng(0))
    still, shifted = (difference(a_SP + gain, b_SP, paired_seeds=True) for gain in (0, 0.3))
    assert shifted.value == pytest.approx(still.value + 0.3)
    assert shifted.ci95 == pytest.approx([bound + 0.3 for bound in still.ci95], abs=2e-6)


def test_components_of_a_table_by_hand() -> None:
    """Means of seeds 1 and 3, of prompts 1, 2 and 3; nothing is left, so both are exact."""
    values_SP = np.array([[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]])
    assert tool.components(values_SP) == pytest.approx((2.0, 1.0, 0.0))


def test_the_components_that_were_drawn_are_measured() -> None:
    """Within a tenth for prompts; 40 seeds leave the seeds' own deviation uncertain by a third."""
    a_SP, b_SP = tool.pair_of_settings(SPREAD, 40, 3000, np.random.default_rng(0))
    found = tool.measured(a_SP, b_SP)
    assert found.seed == pytest.approx(SPREAD.seed, rel=0.33)
    assert found.prompt == pytest.approx(np.sqrt(0.2**2 + 0.1**2 / 2), rel=0.1)
    assert found.interaction == pytest.approx(SPREAD.interaction, rel=0.1)
    assert found.gain == pytest.approx(SPREAD.gain, rel=0.1)


def written(folder: Path, values_SP: np.ndarray) -> list[Path]:
    """Runs with an evaluation after iterations 9 and 10; the former's rewards are zero."""
    runs = []
    for seed, values in enumerate(values_SP):
        runs.append(folder / f"seed{seed}")
        for t, rewards in ((9, 0 * values), (10, values)):
            evaluation = runs[-1] / f"iter-{t}" / "evaluation"
            evaluation.mkdir(parents=True)
            ids = [f"prompt-{p}" for p in range(len(values))]
            order = np.random.default_rng(seed).permutation(len(values))
            table = {"prompt_id": [ids[p] for p in order], "reward": rewards[order]}
            pyarrow.parquet.write_table(pyarrow.table(table), evaluation / "test.parquet")
    return runs


def test_finished_runs_are_read_by_prompt_and_iteration(tmp_path: Path) -> None:
    a_SP, b_SP = tool.pair_of_settings(SPREAD, 3, 20, np.random.default_rng(0))
    a, b = written(tmp_path / "a", a_SP), written(tmp_path / "b", b_SP)
    assert astuple(tool.spread_of(a, b, None)) == pytest.approx(astuple(tool.measured(a_SP, b_SP)))
    assert astuple(tool.spread_of(a, [], 10)) == pytest.approx(astuple(tool.measured(a_SP)))
    assert tool.spread_of(a, b, 9) == tool.Spread(0, 0, 0, 0)


def test_what_shows_no_spread_is_refused(tmp_path: Path) -> None:
    runs = written(tmp_path, np.zeros((2, 5)))
    with pytest.raises(SystemExit, match="two runs of each setting"):
        tool.spread_of(runs[:1], [], None)
    with pytest.raises(SystemExit, match="no such evaluation"):
        tool.spread_of(runs, [], 3)
