"""Finished runs, grouped into settings: runs of one setting differ in their seed alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from selm.data.schemas import EvaluationRow
from selm.recipe.schema import Recipe


@dataclass(frozen=True)
class FinishedRun:
    """A run whose evaluations were read.

    Attributes:
        name: its folder's name, the run_name of its recipe.
        folder: where it lies; of a run on the Hub, its name there.
        evaluations: t -> rows; t = 0 is the base model.
        manifests: t -> the manifest of these rows.
        missing: what is not used and why, a line each: `iter-2/evaluation is not there`.
    """

    name: str
    folder: Path
    recipe: Recipe
    evaluations: Mapping[int, Sequence[EvaluationRow]]
    manifests: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def seed(self) -> int:
        return self.recipe.seed


@dataclass(frozen=True)
class Setting:
    """Runs that differ in nothing but the seed.

    Attributes:
        name: what distinguishes it from the other settings, e.g. `alpha 0.001`.
        differs: dotted key -> value, for the keys in which the settings differ.
        runs: in the order of their seeds.
    """

    name: str
    differs: Mapping[str, Any]
    runs: tuple[FinishedRun, ...]

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]


@dataclass(frozen=True)
class Comparison:
    """Settings whose rewards can be compared: the same held-out prompts, the same ranker.

    Attributes:
        prompts: ids of the held-out prompts that every evaluation has a reward for.
        ranker: its label, for captions.
        pairwise: rewards are scores against the base model's answer to the same prompt.
        left_out: prompts that some evaluation has no reward for.
        without: runs that are not in it because they are not finished, a line each.
    """

    settings: tuple[Setting, ...]
    prompts: tuple[str, ...]
    ranker: str
    pairwise: bool = False
    left_out: int = 0
    without: tuple[str, ...] = ()

    @property
    def runs(self) -> list[FinishedRun]:
        return [run for setting in self.settings for run in setting.runs]

    def iterations(self, setting: Setting) -> list[int]:
        """The iterations that all runs of the setting evaluated; 0 is the base model."""
        common = set.intersection(*(set(run.evaluations) for run in setting.runs))
        return sorted(common)

    def rewards(self, setting: Setting, t: int) -> np.ndarray:
        """Rewards after iteration t, shape (seeds, prompts), in the order of `prompts`."""
        return self.values(setting, t, "reward")

    def values(self, setting: Setting, t: int, column: str) -> np.ndarray:
        """A numeric column of the evaluations, shape (seeds, prompts)."""
        found = []
        for run in setting.runs:
            of_prompt = {row["prompt_id"]: row[column] for row in run.evaluations[t]}
            found.append([float(of_prompt[prompt]) for prompt in self.prompts])
        return np.array(found)
