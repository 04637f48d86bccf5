"""Values that no recipe should have, for every key of its schema: one line, or a plan."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from selm.errors import UserError
from selm.recipe.loading import as_yaml, load_recipe
from selm.recipe.schema import Recipe
from selm.run.plan import Run, script, warnings

EXTREMES = (
    *("", "null", "''", "' '", "-1", "0", "0.5", "1e400", "-.inf", ".nan", "9" * 23, "9" * 5000),
    *("true", "abc", "[]", "[[]]", "{}", "{a: {b: [1]}}", '"a\\nb"', '"a\\0b"', '"\\e[31m"'),
    *("a" * 300, "2024-01-01", "1:30", "~/x", "$NO_SUCH/x", "../..", "-", "--help", "é ß", "&a x"),
)


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        yield prefix + name
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys(kind, f"{prefix}{name}.")


@pytest.mark.parametrize(
    "key", [*keys(Recipe), "iterations.0", "iterations.0.objective", "iterations.1.learning_rate"]
)
def test_every_key_takes_a_value_or_refuses_it_in_one_line(
    tiny_recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    for value in EXTREMES:
        try:
            override = f"{key}={value}"
            recipe = load_recipe(tiny_recipe, [override])
            run = Run(recipe, tiny_recipe, (override,))
            assert script(run).startswith("#!/usr/bin/env bash\n")
            warnings(run)
        except UserError as error:
            assert len(str(error).splitlines()) == 1, (override, error)
            continue
        resolved = tmp_path / "resolved.yaml"
        resolved.write_text(as_yaml(recipe), encoding="utf-8")
        assert load_recipe(resolved) == recipe, override


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("run_name=" + "a" * 300, "run_name: "),
        ("run_name=..", "run_name: "),
        ("seed=99999999999", "seed: "),
        ("model.attn_implementation=kernels-community/flash-attn", "trust_remote_code=true"),
        ("training.global_batch_size=99999999999999", "training.global_batch_size: "),
        ("hub={push: true, namespace: me/you}", "the Hub does not allow"),
        ("hub={push: true, namespace: a--b}", "the Hub does not allow"),
        ("data.limit=1", "2 iterations need at least 2 rows"),
        ("model.name_or_path=-1", "nor a name on the Hub"),
        ("model.name_or_path=a--b", "nor a name on the Hub"),
        ("data.name_or_path=a b/c", "nor a name on the Hub"),
    ],
)
def test_what_is_too_large_or_no_name_is_refused(
    tiny_recipe: str, override: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        load_recipe(tiny_recipe, [override])


def test_a_kernel_of_the_hub_is_taken_as_the_code_that_it_is(tiny_recipe: str) -> None:
    kernel = "model.attn_implementation=kernels-community/flash-attn"
    assert load_recipe(tiny_recipe, [kernel, "model.trust_remote_code=true"])
