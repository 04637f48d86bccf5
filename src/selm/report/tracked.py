"""The numbers of an iteration for the trackers of `training.report_to`; the step is the iteration.

A training reports its losses itself, step by step, as a run of its own. What an iteration has
brought is known after its evaluation.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selm.data.schemas import EvaluationRow
from selm.recipe.schema import Recipe
from selm.report.statistics import win_rate
from selm.run import artifacts
from selm.run.stages import stages

if TYPE_CHECKING:  # it imports torch
    from accelerate.tracking import GeneralTracker


def report(recipe: Recipe, t: int, rows: Sequence[EvaluationRow]) -> list[str]:
    """Give them to every tracker that the recipe names and that is installed; their names.

    Args:
        rows: of the evaluation, which is written.
    """
    from accelerate import PartialState
    from accelerate.tracking import get_available_trackers

    PartialState()  # the log of accelerate's trackers asks it which process this is
    given = recipe.training.trl_overrides().get("report_to", "tensorboard")
    names = [given] if isinstance(given, str) else list(given or ())
    wanted = list(_TRACKERS) if "all" in names else [name for name in _TRACKERS if name in names]
    installed = set(map(str, get_available_trackers()))
    found = numbers(recipe, t, rows)
    told = [name for name in wanted if name in installed]
    for name in told:
        tracker = _TRACKERS[name](recipe, t)
        tracker.start()
        tracker.log(found, step=t)
        tracker.finish()
    return told


def numbers(recipe: Recipe, t: int, rows: Sequence[EvaluationRow]) -> dict[str, float]:
    """Means over the held-out prompts, and the seconds of all stages of the iteration."""
    rewards = [row["reward"] for row in rows]
    seconds = [
        artifacts.read_manifest(recipe, stage, i)["seconds"]
        for stage, i in stages(recipe)
        if i == t
    ]
    found = {
        "held_out/reward": float(np.mean(rewards)),
        "held_out/response_tokens": float(np.mean([row["num_tokens"] for row in rows])),
        "iteration/seconds": float(sum(seconds)),
    }
    if t > 0:
        found["held_out/win_rate_vs_base"] = win_rate(
            rewards, [row["reward_of_base"] for row in rows]
        )
    return found


def _tensorboard(recipe: Recipe, t: int) -> "GeneralTracker":
    """One file for each iteration in tensorboard/held-out; that of an earlier attempt goes."""
    from accelerate.tracking import TensorBoardTracker

    folder, suffix = artifacts.run_folder(recipe) / "tensorboard", f".iter-{t}"
    for old in Path(folder, "held-out").glob(f"*{suffix}"):
        old.unlink()
    return TensorBoardTracker("held-out", folder, filename_suffix=suffix)


def _wandb(recipe: Recipe, t: int) -> "GeneralTracker":
    """One run, to which each iteration adds its step."""
    from accelerate.tracking import WandBTracker

    name = f"{recipe.run_name}-held-out"
    project = os.environ.get("WANDB_PROJECT", "huggingface")  # as the Trainer's
    return WandBTracker(project, name=name, id=name, resume="allow")


def _trackio(recipe: Recipe, t: int) -> "GeneralTracker":
    """As for wandb."""
    from accelerate.tracking import TrackioTracker

    name = f"{recipe.run_name}-held-out"
    project = recipe.training.trl_overrides().get("project", "huggingface")  # as the Trainer's
    return TrackioTracker(project, name=name, resume="allow")


_TRACKERS: dict[str, Callable[[Recipe, int], "GeneralTracker"]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
}
