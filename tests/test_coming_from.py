"""docs/coming_from.md: our side of its table and its commands, as the recipes have them."""

import re
import shlex
from pathlib import Path

import pytest

from selm.home import recipe_file
from selm.recipe.loading import load_recipe
from selm.recipe.names import section_keys
from selm.recipe.schema import Iteration, Recipe
from selm.recipe.trl_keys import trl_keys

PAGE = (Path(__file__).parents[1] / "docs" / "coming_from.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^ {6}python scripts/plan\.py (.+)$", PAGE.replace("\\\n", ""), re.MULTILINE)


def test_our_column_names_keys_that_recipes_have() -> None:
    rows = re.findall(r"^\| [\w ]+ \| (.+?) \|", PAGE, re.MULTILINE)
    named = [key for cell in rows for key in re.findall(r"`([a-z_\[\]]+\.[a-z_]+)[`=]", cell)]
    assert len(named) > 10
    known = {*section_keys(Recipe), *(f"training.{key}" for key in trl_keys())}
    known |= {f"iterations[].{key}" for key in Iteration.model_fields}
    assert [key for key in named if key not in known] == []


def test_every_library_but_oat_has_a_command() -> None:
    assert len(COMMANDS) == 4


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_a_recipe_with_overrides_that_it_takes(command: str) -> None:
    recipe, *overrides = shlex.split(command)
    loaded = load_recipe(str(recipe_file(recipe)), overrides)
    assert loaded.run_name.startswith("zephyr-7b")
    if loaded.ranking.pool == "samples":  # the first iteration has to have samples, too
        assert {entry.objective for entry in loaded.iterations} == {"online_dpo"}
