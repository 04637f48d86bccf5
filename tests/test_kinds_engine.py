"""An engine is one description: with that alone, plan, check and generation know it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from selm.check.checks import results
from selm.check.machine import packages
from selm.cost.estimate import stage_cost
from selm.cost.quantities import Memory
from selm.data.portions import training_portion
from selm.errors import UserError
from selm.generation.base import EngineKind, Response
from selm.generation.kinds import KINDS
from selm.generation.respond import respond
from selm.hub import cards
from selm.model.probe import load_chat
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Generation, Model
from selm.report.metrics import metrics
from selm.report.page import page
from selm.report.results import Results
from selm.run.lineage import recipe_part
from selm.run.plan import Run, script

NAMESPACE = {"namespace": "me"}


class Parrot:
    """Says how long the prompt is."""

    max_prompt_tokens = 1000

    def __init__(self, path: str, model: Model, longest_prompt: int | None) -> None:
        self.chat = load_chat(path, model)
        self.longest_prompt = longest_prompt

    def generate(self, prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[Response]:
        assert max(map(len, prompts)) == self.longest_prompt
        return [Response(f"{len(ids)} tokens", "stop", 3) for ids in prompts]


PARROT = EngineKind(
    load=lambda path, model, generation, longest: Parrot(path, model, longest),
    cost=lambda recipe, device, shape, answers, tokens: (Memory(weights=3e9), 1000 * answers),
    options={"vllm": frozenset({"max_num_seqs"})},
    wants_longest_prompt=True,
)


@pytest.fixture
def run(tiny_recipe: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setitem(KINDS, "parrot", PARROT)
    overrides = ("generation.engine=parrot", "generation.shard_size=100")
    return Run(load_recipe(tiny_recipe, overrides), tiny_recipe, overrides)


def test_the_plan_and_the_preflight_know_it(run: Run) -> None:
    lines = [line for line in script(run).splitlines() if line.startswith("# generate: ")]
    assert lines and all("; 3.0 GB (weights 3.0); " in line for line in lines)
    takes = stage_cost(run.recipe, "responses", 1)
    assert 0 < takes.seconds - 1000 * takes.rows < 100
    assert [well for _, well, _ in results(run, {"packages": packages})] == [True]


def test_the_stage_answers_with_it(run: Run, tmp_path: Path) -> None:
    rows, _ = training_portion(run.recipe, 1)
    answered = respond(rows, run.recipe.model.name_or_path, run.recipe, 1, tmp_path, "test")
    assert len(answered.rows) == len(rows) and answered.tokens == 3 * len(rows)
    assert all(row["responses"][0].endswith(" tokens") for row in answered.rows)


def test_the_report_and_the_card_name_it(run: Run) -> None:
    answer = {"response": "1", "finish_reason": "stop", "num_tokens": 1}
    reward = {"reward": 1.0, "reward_of_base": 1.0}
    rows = [{"prompt_id": "p", "prompt": [{"role": "user", "content": "Hi"}]} | answer | reward]
    found = Results({0: rows, 1: rows}, {}, {}, {})
    assert "engine: parrot" in page(run.recipe, metrics(run.recipe, found), found)
    manifest = {
        **{"rows": 1, "dropped": {}, "inputs": {}, "versions": {}, "revisions": {}, "seconds": 1},
        **{"git_commit": None, "command": "scripts/generate.py", "written": "2026-01-01T00:00:00Z"},
        "recipe": recipe_part(run.recipe, "responses", 1),
    }
    recipe = run.recipe.model_copy(update={"hub": run.recipe.hub.model_copy(update=NAMESPACE)})
    card = cards.dataset_card(recipe, "responses", {1: (manifest, {})}, has_report=False)
    assert "parrot" in card


def test_its_own_options_make_stale_what_it_answered_unless_they_are_execution(run: Run) -> None:
    def part(*overrides: str) -> dict:
        recipe = load_recipe(run.path, [*run.overrides, *overrides])
        return recipe_part(recipe, "responses", 1)["generation"]

    assert part()["engine"] == "parrot"
    assert part("generation.vllm.max_num_seqs=3") == part()
    assert part("generation.vllm.max_model_len=64") != part()
    another = "generation.engine=transformers"
    assert part(another, "generation.vllm.max_model_len=64") == part(another)


def test_a_package_that_it_lacks_is_said_by_the_preflight(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = replace(PARROT, packages=("no_parrot",), otherwise="take another one")
    monkeypatch.setitem(KINDS, "parrot", lacking)
    ((_, well, found),) = results(run, {"packages": packages})
    assert not well
    assert found == "generation.engine: no_parrot is not installed; take another one"


def test_an_unknown_engine_is_refused_with_the_kinds_there_are(run: Run) -> None:
    with pytest.raises(UserError, match=r"'parot' is not one of .*; did you mean 'parrot'\?"):
        load_recipe(run.path, ["generation.engine=parot"])
    assert Generation().engine in KINDS
