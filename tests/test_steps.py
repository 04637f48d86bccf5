"""Warm-up: every iteration trains, or the plan says that it does not."""

from pathlib import Path

import pytest

from selm.errors import UserError
from selm.recipe.loading import load_recipe
from selm.training.config import training_arguments
from selm.training.steps import optimizer_steps, untrained, warmup_steps


@pytest.mark.parametrize("steps", range(1, 40))
@pytest.mark.parametrize("share", [0, 0.03, 0.1, 0.5, 0.999])
def test_a_share_of_the_steps_leaves_one_to_train_with(steps: int, share: float) -> None:
    assert 0 <= warmup_steps(steps, share) < steps


def test_steps_of_an_iteration() -> None:
    assert optimizer_steps(64, 64, {}) == 1
    assert optimizer_steps(65, 64, {"num_train_epochs": 1.5}) == 3
    assert optimizer_steps(65, 64, {"max_steps": 7, "num_train_epochs": 9}) == 7
    assert optimizer_steps(65, 64, {"max_steps": -1}) == 2


def test_a_count_of_warm_up_steps_that_takes_all_is_said() -> None:
    assert "2 of 2 steps are warm-up" in str(untrained(128, 64, {"warmup_steps": 2.0}))
    assert untrained(128, 64, {"warmup_steps": 1.0}) is None
    assert untrained(128, 64, {"warmup_steps": 2.0, "lr_scheduler_type": "constant"}) is None


def test_the_plan_refuses_iterations_that_would_train_nothing(tiny_recipe: str) -> None:
    """24 rows in two iterations: three steps of four rows each."""
    load_recipe(tiny_recipe, ["training.warmup_steps=2"])
    with pytest.raises(UserError, match=r"warmup_steps: 3 of 3 steps .*\(iteration 1\)"):
        load_recipe(tiny_recipe, ["training.warmup_steps=3"])


def test_the_training_refuses_it_when_rows_were_lost(tiny_recipe: str, tmp_path: Path) -> None:
    recipe = load_recipe(tiny_recipe, ["training.warmup_steps=2", "model.dtype=float32"])
    assert training_arguments(recipe, 1, tmp_path, 1, [9] * 12).warmup_steps == 2
    with pytest.raises(UserError, match="2 of 2 steps are warm-up"):
        training_arguments(recipe, 1, tmp_path, 1, [9] * 8)


def test_a_single_step_has_the_whole_learning_rate(tiny_recipe: str, tmp_path: Path) -> None:
    """What `docs/new_model.md` tries: few rows, and a batch that takes them all."""
    recipe = load_recipe(tiny_recipe, ["data.limit=8"])
    arguments = training_arguments(recipe, 1, tmp_path, 1, [9] * 4)
    for steps in (1, 2, 15, 60):
        assert arguments.get_warmup_steps(steps) == warmup_steps(steps, 0.1)
