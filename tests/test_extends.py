"""A recipe may extend another one: what it says stands over what the other says."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from refusals import refusal

from selm.errors import UserError
from selm.recipe.loading import as_yaml, load_recipe
from selm.recipe.schema import Recipe
from selm.run.plan import Run, script

REPOSITORY = Path(__file__).resolve().parents[1]
BASE = """\
run_name: base
model: {name_or_path: m/m, revision: "1.10"}
data: {name_or_path: d/d, limit: 100}
iterations: [{objective: selm, learning_rate: 1e-6}, {objective: selm, learning_rate: 1e-6}]
training: {alpha: 0.005, lora: {r: 8}}
"""
SECRET = "hf_abcdefghijklmnopqrstuvwxyz012345"


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    (tmp_path / "base.yaml").write_text(BASE, encoding="utf-8")

    def written(text: str, name: str = "own.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return written


def without_name(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(exclude={"run_name"})


def test_a_file_that_changes_one_key_is_the_other_but_for_that_key(write) -> None:
    own = load_recipe(write("run_name: own\nextends: base.yaml\n"))
    base = load_recipe(write(BASE, "base.yaml"))
    assert (own.run_name, base.run_name) == ("own", "base")
    assert without_name(own) == without_name(base)


def test_mappings_are_merged_and_all_else_replaces(write) -> None:
    own = write(
        "extends: base.yaml\n"
        "model: {name_or_path: n/n}\n"
        "data: {limit: null}\n"
        "iterations: [{objective: dpo, learning_rate: 1e-5}]\n"
        "training: {lora: {lora_alpha: 3}, beta: 0.1}\n"
    )
    recipe = load_recipe(own)
    assert (recipe.model.name_or_path, recipe.model.revision) == ("n/n", "1.10")
    assert (recipe.data.name_or_path, recipe.data.limit) == ("d/d", None)
    assert [iteration.objective for iteration in recipe.iterations] == ["dpo"]
    assert (recipe.training.alpha, recipe.training.beta) == (0.005, 0.1)
    assert (recipe.training.lora.r, recipe.training.lora.lora_alpha) == (8, 3)
    without = write("extends: base.yaml\ntraining: {lora: null}\n")
    assert load_recipe(without).training.lora is None


def test_the_other_file_is_looked_for_beside_the_file_itself(write, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    own = write("extends: ../base.yaml\nrun_name: own\n", "folder/own.yaml")
    assert load_recipe(own).run_name == "own"
    assert load_recipe(os.path.relpath(own)).model.name_or_path == "m/m"


def test_a_chain_is_followed_and_the_nearest_wins(write) -> None:
    write("extends: base.yaml\nrun_name: middle\nseed: 1\n", "middle.yaml")
    recipe = load_recipe(write("extends: middle.yaml\nseed: 2\n"), ["training.alpha=0.5"])
    assert (recipe.run_name, recipe.seed, recipe.training.alpha) == ("middle", 2, 0.5)


def test_the_resolved_recipe_extends_nothing(write) -> None:
    recipe = load_recipe(write("extends: base.yaml\nrun_name: own\n"))
    assert "extends" not in yaml.safe_load(as_yaml(recipe))
    assert load_recipe(write(as_yaml(recipe), "saved.yaml")) == recipe


def test_the_plan_says_what_a_file_changes_in_the_one_that_it_extends(write, tmp_path) -> None:
    write("extends: base.yaml\nseed: 1\n", "middle.yaml")
    own = str(write("extends: middle.yaml\nrun_name: own\ntraining: {alpha: 0.1, lora: {r: 4}}\n"))
    text = script(Run(load_recipe(own), own))
    changed = "run_name, training.alpha, training.lora.r"
    assert f"\n# {own} extends {tmp_path}/middle.yaml: {changed}\n" in text
    assert f"\n# {tmp_path}/middle.yaml extends {tmp_path}/base.yaml: seed\n" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extends: none.yaml", r"own.yaml: extends: no such recipe file: /.*/none.yaml"),
        ("extends: .", "own.yaml: extends: no such recipe file"),
        ("extends: $NOT_SET_HERE/a.yaml", "own.yaml: extends: the environment variable"),
        ("extends: own.yaml", "own.yaml: extends: .*circle: /.*/own.yaml -> /.*/own.yaml"),
        ("extends: [base.yaml]", "own.yaml: extends: must be the name of a recipe file"),
        ("extends: null", "own.yaml: extends: must be the name of a recipe file"),
        ("extends: list.yaml", "list.yaml: a recipe is a mapping"),
        ("extends: twice.yaml", "twice.yaml: line 2: the key 'seed' is written twice"),
        (
            "extends: base.yaml\nextends: base.yaml",
            "own.yaml: line 2: the key 'extends' is written",
        ),
        ("extends: base.yaml\ntraining: {extends: base.yaml}", "training.extends: unknown key"),
        ("extends: wrong.yaml", "own.yaml extends /.*/wrong.yaml: sead: unknown key"),
    ],
)
def test_what_cannot_be_extended_is_one_line_with_file_and_key(write, text: str, said: str) -> None:
    write("- a\n", "list.yaml")
    write("seed: 1\nseed: 2\n", "twice.yaml")
    write(BASE + "sead: 1\n", "wrong.yaml")
    with pytest.raises(UserError, match=said):
        load_recipe(write(text))


def test_files_that_extend_each_other_are_refused(write) -> None:
    write("extends: own.yaml\n", "middle.yaml")
    said = refusal(write("extends: middle.yaml\n"))
    assert "middle.yaml: extends: the files extend each other in a circle" in said


@pytest.mark.parametrize(
    ("own", "base"),
    [
        (f"extends: base.yaml\nmodel: {{token: {SECRET}}}", BASE),
        ("extends: base.yaml\nmodel: {token: null}", f"model: {{token: {SECRET}}}"),
        (
            "extends: base.yaml\nrun_name: own",
            BASE.replace(": base", f": {SECRET}"),
        ),
        (f"extends: {SECRET}", BASE),
    ],
)
def test_a_secret_in_either_file_is_refused_unprinted(write, own: str, base: str) -> None:
    write(base, "base.yaml")
    assert SECRET not in refusal(write(own))


def test_extends_is_no_override(write) -> None:
    assert "extends: can only stand in a recipe file" in refusal(write(BASE), "extends=base.yaml")


def test_a_recipe_of_any_folder_extends_one_of_ours_by_its_name(
    write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = write("extends: smollm2-135m-instruct/selm\nrun_name: mine\n")
    ours = load_recipe("recipes/smollm2-135m-instruct/selm.yaml", ["run_name=mine"])
    assert load_recipe(own) == ours
    monkeypatch.chdir(own.parent)
    found = load_recipe(own.name)
    assert found.data.name_or_path == str(REPOSITORY / ours.data.name_or_path)
    assert as_yaml(found) == as_yaml(ours), "saved, its paths do not name the folder of selm"


def test_a_file_of_one_s_own_is_taken_before_one_of_ours(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, name = write(BASE), "recipes/judge.txt"
    judged = ["ranking.ranker=judge", "ranking.name_or_path=m/m"]
    monkeypatch.chdir(tmp_path)
    assert load_recipe(own, judged).ranking.judge.template == str(REPOSITORY / name)
    (tmp_path / "recipes").mkdir()
    (tmp_path / name).write_bytes((REPOSITORY / name).read_bytes())
    assert load_recipe(own, judged).ranking.judge.template == name
