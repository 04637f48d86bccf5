"""Stages say and write UTF-8 whatever the locale."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from selm.recipe.loading import as_yaml, load_recipe

NAME = "gr\u00fc\u00df \u4f60\u597d"
# Python decides by these; LC_ALL alone needs a locale that the machine has.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LATIN = {"PYTHONIOENCODING": "latin-1"}


def told(script: str, recipe: Path, environment: dict[str, str]) -> tuple[int, str]:
    command = [sys.executable, f"scripts/{script}.py", str(recipe)]
    done = subprocess.run(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return done.returncode, done.stdout.decode("utf-8")


@pytest.fixture
def recipe(tiny_recipe: str, tmp_path: Path) -> Path:
    """With umlauts in its path, in its text and in the data's path."""
    folder = tmp_path / NAME
    shutil.copytree(load_recipe(tiny_recipe).data.name_or_path, folder / "data")
    (folder / "\u00fc.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\uff5c\n{{ m.content }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\uff5c\n{% endif %}",
        encoding="utf-8",
    )
    overrides = [f"data.name_or_path={folder / 'data'}", f"output_dir={folder / 'runs'}"]
    overrides.append("estimate.device=cpu")
    overrides.append(f"model.chat_template={folder / chr(252)}.jinja")
    written = as_yaml(load_recipe(tiny_recipe, overrides))
    (folder / "recipe.yaml").write_text(f"# {NAME}\n{written}", encoding="utf-8")
    return folder / "recipe.yaml"


def test_the_plan_is_the_same_under_any_locale(recipe: Path) -> None:
    plans = [told("plan", recipe, environment) for environment in ({}, ASCII, LATIN)]
    assert plans[0][0] == 0 and NAME in plans[0][1]
    assert plans[1] == plans[2] == plans[0]


def test_a_template_is_the_same_under_any_locale(recipe: Path) -> None:
    code, said = told("check", recipe, ASCII)
    assert code == 0, said
    assert "assistant\uff5c\\n" in said  # the end of a prompt


def test_a_mistake_is_told_in_the_users_letters(recipe: Path) -> None:
    recipe.write_text("gr\u00fc\u00dfe: 1\n", encoding="utf-8")
    for environment in (ASCII, LATIN):
        code, said = told("plan", recipe, environment)
        assert code == 2
        assert said.startswith("error: ") and NAME in said and said.count("\n") == 1
