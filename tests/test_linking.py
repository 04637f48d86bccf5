"""Runs of one output folder share what does not depend on their differences."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from written_runs import runs_in, write, write_all

from selm.run import artifacts, linking
from selm.run.artifacts import folder, state
from selm.run.hashes import hashes_in
from selm.run.plan import Run
from selm.run.stages import name, stages


@pytest.fixture
def run_with(tiny_recipe: str, tiny_data: str, tmp_path: Path):
    return runs_in(tmp_path, tiny_recipe, tiny_data)


def same(one: Run, other: Run) -> set[str]:
    """The artifacts that both runs share, by their keys."""
    recipes = (one.recipe, other.recipe)
    entries = [entry for entry in stages(one.recipe) if entry[1] is not None]
    keys = {e: [linking.key(recipe, *e) for recipe in recipes] for e in entries}
    return {name(*entry) for entry, (a, b) in keys.items() if a == b}


# In the order of the plan.
BEFORE_TRAINING = ["iter-0/answers", "iter-0/evaluation", "iter-1/responses", "iter-1/preferences"]
DPO_FIRST = "iterations.0.objective=dpo"
AFTER_DPO = {
    *("iter-0/answers", "iter-0/evaluation", "iter-1/checkpoint", "iter-1/answers"),
    *("iter-1/evaluation", "iter-2/responses", "iter-2/preferences"),
}


def test_keys_are_equal_for_what_the_difference_does_not_reach(run_with) -> None:
    one, other = run_with(), run_with("run_name=b", "training.alpha=0.5")
    assert same(one, other) == set(BEFORE_TRAINING)
    assert same(one, run_with("seed=5")) == set()
    assert same(run_with(DPO_FIRST), run_with(DPO_FIRST, "training.alpha=0.5")) == AFTER_DPO


def test_shared_artifacts_are_on_the_disk_once(run_with) -> None:
    one, other = run_with(DPO_FIRST), run_with(DPO_FIRST, "run_name=b", "training.alpha=0.5")
    write_all(one)
    linked = linking.link_all(other.recipe)
    assert {name(*entry) for entry, _ in linked} == AFTER_DPO
    assert {run for _, run in linked} == {"tiny"}
    for entry, _ in linked:
        assert state(other.recipe, *entry).current
        for path in folder(one.recipe, *entry).iterdir():
            assert path.samefile(folder(other.recipe, *entry) / path.name)
    assert not state(other.recipe, "checkpoint", 2).current
    assert linking.link_all(other.recipe) == []
    assert state(one.recipe, "report", None).current


def test_the_linked_artifact_is_the_input_of_what_follows(run_with) -> None:
    one, other = run_with(), run_with("run_name=b", "training.alpha=0.5")
    write_all(one)
    linking.link_all(other.recipe)
    for entry in stages(other.recipe):
        if not state(other.recipe, *entry).current:
            write(other, *entry)
    assert all(state(other.recipe, *entry).current for entry in stages(other.recipe))


def test_damaged_and_unfinished_artifacts_are_not_shared(run_with) -> None:
    one, other = run_with(), run_with("run_name=b", "training.alpha=0.5")
    for entry in stages(one.recipe)[:3]:
        write(one, *entry)
    (folder(one.recipe, "answers", 0) / "file.txt").write_text("changed", encoding="utf-8")
    linked = {name(*entry) for entry, _ in linking.link_all(other.recipe)}
    assert linked == {"iter-1/responses"}
    assert not list(artifacts.run_folder(other.recipe).rglob(".*.tmp"))


def test_the_references_log_probs_come_along(run_with) -> None:
    one, other = run_with(), run_with("run_name=b", "training.alpha=0.5")
    write_all(one)
    for t in (1, 2):
        kept = folder(one.recipe, "checkpoint", t).with_name("reference") / "key.parquet"
        kept.parent.mkdir()
        kept.write_bytes(b"log-probs")
    linking.link_all(other.recipe)
    first, second = (folder(other.recipe, "checkpoint", t).parent / "reference" for t in (1, 2))
    assert (first / "key.parquet").samefile(kept.parents[2] / "iter-1/reference/key.parquet")
    assert not second.exists(), "its policy is another one"


def test_a_link_does_not_cost_a_second_hash(run_with, monkeypatch) -> None:
    one, other = run_with(), run_with("run_name=b", "training.alpha=0.5")
    write(one, "answers", 0, "x" * 2**20)
    weights = folder(one.recipe, "answers", 0) / "file.txt"
    os.utime(weights, (1, 1))
    monkeypatch.setattr("selm.run.hashes._SETTLED_SECONDS", -1.0)
    hashes = hashes_in(Path(one.recipe.output_dir))
    hashes.of(weights)
    linking.link_all(other.recipe)

    def fail(path: Path) -> str:
        raise AssertionError(f"{path} was hashed again")

    monkeypatch.setattr("selm.run.hashes.sha256", fail)
    hashes.of(folder(other.recipe, "answers", 0) / "file.txt")


def test_the_script_says_what_it_shares(run_with, tmp_path: Path) -> None:
    write_all(run_with())
    words = [str(tmp_path / "recipe.yaml"), "run_name=b", "training.alpha=0.5"]
    command = [sys.executable, "scripts/link.py", *words]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    where = tmp_path / "runs" / "b"
    assert said == f"{where}: shared with tiny: {', '.join(BEFORE_TRAINING)}\n"
    again = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert again == f"{where}: no artifact of another run to share\n"
