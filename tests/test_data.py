"""Datasets of every form come in as the same rows; what cannot be used is counted or refused."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import Dataset, Features, List, Value, load_dataset

from selm.data.forms import normalise
from selm.data.parquet import features, read_rows, save_rows
from selm.data.portions import held_out_portion, training_portion
from selm.data.schemas import EvaluationRow, LogpsRow, PreferenceRow, ResponseRow, ScoreRow
from selm.errors import UserError
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Recipe
from selm.run.stages import STAGES

QUICKSTART = Path(__file__).parents[1] / "recipes/smollm2-135m-instruct/selm.yaml"
HI = [{"role": "user", "content": "Hi"}]
TURNS = [*HI, {"role": "assistant", "content": "Hey."}, {"role": "user", "content": "None?"}]


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def pair(prompt: str, **changes: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": "Good.", "rejected": "Bad."} | changes


@pytest.fixture
def recipe_of(tiny_recipe: str, tmp_path: Path):
    """Rows (or a text, or a path) and overrides in; a recipe that reads them out."""

    def make(content: Any, *overrides: str, file: str = "own.jsonl") -> Recipe:
        path = content if isinstance(content, Path) else tmp_path / file
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif isinstance(content, list):
            path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
        tree = yaml.safe_load(Path(tiny_recipe).read_text(encoding="utf-8"))
        own = tmp_path / "recipe.yaml"
        own.write_text(yaml.safe_dump(tree), encoding="utf-8")
        return load_recipe(own, [f"data.name_or_path={path}", *overrides])

    return make


FORMS = {
    "UltraFeedback-binarized": {
        "prompt": "Hi",
        "chosen": HI + answer("Good."),
        "rejected": HI + answer("Bad."),
    },
    "conversational": {"prompt": HI, "chosen": answer("Good."), "rejected": answer("Bad.")},
    "implicit prompt": {"chosen": HI + answer("Good."), "rejected": HI + answer("Bad.")},
    "strings": {"prompt": "Hi", "chosen": "Good.", "rejected": "Bad."},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_row(form: str) -> None:
    row = normalise(FORMS[form])
    assert row == normalise(FORMS["strings"])
    assert row["prompt"] == HI
    assert (row["chosen"], row["rejected"]) == ("Good.", "Bad.")


def test_prompts_alone_are_rows_without_responses() -> None:
    for prompt in ("Hi", HI):
        row = normalise({"prompt": prompt})
        assert (row["prompt"], row["chosen"], row["rejected"]) == (HI, None, None)


def test_a_prompt_of_several_turns_is_kept_whole() -> None:
    explicit = {"prompt": TURNS, "chosen": answer("Good."), "rejected": answer("Bad.")}
    # UltraFeedback's prompt column holds the first turn only; the conversations hold all of them
    implicit = {
        "prompt": "Hi",
        "chosen": TURNS + answer("Good."),
        "rejected": TURNS + answer("Bad."),
    }
    assert normalise(explicit) == normalise(implicit)
    assert normalise(explicit)["prompt"] == TURNS


def test_prompt_ids_are_the_datasets_or_a_hash_of_the_prompt() -> None:
    assert normalise(pair("Hi", prompt_id="p7"))["prompt_id"] == "p7"
    assert normalise(pair("Hi", prompt_id=7))["prompt_id"] == "7"
    first, again, other = (normalise(pair(p))["prompt_id"] for p in ("Hi", "Hi", "Ho"))
    assert first == again != other


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (pair("Hi", chosen=""), "empty_response"),
        (pair("Hi", rejected=" \n"), "empty_response"),
        (pair("Hi", chosen=None), "empty_response"),
        (pair("Hi", chosen=None, rejected=None), "empty_response"),
        (pair("Hi", chosen="Same.", rejected="Same."), "chosen_is_rejected"),
        (pair("  "), "empty_prompt"),
        (pair(None), "empty_prompt"),
        (pair([]), "empty_prompt"),
        (pair(HI + answer("Hey.")), "prompt_does_not_end_with_user"),
        (pair("Hi", chosen=HI + answer("A"), rejected=TURNS + answer("B")), "another_prompt"),
        (pair("Hi", chosen=answer("A"), rejected=[]), "empty_response"),
        (pair("Hi", chosen=TURNS, rejected=TURNS), "dialogue_does_not_end_with_assistant"),
        (pair([{"speaker": "human", "text": "Hi"}]), "messages_without_role_and_content"),
    ],
)
def test_a_row_that_cannot_be_used_has_a_reason(raw: dict[str, Any], reason: str) -> None:
    assert reason in normalise(raw)


def test_drops_are_counted_and_the_rest_is_kept_in_order(recipe_of) -> None:
    rows = [pair(f"p{i}") for i in range(9)]
    rows[1]["chosen"] = ""
    rows[2]["prompt"] = ""
    rows[3]["prompt"] = "p0"
    rows[4]["chosen"] = rows[4]["rejected"]
    recipe = recipe_of([*rows, pair("held out")], "iterations=[{objective: dpo, learning_rate: 1}]")
    kept, dropped = training_portion(recipe, 1)
    assert [row["prompt"][0]["content"] for row in kept] == ["p0", "p5", "p6", "p7", "p8"]
    assert dropped == {
        "empty_response": 1,
        "empty_prompt": 1,
        "duplicate_prompt": 1,
        "chosen_is_rejected": 1,
    }


def test_portions_hold_every_row_once(tiny_recipe: str) -> None:
    one = "{objective: selm, learning_rate: 1.0}"
    for num_iterations in (1, 2, 5, 7, 24):
        recipe = load_recipe(tiny_recipe, [f"iterations=[{', '.join([one] * num_iterations)}]"])
        portions = [training_portion(recipe, t)[0] for t in range(1, num_iterations + 1)]
        ids = [row["prompt_id"] for rows in portions for row in rows]
        assert len(ids) == len(set(ids)) == 24
        assert max(map(len, portions)) - min(map(len, portions)) <= 1


def test_the_quickstarts_rows_are_the_same_in_the_same_iteration_for_ever() -> None:
    """Numbers in docs/results.md were made with these portions, in this order."""
    recipe = load_recipe(QUICKSTART)
    found = [training_portion(recipe, t)[0] for t in (1, 2, 3)] + [held_out_portion(recipe)[0]]
    ids = [" ".join(row["prompt_id"] for row in rows) for rows in found]
    assert [hashlib.sha256(text.encode()).hexdigest()[:16] for text in ids] == [
        "d8d2588fc433f5a0",
        "019f797bdff94aee",
        "c2ed1b673eb31f02",
        "48241fd929d34b21",
    ]


def test_limit_takes_the_first_rows_before_they_are_portioned(tiny_recipe: str) -> None:
    every, _ = training_portion(load_recipe(tiny_recipe), 1)
    for limit, size in ((10, 5), (1000, 12)):
        rows, _ = training_portion(load_recipe(tiny_recipe, [f"data.limit={limit}"]), 1)
        assert rows == every[:size]


def test_held_out_rows_are_the_first_of_the_test_split(tiny_recipe: str) -> None:
    every, _ = held_out_portion(load_recipe(tiny_recipe))
    some, _ = held_out_portion(load_recipe(tiny_recipe, ["evaluation.limit=3", "data.limit=4"]))
    assert len(every) == 8
    assert some == every[:3]


def test_a_single_file_holds_out_its_last_tenth(recipe_of) -> None:
    recipe = recipe_of([pair(f"p{i}") for i in range(21)])
    training = [row for t in (1, 2) for row in training_portion(recipe, t)[0]]
    held_out, _ = held_out_portion(recipe)
    texts = [row["prompt"][0]["content"] for row in training + held_out]
    assert texts == [f"p{i}" for i in range(21)]
    assert len(held_out) == 3


def test_a_file_in_the_home_folder_is_a_file(recipe_of, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "home.jsonl").write_text(
        "".join(json.dumps(pair(f"p{i}")) + "\n" for i in "abcd"), encoding="utf-8"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(held_out_portion(recipe_of(Path("~/home.jsonl")))[0]) == 1


def test_parquet_jsonl_and_folders_give_the_same_rows(recipe_of, tmp_path: Path) -> None:
    rows = [FORMS["conversational"] | {"prompt": f"p{i}"} for i in range(10)]
    jsonl = recipe_of(rows)
    Dataset.from_list(rows).to_parquet(tmp_path / "own.parquet")
    folder = tmp_path / "folder"
    folder.mkdir()
    Dataset.from_list(rows[:9]).to_parquet(folder / "train.parquet")
    Dataset.from_list(rows[9:]).to_parquet(folder / "test.parquet")
    for recipe in (recipe_of(tmp_path / "own.parquet"), recipe_of(folder)):
        for t in (1, 2):
            assert training_portion(recipe, t) == training_portion(jsonl, t)
        assert held_out_portion(recipe) == held_out_portion(jsonl)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"question": "Hi", "answer": "Ho"}] * 20, ["question, answer", "wanted: prompt"]),
        (
            [{"prompt": "Hi", "chosen": "Ho"}] * 20,
            ["prompt, chosen", "needs both chosen and rejected"],
        ),
        ('{"prompt": "a"}\n{"prompt": \n' * 10, ["cannot be read", "row 2: row_is_no_json"]),
        ("", ["cannot be read: it is empty"]),
        ("\n\n", ["cannot be read"]),
        ([pair("only one")], ["0 training rows", "too few for 2 iterations"]),
        ([pair("")] * 20, ["nothing left", "empty_prompt"]),
        ([pair([{"speaker": "human"}])] * 20, ["without_role_and_content"]),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(recipe_of, rows: Any, words: list[str]) -> None:
    recipe = recipe_of(rows)
    with pytest.raises(UserError) as caught:
        training_portion(recipe, 1)
    message = str(caught.value)
    assert "own.jsonl" in message
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_missing_split_is_an_error_that_names_the_ones_there(tiny_recipe: str) -> None:
    recipe = load_recipe(tiny_recipe, ["data.train_split=train_prefs"])
    with pytest.raises(UserError, match="no split 'train_prefs'; it has train, test"):
        training_portion(recipe, 1)


def test_train_rows_that_are_not_true_are_an_error(tiny_recipe: str) -> None:
    with pytest.raises(UserError, match=r"recipe says 25, .* has 24 rows"):
        training_portion(load_recipe(tiny_recipe, ["data.train_rows=25"]), 1)
    assert training_portion(load_recipe(tiny_recipe, ["data.train_rows=24"]), 1)[0]


STRING, MESSAGES = Value("string"), List({"role": Value("string"), "content": Value("string")})

# What Parquet files of ours have held since the first of them.
FEATURES = {
    ResponseRow: {
        "prompt_id": STRING,
        "prompt": MESSAGES,
        "chosen": MESSAGES,
        "rejected": MESSAGES,
        "responses": List(STRING),
        "finish_reasons": List(STRING),
        "num_tokens": List(Value("int64")),
        "columns": STRING,
    },
    PreferenceRow: {
        "prompt_id": STRING,
        "prompt": MESSAGES,
        "chosen": MESSAGES,
        "rejected": MESSAGES,
        "explored": STRING,
        "explored_role": STRING,
        "chosen_finish_reason": STRING,
        "rejected_finish_reason": STRING,
        "explored_finish_reason": STRING,
        "scores": List(Value("float64")),
    },
    ScoreRow: {
        "prompt_id": STRING,
        "scores": List(Value("float64")),
        "member_scores": List(List(Value("float64"))),
    },
    EvaluationRow: {
        "prompt_id": STRING,
        "prompt": MESSAGES,
        "response": STRING,
        "finish_reason": STRING,
        "num_tokens": Value("int64"),
        "reward": Value("float64"),
        "reward_of_base": Value("float64"),
    },
    LogpsRow: {
        "prompt_id": STRING,
        "chosen_logps": Value("float64"),
        "rejected_logps": Value("float64"),
        "chosen_tokens": Value("int64"),
        "rejected_tokens": Value("int64"),
    },
}

SAVED = {
    "responses": (
        ResponseRow,
        {
            "prompt_id": "a",
            "prompt": HI,
            "chosen": None,
            "rejected": answer("None"),
            "responses": ["x", ""],
            "finish_reasons": ["stop", "length"],
            "num_tokens": [2, 8],
            "columns": '{"level": 3}',
        },
    ),
    "preferences": (
        PreferenceRow,
        {
            "prompt_id": "a",
            "prompt": TURNS,
            "chosen": answer("naïve 🙂"),
            "rejected": answer(""),
            "explored": "x",
            "explored_role": "neither",
            "chosen_finish_reason": "stop",
            "rejected_finish_reason": "stop",
            "explored_finish_reason": "length",
            "scores": [0.5, 1.0, -2.0],
        },
    ),
    "evaluation": (
        EvaluationRow,
        {
            "prompt_id": "a",
            "prompt": HI,
            "response": "x",
            "finish_reason": "stop",
            "num_tokens": 2,
            "reward": 0.5,
            "reward_of_base": 0.25,
        },
    ),
    "logps": (
        LogpsRow,
        {
            "prompt_id": "a",
            "chosen_logps": -301.25,
            "rejected_logps": -2.5,
            "chosen_tokens": 99,
            "rejected_tokens": 1,
        },
    ),
}


@pytest.mark.parametrize("schema", FEATURES)
def test_the_columns_are_those_of_the_files_that_are_there_already(schema: type) -> None:
    assert list(features(schema).items()) == list(FEATURES[schema].items())


def test_where_a_prompt_has_tools_its_messages_and_its_row_have_columns_more() -> None:
    more = dict.fromkeys(("role", "content", "tool_calls", "name", "tool_call_id"), STRING)
    wanted = FEATURES[PreferenceRow] | {"prompt": List(more), "tools": STRING}
    assert list(features(PreferenceRow, with_tools=True).items()) == list(wanted.items())


@pytest.mark.parametrize("kind", SAVED)
def test_an_artifact_loads_as_a_dataset_of_one_split(kind: str, tmp_path: Path) -> None:
    schema, row = SAVED[kind]
    split = STAGES[kind].split
    save_rows([row] * 3, schema, tmp_path / f"{split}.parquet")
    (tmp_path / "manifest.json").write_text('{"stage": "any"}', encoding="utf-8")
    loaded = load_dataset(str(tmp_path))
    assert list(loaded) == [split]
    assert loaded[split].features == Features(FEATURES[schema])
    assert loaded[split].to_list() == [row] * 3
    assert read_rows(tmp_path / f"{split}.parquet") == [row] * 3


def test_no_rows_can_be_saved_and_read(tmp_path: Path) -> None:
    save_rows([], ResponseRow, tmp_path / "train.parquet")
    assert read_rows(tmp_path / "train.parquet") == []
