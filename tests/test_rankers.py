"""Rankers score, `prefer` makes preference rows of the scores."""

import datetime
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pools import pools_of

from selm.data.columns import _say_left_out, as_json
from selm.data.parquet import read_rows, save_rows
from selm.data.portions import training_portion
from selm.data.prompts import as_messages, as_text
from selm.data.schemas import PreferenceRow, ResponseRow
from selm.errors import UserError
from selm.evaluation.scores import beside_base, evaluate, with_rewards
from selm.generation.respond import respond
from selm.ranking.base import Ranker
from selm.ranking.ensemble import EnsembleRanker
from selm.ranking.function import FunctionRanker
from selm.ranking.kinds import load_ranker
from selm.ranking.prefer import prefer
from selm.ranking.random import RandomRanker
from selm.ranking.refused import PromptRefused
from selm.ranking.scoring import score_shard
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Ranking, Recipe

HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def function_file(tmp_path: Path):
    """Source in, `path/to/file.py:reward` out."""

    def write(source: str) -> str:
        (tmp_path / "own.py").write_text(source, encoding="utf-8")
        return f"{tmp_path / 'own.py'}:reward"

    return write


def test_the_function_gets_messages_and_texts(function_file) -> None:
    name = function_file(
        "def reward(prompt, candidates):\n"
        "    assert prompt == [{'role': 'user', 'content': 'Hi'}]\n"
        "    return [len(text) for text in candidates]\n"
    )
    ranker = load_ranker(Ranking(ranker="function", name_or_path=name), seed=1)
    assert ranker.score(pools_of(["a", "b"], [HI, HI], [["x", "xyz"], ["xy"]])) == [
        [1.0, 3.0],
        [2.0],
    ]
    assert not ranker.pairwise


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("[1.0]", "1 scores for 2 candidates of p7"),
        ("[1.0, 2.0, 3.0]", "3 scores for 2 candidates of p7"),
        ("[1.0, float('nan')]", r"\[1.0, nan\] for p7 are not all numbers"),
        ("[float('inf'), 1.0]", "for p7 are not all numbers"),
    ],
)
def test_scores_that_make_no_sense_are_the_users_mistake(
    function_file, returned: str, message: str
) -> None:
    name = function_file(f"def reward(prompt, candidates):\n    return {returned}\n")
    with pytest.raises(UserError, match=message):
        FunctionRanker(name).score(pools_of(["p7"], [HI], [["x", "y"]]))


def test_a_missing_function_is_named(function_file, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"own\.py has no function 'reward'"):
        FunctionRanker(function_file("reward = 3\n"))
    (tmp_path / "own.txt").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="is not a Python file"):
        FunctionRanker(f"{tmp_path / 'own.txt'}:reward")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import math\n1 / 0\n", "ZeroDivisionError: division by zero (line 2)"),
        (
            "import no_such_module\n",
            "ModuleNotFoundError: No module named 'no_such_module' (line 1)",
        ),
        ("def reward(:\n", "SyntaxError: invalid syntax (own.py, line 1)"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named(function_file, source: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        FunctionRanker(function_file(source))
    assert str(caught.value).endswith(f"own.py cannot be imported: {message}")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 1 / 0", "ZeroDivisionError: division by zero (line 2), for the prompt p7"),
        (
            "return len(3)",
            "TypeError: object of type 'int' has no len() (line 2), for the prompt p7",
        ),
        ("raise ValueError('two\\nlines')", "ValueError: two lines (line 2), for the prompt p7"),
        ("return None", "wanted one number per candidate, got None for p7"),
        (
            "return ['good', 'bad']",
            "wanted one number per candidate, got ['good', 'bad'] for p7",
        ),
    ],
)
def test_a_function_that_fails_is_named_with_the_row(
    function_file, body: str, message: str
) -> None:
    name = function_file(f"def reward(prompt, candidates):\n    {body}\n")
    with pytest.raises(UserError) as caught:
        FunctionRanker(name).score(pools_of(["p7"], [HI], [["x", "y"]]))
    assert str(caught.value) == f"{name}: {message}"


COLUMNS = {"chosen": "w", "rejected": None, "level": 3, "tags": ["a"]}


@pytest.mark.parametrize(
    ("parameters", "expression"),
    [
        ("prompt, candidates, **columns", "[columns == ALL]"),
        ("messages, texts, **rest", "[rest == ALL and texts == ['x']]"),
        ("prompt, candidates, level", "[level == 3]"),
        ("prompt, candidates, level=0, other=7", "[(level, other) == (3, 7)]"),
        ("prompt, candidates, *, tags, **columns", "[{'tags': tags} | columns == ALL]"),
        ("prompt, candidates, /, level", "[level == 3]"),
        ("prompt, candidates", "[len(prompt) == len(candidates) == 1]"),
        ("*everything", "[len(everything) == 2]"),
    ],
)
def test_a_function_gets_the_columns_that_it_takes(
    function_file, parameters: str, expression: str
) -> None:
    everything = {"prompt_id": "p", **COLUMNS}
    name = function_file(
        f"ALL = {everything}\ndef reward({parameters}):\n    return {expression}\n"
    )
    assert FunctionRanker(name).score(pools_of(["p"], [HI], [["x"]], [COLUMNS])) == [[1.0]]


def test_columns_that_do_not_fit_the_function_are_named(function_file) -> None:
    name = function_file("def reward(prompt, candidates, answer):\n    return [1.0]\n")
    with pytest.raises(
        UserError, match="it needs a column 'answer'; the columns are prompt_id, chosen"
    ):
        FunctionRanker(name).score(pools_of(["p"], [HI], [["x"]], [COLUMNS]))
    name = function_file("def reward(prompt, tags, **columns):\n    return [1.0]\n")
    with pytest.raises(
        UserError, match="the dataset has a column 'tags', which is also an argument"
    ):
        FunctionRanker(name).score(pools_of(["p"], [HI], [["x"]], [COLUMNS]))


def test_the_datasets_columns_reach_the_function(
    tiny_recipe: str, function_file, tmp_path: Path
) -> None:
    """From the file through generation to ranking and to evaluation; one row has no `level`."""
    name = function_file(
        "def reward(prompt, candidates, level, when, **columns):\n"
        "    assert columns['notes'] == {'by': 'me'} and columns['chosen'] == 'Good.'\n"
        "    assert columns['prompt_id'] == prompt[0]['content']\n"
        "    assert when.startswith('2024-05-29')\n"
        "    return [(level or 0) + n for n in range(len(candidates))]\n"
    )
    rows = [
        {"prompt": f"p{i}", "prompt_id": f"p{i}", "chosen": "Good.", "rejected": "Bad."}
        | {"level": 10 * i if i else None, "when": "2024-05-29T00:00:00", "notes": {"by": "me"}}
        for i in range(10)
    ]
    (tmp_path / "own.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    overrides = [f"data.name_or_path={tmp_path / 'own.jsonl'}", "ranking.ranker=function"]
    recipe = load_recipe(tiny_recipe, [*overrides, f"ranking.name_or_path={name}"])
    found, _ = training_portion(recipe, 1)
    answered = respond(found, recipe.model.name_or_path, recipe, 1, tmp_path, "generating")
    save_rows(answered.rows, ResponseRow, tmp_path / "train.parquet")
    on_disk = read_rows(tmp_path / "train.parquet")
    (tmp_path / "ranked").mkdir()
    preferences, _ = preferred(on_disk, recipe, tmp_path / "ranked")
    assert [row["scores"][0] for row in preferences] == [0, 10, 20, 30]
    (tmp_path / "scored").mkdir()
    base = [row | {"responses": ["base"]} for row in on_disk]
    scored = evaluate(on_disk, base, recipe, tmp_path / "scored", tmp_path, "scoring")
    assert [row["reward_of_base"] for row in scored.rows] == [1, 11, 21, 31]


def test_random_scores_depend_on_seed_and_prompt_alone() -> None:
    pools = [["x", "y"], ["x", "y", "z"]]
    scores = RandomRanker(1).score(pools_of(["a", "b"], [HI, HI], pools))
    assert scores == RandomRanker(1).score(pools_of(["a", "b"], [HI, HI], pools))
    assert scores[1:] == RandomRanker(1).score(pools_of(["b"], [HI], pools[1:]))
    assert scores != RandomRanker(2).score(pools_of(["a", "b"], [HI, HI], pools))
    assert len({number for row in scores for number in row}) == 5


@pytest.fixture
def recipe_with(tiny_recipe: str, function_file):
    """A recipe whose ranker reads the score of a candidate in its text: "a 3" scores 3."""
    name = function_file(
        "def reward(prompt, candidates):\n"
        "    return [float(text.split()[-1]) for text in candidates]\n"
    )

    def make(*overrides: str) -> Recipe:
        ranker = ["ranking.ranker=function", f"ranking.name_or_path={name}"]
        return load_recipe(tiny_recipe, [*ranker, *overrides])

    return make


def row(
    prompt_id: str, chosen: str | None, rejected: str | None, *responses: str, cut: bool = False
) -> dict[str, Any]:
    return {
        "prompt_id": prompt_id,
        "prompt": HI,
        "chosen": as_messages(chosen),
        "rejected": as_messages(rejected),
        "responses": list(responses),
        "finish_reasons": ["length" if cut else "stop"] * len(responses),
        "num_tokens": [3] * len(responses),
    }


def preferred(
    rows: list[ResponseRow], recipe: Recipe, folder: Path
) -> tuple[list[PreferenceRow], Counter[str]]:
    found = prefer(rows, recipe, folder)
    return found.rows, found.dropped


def outcome(preference: PreferenceRow) -> tuple[str, ...]:
    texts = [as_text(preference[which]) for which in ("chosen", "rejected")]
    return (preference["prompt_id"], *texts, preference["explored"], preference["explored_role"])


def test_the_best_and_the_worst_of_the_pool_are_kept(recipe_with, tmp_path: Path) -> None:
    rows = [
        row("best", "w 2", "l 1", "y 3"),
        row("worst", "w 2", "l 1", "y 0"),
        row("between", "w 3", "l 1", "y 2"),
        row("turned", "w 1", "l 3", "y 2"),
        row("is w", "w 2", "l 1", "w 2"),
        row("is l", "w 2", "l 1", "l 1"),
        row("pool", None, None, "y 1", "z 2"),
        row("pool of three", None, None, "y 2", "z 3", "x 1"),
        row("two samples", "w 2", "l 1", "y 1.5", "z 4"),
    ]
    preferences, dropped = preferred(rows, recipe_with(), tmp_path)
    assert [outcome(preference) for preference in preferences] == [
        ("best", "y 3", "l 1", "y 3", "chosen"),
        ("worst", "w 2", "y 0", "y 0", "rejected"),
        ("between", "w 3", "l 1", "y 2", "neither"),
        ("turned", "l 3", "w 1", "y 2", "neither"),
        ("is w", "w 2", "l 1", "w 2", "chosen"),
        ("is l", "w 2", "l 1", "l 1", "rejected"),
        ("pool", "z 2", "y 1", "y 1", "rejected"),
        ("pool of three", "z 3", "x 1", "y 2", "neither"),
        ("two samples", "z 4", "l 1", "y 1.5", "neither"),
    ]
    assert preferences[0]["scores"] == [2.0, 1.0, 3.0]
    assert not dropped


def test_the_replace_rule_compares_with_the_chosen_only(recipe_with, tmp_path: Path) -> None:
    rows = [row("up", "w 1", "l 3", "y 2"), row("down", "w 2", "l 0", "y 1")]
    recipe = recipe_with("ranking.update_rule=replace")
    preferences, _ = preferred(rows, recipe, tmp_path)
    assert [outcome(preference) for preference in preferences] == [
        ("up", "y 2", "l 3", "y 2", "chosen"),
        ("down", "w 2", "y 1", "y 1", "rejected"),
    ]


def test_identical_candidates_and_ties_are_dropped_and_counted(recipe_with, tmp_path: Path) -> None:
    rows = [
        row("identical", None, None, "y 1", "y 1"),
        row("all the same", "y 1", "y 1", "y 1"),
        row("tie", "w 1", "l 1", "y 1"),
        row("kept", "w 1", "l 1", "y 2"),
    ]
    preferences, dropped = preferred(rows, recipe_with(), tmp_path)
    assert [preference["prompt_id"] for preference in preferences] == ["kept"]
    assert dropped == {"identical_candidates": 2, "tie": 1}


def test_a_margin_below_the_recipes_is_dropped_and_counted(recipe_with, tmp_path: Path) -> None:
    rows = [row("near", "w 1", "l 1.4", "y 1.2"), row("far", "w 1", "l 1.5", "y 1.2")]
    recipe = recipe_with("ranking.min_margin=0.5")
    preferences, dropped = preferred(rows, recipe, tmp_path)
    assert [preference["prompt_id"] for preference in preferences] == ["far"]
    assert dropped == {"margin_too_small": 1}


def test_a_pool_of_samples_leaves_the_datasets_pair_out(recipe_with, tmp_path: Path) -> None:
    rows = [row("p", "w 9", "l 0", "y 3", "z 4", "x 5"), row("same", "w 9", "l 0", "y 1", "y 1")]
    recipe = recipe_with(
        "ranking.pool=samples", "generation.num_samples=3", "generation.temperature=1"
    )
    preferences, dropped = preferred(rows, recipe, tmp_path)
    assert [outcome(preference) for preference in preferences] == [
        ("p", "x 5", "y 3", "y 3", "rejected")
    ]
    assert preferences[0]["scores"] == [3.0, 4.0, 5.0]
    assert dropped == {"identical_candidates": 1}


def test_the_summary_counts_rows_that_were_dropped_too(recipe_with, tmp_path: Path) -> None:
    rows = [
        row("wins", "w 1", "l 0", "y 2"),
        row("tie", "w 1", "l 1", "y 1"),
        row("loses to w", "w 3", "l 1", "y 2"),
    ]
    found = prefer(rows, recipe_with(), tmp_path).summary
    assert found["rows"] == 3
    assert found["explored_against"] == {
        "chosen": {"won": 1, "tied": 1, "lost": 1},
        "rejected": {"won": 2, "tied": 1, "lost": 0},
    }


def test_an_ensembles_members_are_compared_on_the_same_rows(recipe_with, tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(
        "def long(prompt, candidates):\n    return [len(text) for text in candidates]\n"
        "def short(prompt, candidates):\n    return [-len(text) for text in candidates]\n",
        encoding="utf-8",
    )
    functions = [f"{tmp_path}/two.py:{name}" for name in ("long", "short", "long")]
    members = ", ".join(f"{{ranker: function, name_or_path: {f}}}" for f in functions)
    recipe = recipe_with(f"ranking={{ranker: ensemble, rankers: [{members}]}}")
    rows = [row("p", "good", "bad one", "middle"), row("q", "excellent", "bad", "ok")]
    found = prefer(rows, recipe, tmp_path).summary
    agreement = {tuple(a["rankers"]): (a["alike"], a["pairs"]) for a in found["agreement"]}
    long, short, again = (f"{i} function {name}" for i, name in enumerate(functions))
    assert agreement == {
        ("the dataset", long): (1, 2),  # p's chosen is the shorter one
        ("the dataset", short): (1, 2),
        ("the dataset", again): (1, 2),
        (long, short): (0, 6),
        (long, again): (6, 6),
        (short, again): (0, 6),
    }


def test_finish_reasons_travel_with_the_response(recipe_with, tmp_path: Path) -> None:
    rows = [
        row("best", "w 2", "l 1", "y 3", cut=True),
        row("worst", "w 2", "l 1", "y 0", cut=True),
        row("between", "w 3", "l 1", "y 2", cut=True),
        row("finished", "w 2", "l 1", "y 3"),
    ]
    preferences, _ = preferred(rows, recipe_with(), tmp_path)
    reasons = [
        tuple(p[f"{which}_finish_reason"] for which in ("chosen", "rejected", "explored"))
        for p in preferences
    ]
    assert reasons == [
        ("length", "stop", "length"),
        ("stop", "length", "length"),
        ("stop", "stop", "length"),
        ("stop", "stop", "stop"),
    ]


def test_preferences_do_not_depend_on_the_shard_size(recipe_with, tmp_path: Path) -> None:
    rows = [row(f"p{i}", f"w {i % 3}", "l 1", f"y {i % 5}") for i in range(11)]
    whole, split = tmp_path / "whole", tmp_path / "split"
    whole.mkdir()
    split.mkdir()
    expected = prefer(rows, recipe_with("ranking.shard_size=100"), whole)
    assert prefer(rows, recipe_with("ranking.shard_size=2"), split) == expected


# Prompts that a ranker cannot read


class Picky(Ranker):
    """Refuses prompts whose id begins with "no"; a longer text is better."""

    def __init__(self) -> None:
        self.calls = 0

    def score(self, pools):
        self.calls += 1
        for pool in pools:
            if pool.prompt_id.startswith("no"):
                raise PromptRefused(f"{pool.prompt_id} is not to be read", pool.prompt_id)
        return [[float(len(text)) for text in pool.texts] for pool in pools]


def test_a_prompt_that_the_ranker_refuses_costs_its_row(
    recipe_with, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr("selm.ranking.scoring.load_ranker", lambda *settings: Picky())
    rows = [row(name, "w", "ll", "yyy") for name in ("a", "no-1", "b", "no-2", "no-3")]
    found = prefer(rows, recipe_with("ranking.shard_size=3"), tmp_path)
    assert [one["prompt_id"] for one in found.rows] == ["a", "b"]
    assert found.dropped == {"refused_by_ranker": 3}
    assert found.dropped.first["refused_by_ranker"].startswith("prompt no-1")
    assert found.summary["rows"] == 2
    assert "no-1 is not to be read: the prompt is dropped" in capsys.readouterr().out
    again = prefer(rows, recipe_with("ranking.shard_size=3"), tmp_path)  # from the shards
    assert again == found


def test_without_any_prompt_that_the_ranker_reads_the_stage_ends(
    recipe_with, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("selm.ranking.scoring.load_ranker", lambda *settings: Picky())
    with pytest.raises(
        UserError, match=r"none of the 1 rows gave a pair \({'refused_by_ranker': 1}\)"
    ):
        prefer([row("no", "w", "ll", "yyy")], recipe_with(), tmp_path)


def test_held_out_rows_that_cannot_be_scored_are_left_out_and_counted() -> None:
    rows = [row(name, "w", "l", "yyy") for name in ("a", "no-1", "no base", "b")]
    base = [row(name, "w", "l", text) for name, text in (("a", "x"), ("no-1", "x"), ("b", "yyyy"))]
    scored = score_shard(beside_base(rows, base), Picky())
    found, dropped = with_rewards(rows, scored)
    assert [(one["prompt_id"], one["reward"], one["reward_of_base"]) for one in found] == [
        *(("a", 3.0, 1.0), ("b", 3.0, 4.0))
    ]
    assert dropped == {"refused_by_ranker": 1, "not_answered_by_base": 1}
    assert dropped.first["refused_by_ranker"].startswith("prompt no-1")


def test_a_member_that_refuses_a_prompt_is_named(recipe_with) -> None:
    ensemble = EnsembleRanker(
        Ranking(ranker="ensemble", rankers=(Ranking(ranker="random"),) * 2), 1, None
    )
    ensemble.rankers[1] = Picky()
    with pytest.raises(PromptRefused, match=r"ranking.rankers.1 \(random\): no is not") as caught:
        ensemble.score(pools_of(["yes", "no"], [HI, HI], [["a"], ["b"]]))
    assert caught.value.prompt_id == "no"


def test_columns_that_are_no_text_are_left_out_and_said(capsys) -> None:
    _say_left_out.cache_clear()
    day = datetime.datetime(2024, 5, 29, 1, 2)
    columns = {"image": object(), "when": day, "raw": {"bytes": b"\x89PNG"}, "n": [1, None, "é"]}
    for _ in range(2):
        stored = as_json(columns)
        assert json.loads(stored) == {"when": "2024-05-29 01:02:00", "n": [1, None, "é"]}
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == ["column image", "column raw"]
    assert as_json({"image": b"x"}) is None and as_json({}) is None
    assert as_json({"a": 1, "b": "x\ud800"}) == json.dumps({"a": 1, "b": "x\ud800"})
