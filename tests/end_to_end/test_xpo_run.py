"""A run with XPO's optimism, whose explored responses are the base model's in every iteration."""

import json

import pytest

from selm.data.parquet import read_rows
from selm.run import artifacts
from selm.run.stages import stages

pytestmark = pytest.mark.slow

XPO = ("training.optimism=xpo", "training.reference=initial", "generation.temperature=1.0")


def test_the_base_model_explores_in_both_iterations(project) -> None:
    run = project.with_overrides(*XPO, "iterations.0.learning_rate=0.1")
    done = run.run()
    assert done.returncode == 0, done.stderr
    assert "iter-2/initial_responses: written, 12 rows" in done.stdout
    assert not (run.folder / "iter-1" / "initial_responses").exists()

    def rows(stage: str, t: int) -> dict:
        path = artifacts.folder(run.recipe, stage, t) / "train.parquet"
        return {row["prompt_id"]: row for row in read_rows(path)}

    for t, stage in ((1, "responses"), (2, "initial_responses")):
        answered, preferred = rows(stage, t), rows("preferences", t)
        assert set(preferred) <= set(answered)
        for prompt_id, row in preferred.items():
            assert [row["explored"]] == answered[prompt_id]["responses"]
            assert [row["explored_finish_reason"]] == answered[prompt_id]["finish_reasons"]
    base, policy = rows("initial_responses", 2), rows("responses", 2)
    assert all(len(row["responses"]) == 1 for row in base.values())
    differ = [key for key in policy if policy[key]["responses"] != base[key]["responses"]]
    assert len(differ) > len(policy) / 2  # a rate of 0.1 moves the policy far from the base model
    preferred = rows("preferences", 2)
    assert all(preferred[key]["explored_role"] == "neither" for key in differ if key in preferred)

    log = json.loads((run.folder / "iter-2/checkpoint/training_log.json").read_text())
    (first, *_) = [step for step in log if "loss" in step]
    # alpha * log pi, where SELM's term would begin near 0
    expected = run.recipe.training.alpha * first["logps/explored"]
    assert first["loss/optimism"] == pytest.approx(expected, rel=1e-5)
    names = {path.name for path in (run.folder / "logs").iterdir()}
    assert {"iter-2-generate.1.log", "iter-2-generate-initial.1.log"} <= names

    again = run.run()
    assert again.returncode == 0
    assert again.stdout.count("already done") == len(stages(run.recipe))


def test_only_iterations_that_read_them_have_initial_responses(project) -> None:
    run = project.with_overrides(*XPO)
    command = [*run.command("generate", 1), "--policy", "initial"]
    failed = run._finished(command)
    assert failed.returncode == 2
    assert "--policy initial: iteration 1 does not read them" in failed.stderr
