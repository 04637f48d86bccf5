"""The choice of a setting: the best mean, and whether the runner-up is within noise."""

from pathlib import Path

import numpy as np
import pytest

from selm.compare.seeds import difference
from selm.compare.selection import ranked, select
from selm.compare.settings import Comparison, FinishedRun, Setting
from selm.recipe.loading import load_recipe

REPOSITORY = Path(__file__).parents[1]
PROMPTS = tuple(f"p{i}" for i in range(40))


def comparison_of(rewards: dict[str, np.ndarray], last: int = 2) -> Comparison:
    """Settings by name, each with the rewards of its seeds after the last iteration.

    Earlier iterations have the opposite rewards, so that a choice by one of them is another one.
    """
    settings = []
    for name, values_SP in rewards.items():
        runs = []
        for seed, values_P in enumerate(values_SP, start=1):
            path = str(REPOSITORY / "recipes/zephyr-7b-sft/selm.yaml")
            recipe = load_recipe(path, [f"seed={seed}"])
            evaluations = {
                t: [
                    {"prompt_id": prompt, "reward": float(value if t == last else -value)}
                    for prompt, value in zip(PROMPTS, values_P, strict=True)
                ]
                for t in range(last + 1)
            }
            runs.append(FinishedRun(f"{name}-{seed}", Path(name), recipe, evaluations))
        settings.append(Setting(name, {}, tuple(runs)))
    return Comparison(tuple(settings), PROMPTS, "a ranker")


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def noise(seeds: int, scale: float, of: int) -> np.ndarray:
    return np.random.default_rng(of).normal(scale=scale, size=(seeds, len(PROMPTS)))


def test_the_best_mean_after_the_last_iteration_is_first() -> None:
    base = noise(3, 1.0, 0)
    found = comparison_of({"low": base, "high": base + 0.5, "middle": base + 0.2})
    order = ranked(found)
    assert [each.setting.name for each in order] == ["high", "middle", "low"]
    assert {each.iteration for each in order} == {2}
    assert order[0].reward.value == pytest.approx(float((base + 0.5).mean()))
    assert select(found).splitlines()[0].startswith("best: high: mean held-out reward ")
    assert "after iteration 2 (3 seeds, 40 prompts, ranker a ranker)" in select(found)


def test_a_clear_runner_up_is_not_within_noise_although_its_interval_overlaps() -> None:
    """Pairing by prompt and seed shows what the two intervals alone do not."""
    base = noise(3, 2.0, 0)
    found = comparison_of({"a": base + noise(3, 0.1, 1), "b": base + 0.3 + noise(3, 0.1, 2)})
    best, other = ranked(found)
    assert best.reward.ci95[0] < other.reward.ci95[1], "they overlap"
    text = select(found)
    assert "next: a: " in text and text.splitlines()[1].endswith(": more than noise")
    assert "The runner-up is not within noise" in text


def test_a_runner_up_within_noise_is_said_and_so_is_how_many_are() -> None:
    base = noise(3, 1.0, 0)
    rewards = {str(i): base + noise(3, 0.5, i) for i in range(1, 4)}
    found = comparison_of(rewards | {"far": base - 5})
    lines = select(found).splitlines()
    assert [line.rpartition(": ")[2] for line in lines[1:4]] == [
        "within noise",
        "within noise",
        "more than noise",
    ]
    assert lines[4].startswith("The runner-up is within noise")
    assert "2 of the 3 other settings" in lines[4]
    assert "With one seed" not in lines[-1]


def test_other_seeds_are_not_paired() -> None:
    base = noise(3, 1.0, 0)
    found = comparison_of({"a": base + 0.1, "b": base[:2]})
    gap = difference(base + 0.1, base[:2], paired_seeds=False)
    assert f"[{gap.ci95[0]:.4g}, {gap.ci95[1]:.4g}]" in select(found).splitlines()[1]


def test_one_seed_and_one_setting_are_said() -> None:
    text = select(comparison_of({"a": noise(1, 1.0, 0), "b": noise(1, 1.0, 1)}))
    assert text.splitlines()[-1].startswith("With one seed the intervals show the prompts'")
    alone = select(comparison_of({"a": noise(2, 1.0, 0)}))
    assert alone.splitlines()[1:] == ["There is no other setting to compare it with."]
