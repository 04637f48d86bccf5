"""A benchmark is one description: with that alone the stages and the report know it."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import answer
import evaluate as evaluate_script

from selm.check.checks import results
from selm.check.rankers import rankers
from selm.data.drops import Drops
from selm.data.parquet import read_rows
from selm.errors import UserError
from selm.evaluation.base import Benchmark
from selm.evaluation.kinds import BENCHMARKS
from selm.hub import cards
from selm.recipe.loading import load_recipe
from selm.report.metrics import metrics
from selm.report.page import page
from selm.report.results import Results
from selm.run import artifacts
from selm.run.lineage import recipe_part
from selm.run.plan import Run, script

HI = [{"role": "user", "content": "Hi"}]
PROMPTS = ("Count to three.", "Count to five.")


def prompts(recipe):
    blank = {"chosen": None, "rejected": None, "columns": {}, "tools": None}
    asked = [[{"role": "user", "content": text}] for text in PROMPTS]
    return [{"prompt_id": f"c{n}", "prompt": p} | blank for n, p in enumerate(asked)], Drops()


COUNTING = Benchmark(revision=1, prompts=prompts, score=lambda row: len(row["responses"][0]))


def test_its_answers_are_scored_by_itself_and_reported(
    tiny_recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BENCHMARKS, "counting", COUNTING)
    words = [tiny_recipe, "evaluation.benchmark=counting", f"output_dir={tmp_path / 'runs'}"]
    recipe = load_recipe(words[0], words[1:])
    monkeypatch.setattr("selm.cli.log_to", lambda *where: None)
    for stage in (answer, evaluate_script):
        monkeypatch.setattr(sys, "argv", ["script", *words, "--iteration", "0"])
        stage.main()
    rows = read_rows(artifacts.folder(recipe, "evaluation", 0) / "test.parquet")
    assert [row["prompt"][0]["content"] for row in rows] == list(PROMPTS)
    assert [row["reward"] for row in rows] == [len(row["response"]) for row in rows]
    found = metrics(recipe, Results({0: rows}, {}, {}, {}))
    assert found["judge"] == "counting"
    assert found["iterations"][0]["n"] == 2

    part = recipe_part(recipe, "answers", 0)
    other = Benchmark(revision=2, prompts=prompts, score=COUNTING.score)
    monkeypatch.setitem(BENCHMARKS, "counting", other)
    assert recipe_part(recipe, "answers", 0) != part


def test_plan_preflight_page_and_card_know_it(
    tiny_recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BENCHMARKS, "counting", COUNTING)
    overrides = ("evaluation.benchmark=counting", "hub.namespace=me")
    recipe = load_recipe(tiny_recipe, overrides)
    run = Run(recipe, tiny_recipe, overrides)
    assert "scripts/answer.py" in script(run) and "evaluation.benchmark=counting" in script(run)
    assert [well for _, well, _ in results(run, {"rankers": rankers})] == [True]

    answered = {"response": "1 2 3", "finish_reason": "stop", "num_tokens": 4}
    rewards = {"reward": 5.0, "reward_of_base": 5.0}
    rows = [{"prompt_id": "c0", "prompt": HI} | answered | rewards]
    found = Results({0: rows, 1: rows}, {}, {}, {})
    assert "Rewards given by: counting." in page(recipe, metrics(recipe, found), found)
    manifest = {
        **{"rows": 1, "dropped": {}, "inputs": {}, "versions": {}, "revisions": {}, "seconds": 1},
        **{"git_commit": None, "command": "scripts/evaluate.py", "written": "2026-01-01T00:00:00Z"},
        "recipe": recipe_part(recipe, "evaluation", 0),
    }
    card = cards.dataset_card(recipe, "evaluation", {0: (manifest, {})}, has_report=False)
    assert "counting" in card


def test_an_unknown_benchmark_is_refused(tiny_recipe: str) -> None:
    with pytest.raises(UserError, match=r"benchmark: 'heldout' is not one of .*mean 'held_out'"):
        load_recipe(tiny_recipe, ["evaluation.benchmark=heldout"])
