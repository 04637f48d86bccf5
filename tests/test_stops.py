"""Of a checkpoint's generation_config.json the stop tokens count, and nothing else."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from selm.errors import UserError
from selm.generation.kinds import load_engine
from selm.model import loading
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Model

NAME = "generation_config.json"


@pytest.fixture
def copied(tiny_model: str, tmp_path: Path) -> Path:
    shutil.copytree(tiny_model, tmp_path / "model")
    return tmp_path / "model"


def answers(recipe: str, model: Path | str) -> list[str]:
    found = load_recipe(recipe, [f"model.name_or_path={model}", "generation.max_tokens=16"])
    engine = load_engine(str(model), found.model, found.generation)
    asked = ("Hi", "Name three points about the sea.", "None")
    prompts = [engine.chat.prompt_ids([{"role": "user", "content": text}]) for text in asked]
    return [response.text for response in engine.generate(prompts, [0] * len(prompts))]


@pytest.mark.parametrize(
    "asked_for",
    [
        {"stop_strings": ["e"]},
        {"num_return_sequences": 2},
        {"no_repeat_ngram_size": 1, "suppress_tokens": list(range(60, 200))},
        {"do_sample": True, "temperature": 9.0, "top_k": 3, "repetition_penalty": 3.0},
        {"max_length": 5, "min_new_tokens": 16, "forced_eos_token_id": 0},
        {"num_beams": 3, "penalty_alpha": 0.6, "bad_words_ids": [[70]]},
        {"prompt_lookup_num_tokens": 3, "return_dict_in_generate": False},
    ],
    ids=lambda asked_for: next(iter(asked_for)),
)
def test_a_checkpoint_does_not_decide_on_sampling(
    tiny_recipe: str, tiny_model: str, copied: Path, asked_for: dict[str, Any]
) -> None:
    path = copied / NAME
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | asked_for), encoding="utf-8"
    )
    assert answers(tiny_recipe, copied) == answers(tiny_recipe, tiny_model)


@pytest.mark.parametrize(
    ("eos", "ids"), [(7, {7}), ([7, 9], {7, 9}), (None, set()), ([], set())], ids=str
)
def test_its_stop_tokens_count(copied: Path, eos: Any, ids: set[int]) -> None:
    (copied / NAME).write_text(json.dumps({"eos_token_id": eos}), encoding="utf-8-sig")
    found = loading.generation_config(str(copied), Model(name_or_path=str(copied)))
    assert found is not None
    ends = found.eos_token_id
    assert set(ends if isinstance(ends, list) else [ends]) - {None} == ids


def test_without_the_file_the_config_has_them(copied: Path) -> None:
    (copied / NAME).unlink()
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    found = loading.generation_config(str(copied), Model(name_or_path=str(copied)))
    assert found is not None and found.eos_token_id == config["eos_token_id"]


BROKEN = ("", "{", "[]", "null", "[" * 10**5)
NO_IDS = ('"</s>"', "[true]", "-1", "2.5", "[[1]]", "{}")


@pytest.mark.parametrize(
    "content",
    [*BROKEN, *(f'{{"eos_token_id": {value}}}' for value in NO_IDS)],
    ids=lambda c: c[:24],
)
def test_a_broken_file_is_one_line_that_names_it(copied: Path, content: str) -> None:
    (copied / NAME).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=NAME) as error:
        loading.generation_config(str(copied), Model(name_or_path=str(copied)))
    assert "\n" not in str(error.value)
