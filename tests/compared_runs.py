"""Finished runs with rewards of our choice, for tests of comparisons."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from selm.cli import keep_text
from selm.data.parquet import save_rows
from selm.data.schemas import EvaluationRow
from selm.recipe.loading import as_yaml
from selm.run import manifest
from selm.run.artifacts import run_folder
from selm.run.hashes import hashes_in, sha256
from selm.run.lineage import inputs, recipe_part
from selm.run.plan import Run, command
from selm.run.stages import name, stages

PROMPTS = 12


def write_run(run: Run, rewards: Mapping[int, Sequence[float]], until: int = 2) -> Path:
    """Write the artifacts of a run up to an iteration, and recipe.yaml; returns the run's folder.

    As `run/writing.py` does, without its locks, packages and commits, in a tenth of its time.

    Args:
        rewards: iteration -> reward of each held-out prompt; base answers have those of 0.
    """
    folder = run_folder(run.recipe)
    for stage, t in stages(run.recipe):
        if t is None or t > until:
            continue
        there = folder / name(stage, t)
        there.mkdir(parents=True, exist_ok=True)
        if stage == "evaluation":
            save_rows(rows_of(rewards[t], rewards[0]), EvaluationRow, there / "test.parquet")
        else:
            (there / "file.txt").write_text(f"{stage} {t}", encoding="utf-8")
        write_manifest(run, stage, t)
    keep_text(folder / "recipe.yaml", as_yaml(run.recipe))
    return folder


def write_manifest(run: Run, stage: str, t: int | None) -> None:
    folder = run_folder(run.recipe)
    of_inputs = {
        name(*entry): sha256(folder / name(*entry) / manifest.NAME)
        for entry in inputs(run.recipe, stage, t)
    }
    facts = {
        **{"stage": stage, "iteration": t, "run_name": run.recipe.run_name},
        **{"recipe": recipe_part(run.recipe, stage, t), "inputs": of_inputs},
        **{"command": command(run, stage, t), "versions": {"torch": "1"}, "git_commit": None},
    }
    there = folder / name(stage, t)
    (there / manifest.NAME).unlink(missing_ok=True)
    manifest.write(there, facts, hashes_in(folder.parent))


def rows_of(rewards: Sequence[float], of_base: Sequence[float]) -> list[EvaluationRow]:
    return [
        {
            "prompt_id": f"p{i:02}",
            "prompt": [{"role": "user", "content": f"question {i}"}],
            "response": f"answer {i}",
            "finish_reason": "stop",
            "num_tokens": 5 + i,
            "reward": float(reward),
            "reward_of_base": float(base),
        }
        for i, (reward, base) in enumerate(zip(rewards, of_base, strict=True))
    ]


def drawn(seed: int, gain: float = 0.0, prompts: int = PROMPTS) -> dict[int, list[float]]:
    """Rewards in steps of 0.1, so that there are ties; the base model's are the same for all."""
    base = np.random.default_rng(0).normal(size=prompts).round(1)
    noise = np.random.default_rng([seed, round(100 * gain)])
    later = {t: base + (noise.normal(gain * t, 0.3, size=prompts)).round(1) for t in (1, 2)}
    return {0: list(base)} | {t: list(values) for t, values in later.items()}
