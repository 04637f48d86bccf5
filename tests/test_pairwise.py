"""Policies against earlier ones: which answers are read, and the win rates that come of them."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import alpaca_files
import pytest
from alpaca_files import chance, longer_wins, shown
from chat_server import ChatServer, completion, error, serving
from chat_server import Reply as Sent

from selm.data.schemas import ResponseRow
from selm.errors import UserError
from selm.evaluation import alpaca_data
from selm.evaluation.annotator import shows_policy_first
from selm.evaluation.base import Measured, Measuring
from selm.evaluation.length_control import Annotation, length_controlled, win_rate
from selm.evaluation.pairwise import PAIRWISE, pairs_of
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Recipe

COUNT = 10


@pytest.fixture
def recipe_for(tiny_recipe: str, tmp_path: Path):
    """A server or a ranker in YAML, and overrides in; a recipe out: AlpacaEval's, unless named."""

    def make(
        judge: ChatServer | str, *overrides: str, names: str = "alpaca_eval, pairwise"
    ) -> Recipe:
        data = alpaca_files.write(tmp_path / "data", alpaca_files.entries(COUNT), table=True)
        if not isinstance(judge, str):
            judge = f"{{ranker: judge, name_or_path: j, judge: {{base_url: '{judge.url}'}}}}"
        own = (f"benchmarks.names=[{names}]", f"benchmarks.data={data}")
        return load_recipe(tiny_recipe, [*own, f"benchmarks.judge={judge}", *overrides])

    return make


@pytest.fixture
def measured(tmp_path: Path) -> Callable[..., Measured]:
    """A recipe, t and the answers by iteration in; the results out."""

    def measure(recipe: Recipe, t: int, answers: Mapping[int, Sequence[ResponseRow]]) -> Measured:
        folder, verdicts = tmp_path / "work", tmp_path / "verdicts"
        return PAIRWISE.measure(Measuring(recipe, t, "", folder, "vs", answers, verdicts))

    return measure


def lengths(t: int) -> dict[int, int]:
    """Later policies write more, and each of them varies in its own way."""
    return {n: 20 + 8 * t + (7 * n * (t + 1)) % 11 for n in range(COUNT)}


def by_iteration(recipe: Recipe, *iterations: int) -> dict[int, list[ResponseRow]]:
    return {t: alpaca_files.answers(recipe, lengths(t)) for t in iterations}


def test_each_earlier_policy_is_an_opponent(recipe_for, measured) -> None:
    with serving(longer_wins) as server:
        recipe = recipe_for(server)
        found = measured(recipe, 2, by_iteration(recipe, 0, 1, 2))
    names = [f"{name}_vs_{i}" for i in (0, 1) for name in ("lc_win_rate", "win_rate")]
    assert list(found.measures) == names
    known = alpaca_data.instructions(recipe)
    difficulties = alpaca_data.reference(recipe, known).difficulties
    for i in (0, 1):
        values = [1 + chance(lengths(2)[n], lengths(i)[n]) for n in range(COUNT)]
        rows = [row for row in found.rows if row["part"] == str(i)]
        assert [row["score"] + 1 for row in rows] == pytest.approx(values, abs=1e-9)
        rate = found.measures[f"win_rate_vs_{i}"]
        wanted = win_rate(values)
        assert rate["value"] == pytest.approx(wanted.win_rate, abs=1e-7)
        assert rate["standard_error"] == pytest.approx(wanted.standard_error, abs=1e-7)
        annotations = [
            Annotation(each.text, values[n], lengths(i)[n], lengths(2)[n])
            for n, each in enumerate(known)
        ]
        controlled = length_controlled(annotations, difficulties).win_rate
        assert found.measures[f"lc_win_rate_vs_{i}"]["value"] == pytest.approx(controlled, abs=1e-4)
        assert found.facts["annotation"][str(i)]["logprobs"] == COUNT
    assert len(found.rows) == 2 * COUNT
    assert "lc_win_rate is not regularised: it was fitted without df_gamed.csv." in found.notes


def test_the_matrix_is_the_same_from_both_sides(recipe_for, measured) -> None:
    """Who is compared with whom does not matter to who wins."""
    with serving(longer_wins) as server:
        recipe = recipe_for(server)
        answers = by_iteration(recipe, 0, 1)
        found = measured(recipe, 1, answers)
        swapped = measured(recipe, 1, {0: answers[1], 1: answers[0]})
    there, back = (each.measures["win_rate_vs_0"]["value"] for each in (found, swapped))
    assert there + back == pytest.approx(100, abs=1e-7)
    assert there > 60


def test_the_first_policy_has_nobody_to_meet(recipe_for, measured) -> None:
    with serving(longer_wins) as server:
        recipe = recipe_for(server)
        found = measured(recipe, 0, by_iteration(recipe, 0))
        assert not server.bodies
    assert (dict(found.measures), list(found.rows)) == ({}, [])
    assert found.judge == "judge j"
    assert "No policy before iteration 0 is benchmarked" in found.notes[0]


def test_a_policy_that_changed_nothing_is_as_good_as_before(recipe_for, measured) -> None:
    with serving(longer_wins) as server:
        recipe = recipe_for(server)
        same = by_iteration(recipe, 0)[0]
        found = measured(recipe, 1, {0: same, 1: same})
        assert not server.bodies
    assert {measure["value"] for measure in found.measures.values()} == {50.0}


def test_any_ranker_can_be_the_judge(recipe_for, measured, tmp_path: Path) -> None:
    reward = tmp_path / "reward.py"
    reward.write_text(
        "def score(prompt, candidates):\n    return [len(text) for text in candidates]\n",
        encoding="utf-8",
    )
    judge = f"{{ranker: function, name_or_path: '{reward}:score', shard_size: 4}}"
    recipe = recipe_for(judge)
    found = measured(recipe, 2, by_iteration(recipe, 0, 1, 2))
    for i in (0, 1):
        more = [lengths(2)[n] - lengths(i)[n] for n in range(COUNT)]
        wanted = [1.0 if d > 0 else 0.5 if d == 0 else 0.0 for d in more]
        scores = [row["score"] for row in found.rows if row["part"] == str(i)]
        assert scores == wanted
    assert found.judge == f"function {reward}:score"


def test_held_out_answers_are_compared_where_there_is_no_alpaca_eval(recipe_for, measured) -> None:
    """Conversations, too: the judge sees all turns, and the order is drawn from them."""
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Why?"},
    ]

    def rows(length: int) -> list[ResponseRow]:
        blank: dict[str, Any] = {"tools": None, "chosen": None, "rejected": None, "columns": None}
        prompts = [turns, *([{"role": "user", "content": f"q{n}"}] for n in range(5))]
        return [
            {"prompt_id": f"p{n}", "prompt": prompt, "responses": ["r" * (length + n % 3)]}
            | {"finish_reasons": ["stop"], "num_tokens": [3]}
            | blank
            for n, prompt in enumerate(prompts)
        ]

    with serving(longer_wins) as server:
        recipe = recipe_for(server, names="pairwise")
        found = measured(recipe, 1, {0: rows(10), 1: rows(20)})
    asked = {text: len(first) for text, first, _ in map(shown, server.bodies)}
    whole = "user: Hi\n\nassistant: Hello.\n\nuser: Why?"
    assert set(asked) == {whole, *(f"q{n}" for n in range(5))}
    assert asked[whole] == (20 if shows_policy_first(whole) else 10)
    assert len(found.rows) == 6
    wanted = 100 / (1 + math.exp(-1))
    assert found.measures["win_rate_vs_0"]["value"] == pytest.approx(wanted, abs=1e-6)
    assert list(found.measures) == ["win_rate_vs_0", "lc_win_rate_vs_0"]


def test_what_one_side_has_not_answered_is_counted(recipe_for, measured) -> None:
    with serving(longer_wins) as server:
        recipe = recipe_for(server)
        answers = by_iteration(recipe, 0, 1)
        found = measured(recipe, 1, {0: answers[0][2:], 1: answers[1][:-1]})
    assert found.dropped["not_answered_by_both"] == 3
    assert len(found.rows) == COUNT - 3


def test_pairs_are_joined_by_prompt(recipe_for) -> None:
    recipe = recipe_for("{ranker: random}")
    answers = by_iteration(recipe, 0, 1)
    pairs, dropped = pairs_of(answers[1], answers[0][::-1])
    assert not dropped
    texts = [(len(pair.output), len(pair.other)) for pair in pairs]
    assert texts == [(lengths(1)[n], lengths(0)[n]) for n in range(COUNT)]
    assert [pair.prompt_id for pair in pairs] == [row["prompt_id"] for row in answers[1]]


def test_policies_without_a_prompt_in_common_are_refused(recipe_for, measured) -> None:
    recipe = recipe_for("{ranker: random}")
    answers = by_iteration(recipe, 0, 1)
    with pytest.raises(UserError, match=r"no prompt has an answer of both .* iteration 0"):
        measured(recipe, 1, {0: answers[0][:4], 1: answers[1][4:]})


def test_unreadable_judgements_are_left_out_and_few_are_said(recipe_for, measured) -> None:
    def script(body: dict[str, Any]) -> Sent:
        number = int(shown(body)[0].split()[1])
        return longer_wins(body) if number < 3 else completion("Hm, both")

    with serving(script) as server:
        recipe = recipe_for(server)
        found = measured(recipe, 1, by_iteration(recipe, 0, 1))
    assert found.dropped == {"unreadable_judgement": COUNT - 3}
    assert list(found.measures) == ["win_rate_vs_0"]
    assert found.notes == [
        "There is no length-controlled win rate against iteration 0: it needs 5 preferences, and "
        "there are 3."
    ]


def test_a_stopped_comparison_asks_only_the_rest(recipe_for, measured) -> None:
    """Killed while it meets the second opponent; what it knows of the first is kept."""

    def most_then_nothing(body: dict[str, Any]) -> Sent:
        return longer_wins(body) if len(server.answered) < COUNT + 4 else error(401, "expired")

    with serving(most_then_nothing) as server:
        recipe = recipe_for(server, "benchmarks.judge.judge.concurrency=1")
        answers = by_iteration(recipe, 0, 1, 2)
        with pytest.raises(UserError, match="401 expired"):
            measured(recipe, 2, answers)
        server.script = longer_wins
        found = measured(recipe, 2, answers)
        assert len(server.answered) == 2 * COUNT == len(set(server.answered))
    assert len(found.rows) == 2 * COUNT


# The recipe


def test_answers_of_all_benchmarked_policies_are_read(recipe_for) -> None:
    recipe = recipe_for("{ranker: random}")
    stage = "benchmarks/alpaca_eval/answers"
    assert PAIRWISE.reads(recipe, 0) == [(stage, 0)]
    assert PAIRWISE.reads(recipe, 2) == [(stage, 0), (stage, 1), (stage, 2)]
    last = recipe_for("{ranker: random}", "benchmarks.iterations=last")
    assert PAIRWISE.reads(last, 2) == [(stage, 2)]
    assert PAIRWISE.reads(last, 1) == [(stage, 1)]
    some = recipe_for("{ranker: random}", "benchmarks.iterations=[0, 2]", names="pairwise")
    assert PAIRWISE.reads(some, 2) == [("answers", 0), ("answers", 2)]
    assert PAIRWISE.answer is None and not PAIRWISE.asks_policy


def test_what_decides_is_named(recipe_for) -> None:
    of_alpaca = recipe_for("{ranker: random}")
    held_out = recipe_for("{ranker: random}", names="pairwise")
    assert set(PAIRWISE.references(of_alpaca)) == {alpaca_data.QUESTIONS, alpaca_data.TABLE}
    assert PAIRWISE.references(held_out) == {}
    assert PAIRWISE.settings(of_alpaca) != PAIRWISE.settings(held_out)


def test_the_plan_has_the_mean_over_the_policies(recipe_for) -> None:
    """Three policies meet in three pairs."""
    load = PAIRWISE.workload(recipe_for("{ranker: random}"))
    assert (load.questions, load.requests, load.texts) == (COUNT, COUNT, 0)
    alone = PAIRWISE.workload(recipe_for("{ranker: random}", "benchmarks.iterations=last"))
    assert alone.requests == 0
    held_out = PAIRWISE.workload(recipe_for("{ranker: random}", names="pairwise"))
    assert held_out.requests == 8


def test_its_answers_are_made_before_it(recipe_for) -> None:
    with pytest.raises(UserError, match=r"^benchmarks\.names: put alpaca_eval before pairwise"):
        recipe_for("{ranker: random}", names="pairwise, alpaca_eval")


def test_results_are_json(recipe_for, measured) -> None:
    with serving(longer_wins) as server:
        recipe = recipe_for(server, "benchmarks.limit=1")
        found = measured(recipe, 1, by_iteration(recipe, 0, 1))
        assert len(server.bodies) == 1
    assert list(found.measures) == ["win_rate_vs_0"]
    json.dumps([found.measures, found.facts, list(found.notes)], allow_nan=False)
