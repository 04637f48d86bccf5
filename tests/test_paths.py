"""`~` and `$VAR` are expanded once, in every path of a recipe; from then on paths are literal."""

import os
import shutil
from pathlib import Path

import pytest

from selm.errors import UserError
from selm.recipe.loading import as_yaml, load_recipe
from selm.recipe.places import escape, expand
from selm.recipe.schema import Recipe
from selm.run.plan import Run, script

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with an accelerate config, a template, data and a reward function."""
    folder = tmp_path / "my home $x ü"
    folder.mkdir()
    shutil.copy(REPOSITORY / "accelerate_configs" / "single.yaml", folder / "acc.yaml")
    shutil.copy(REPOSITORY / "recipes" / "judge.txt", folder / "judge.txt")
    (folder / "t.jinja").write_text("{{ messages }}", encoding="utf-8")
    (folder / "d.jsonl").write_text('{"prompt": "a"}\n' * 20, encoding="utf-8")
    (folder / "r.py").write_text("def reward(prompt, response): return 0\n", encoding="utf-8")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("PLACE", str(folder))
    return folder


WANTED = {
    "output_dir": "runs",
    "data.name_or_path": "d.jsonl",
    "model.name_or_path": "model",
    "model.chat_template": "t.jinja",
    "training.accelerate_config": "acc.yaml",
    "ranking.name_or_path": "r.py:reward",
    "evaluation.ranking.rankers.1.judge.template": "judge.txt",
    "evaluation.ranking.rankers.0.name_or_path": "r.py:reward",
}


def value_at(recipe: Recipe, key: str) -> str:
    node = recipe
    for part in key.split("."):
        node = node[int(part)] if part.isdigit() else getattr(node, part)
    return str(node)


@pytest.mark.parametrize("start", ["~", "$PLACE", "${PLACE}"])
def test_every_path_of_a_recipe_is_expanded_once(
    home: Path, tmp_path: Path, tiny_recipe: str, start: str
) -> None:
    """The home folder's own name holds a dollar sign, which is no variable any more."""
    overrides = [f"{key}={start}/{file}" for key, file in WANTED.items() if "rankers" not in key]
    member = f"{{ranker: function, name_or_path: '{start}/r.py:reward'}}"
    overrides += ["ranking.ranker=function", "evaluation.ranking.ranker=ensemble"]
    judge = f"{{ranker: judge, name_or_path: m, judge: {{template: '{start}/judge.txt'}}}}"
    overrides += [f"evaluation.ranking.rankers=[{member}, {judge}]"]
    recipe = load_recipe(tiny_recipe, overrides)
    for key, file in WANTED.items():
        assert value_at(recipe, key) == f"{home}/{file}", key
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(as_yaml(recipe), encoding="utf-8")
    assert load_recipe(resolved) == recipe
    assert str(home) in script(Run(recipe, tiny_recipe, tuple(overrides)))


@pytest.mark.parametrize("key", ["output_dir", "data.name_or_path", "training.accelerate_config"])
def test_a_variable_that_is_not_set_is_one_line(tiny_recipe: str, key: str) -> None:
    for text in ("$NO_SUCH_PLACE/x", "${NO_SUCH_PLACE}/x"):
        with pytest.raises(UserError, match=f"^{key}: the environment variable NO_SUCH_PLACE is"):
            load_recipe(tiny_recipe, [f"{key}={text}"])
    with pytest.raises(UserError, match=f"^{key}: no such user: ~nobody_is_called_so"):
        load_recipe(tiny_recipe, [f"{key}=~nobody_is_called_so/x"])


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("a  b/ü ß", "a  b/ü ß"),
        ('it\'s/"x"', 'it\'s/"x"'),
        ("a$$b/$5", "a$b/$5"),
        ("x/~/y", "x/~/y"),
        ("./~x", "./~x"),
        ("cost$", "cost$"),
        ("[a]*?{b}", "[a]*?{b}"),
    ],
)
def test_other_characters_are_literal(written: str, meant: str) -> None:
    assert expand("output_dir", written) == meant
    assert expand("output_dir", escape(meant)) == meant


@pytest.mark.parametrize(
    "value", ['"a\\nb"', '"a\\0b"', '"\\tx"', "''", "' '", "x" * 300, "y/" * 3000, "[a]", "{a: 1}"]
)
@pytest.mark.parametrize("key", ["output_dir", "model.name_or_path", "model.chat_template"])
def test_what_no_disk_takes_is_one_line(tiny_recipe: str, key: str, value: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(tiny_recipe, [f"{key}={value}"])
    assert key in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_path_below_a_folder_that_may_not_be_read_is_one_line(
    tiny_recipe: str, tmp_path: Path
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0)
    try:
        if os.access(locked, os.R_OK):  # root may read everything: a file in the way then
            locked = tmp_path / "file"
            locked.touch()
        with pytest.raises(UserError, match="no such file"):
            load_recipe(tiny_recipe, [f"data.name_or_path={locked}/x.jsonl"])
    finally:
        (tmp_path / "locked").chmod(0o700)
