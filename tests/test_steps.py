"""Warm-up: every iteration trains, or the plan says that it does not. And when it is saved."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState
from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback

from selm.data.counting import portion, train_rows
from selm.errors import UserError
from selm.recipe.loading import load_recipe
from selm.training.config import SELMConfig, training_arguments
from selm.training.run import NoLastSave
from selm.training.steps import optimizer_steps, saved_steps, untrained, warmup_steps

REPOSITORY = Path(__file__).resolve().parents[1]


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


def trainer_saves(arguments: SELMConfig, steps: int, steps_of_epoch: int) -> list[int]:
    """The steps after which the Trainer saves, by its own callback, its state and ours."""
    state, control = TrainerState(max_steps=steps), TrainerControl()
    state.compute_steps(arguments, steps)
    callbacks = CallbackHandler([DefaultFlowCallback(), NoLastSave()], *[None] * 4)
    saved = []
    for state.global_step in range(1, steps + 1):
        state.epoch = state.global_step / steps_of_epoch
        control = callbacks.on_step_end(arguments, state, control)
        if state.global_step % steps_of_epoch == 0:
            control = callbacks.on_epoch_end(arguments, state, control)
        if control.should_save:
            saved.append(state.global_step)
        control.should_save = False
    return saved


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"save_steps": 0.25},
        {"save_steps": 0.5},
        {"save_steps": 7},
        {"save_strategy": "epoch"},
        {"save_strategy": "no"},
    ],
)
def test_the_plan_counts_the_saves_of_the_trainer(settings: dict[str, Any], tmp_path: Path) -> None:
    arguments = SELMConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **settings)
    for steps in range(1, 201):
        for steps_of_epoch in {steps, -(-steps // 3)}:
            expected = trainer_saves(arguments, steps, steps_of_epoch)
            assert saved_steps(steps, steps_of_epoch, settings) == expected, steps


def test_a_training_is_saved_twice_at_most_and_never_at_its_end() -> None:
    """With the default; and no more than half of the steps are lost if it is killed."""
    for steps in range(1, 201):
        saved = saved_steps(steps, steps, {})
        assert len(saved) <= 2, steps
        assert steps not in saved
        longest = max(after - before for before, after in pairwise([0, *saved, steps]))
        assert longest <= (steps + 1) // 2, steps


@pytest.mark.parametrize(
    ("model", "saves"),
    [
        ("zephyr-7b-sft", [21, 42]),
        ("llama-3-8b-instruct", [55, 110]),
        ("phi-3-mini-4k-instruct", [55, 110]),
    ],
)
def test_the_papers_recipes_are_saved_twice(model: str, saves: list[int]) -> None:
    recipe = load_recipe(str(REPOSITORY / "recipes" / model / "selm.yaml"))
    for t in range(1, len(recipe.iterations) + 1):
        rows = len(portion(train_rows(recipe), t, len(recipe.iterations)))
        settings = recipe.training.trl_overrides()
        steps = optimizer_steps(rows, recipe.training.global_batch_size, settings)
        assert saved_steps(steps, steps, settings) == saves
