"""MT-Bench: the tiny model answers two turns, and a scripted LLM on this machine rates them."""

import json
import math
import re
import statistics
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pandas
import pytest
from chat_server import Reply, completion, error, serving
from mt_bench_questions import (
    BY_CATEGORY,
    CATEGORIES,
    COMPARED,
    QUESTIONS,
    REFERENCES,
    recipe_of,
    write,
)

from selm.data.columns import columns_of
from selm.errors import UserError
from selm.evaluation import mt_bench
from selm.evaluation.base import Answering, Measured, Measuring
from selm.evaluation.mt_bench import MT_BENCH
from selm.evaluation.rating import mean_rating, read_rating
from selm.generation.answered import Answered
from selm.generation.kinds import load_engine
from selm.generation.transformers_engine import TransformersEngine
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Recipe


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `benchmarks.data`."""
    return write(tmp_path_factory.mktemp("questions"), QUESTIONS, REFERENCES)


@pytest.fixture(scope="module")
def answered(tiny_recipe: str, questions: Path, tmp_path_factory: Any) -> Answered:
    return answers_of(recipe_of(tiny_recipe, questions), tmp_path_factory.mktemp("answers"))


def answers_of(recipe: Recipe, folder: Path) -> Answered:
    assert MT_BENCH.answer is not None
    return MT_BENCH.answer(Answering(recipe, 1, recipe.model.name_or_path, folder, "test"))


def measured(recipe: Recipe, answered: Answered, folder: Path) -> Measured:
    policy, answers = recipe.model.name_or_path, {1: answered.rows}
    asked = Measuring(recipe, 1, policy, folder / "shards", "test", answers, folder / "verdicts")
    return MT_BENCH.measure(asked)


def asked_about(body: dict[str, Any]) -> tuple[str, int]:
    """The question's id and the turn that a request is about."""
    text = body["messages"][0]["content"]
    number = re.search(r"Question (\d+) of", text)
    assert number is not None
    return number.group(1), 2 if "=== Answer 2 ===" in text else 1


def rating_of(prompt_id: str, turn: int) -> float:
    """What the scripted judge thinks: 1, 1.5, ... 9.5."""
    return 1 + (7 * int(prompt_id) + 3 * turn) % 18 / 2


def rates(body: dict[str, Any]) -> Reply:
    return completion(f"It is an answer.\nRating: [[{rating_of(*asked_about(body)):g}]]")


def test_both_turns_are_rated_and_averaged(
    tiny_recipe: str, questions: Path, answered: Answered, tmp_path: Path
) -> None:
    with serving(rates) as server:
        found = measured(recipe_of(tiny_recipe, questions, server.url), answered, tmp_path)
    ids = [str(line["question_id"]) for line in QUESTIONS]
    assert [row["prompt_id"] for row in answered.rows] == ids
    first, second = ([rating_of(name, turn) for name in ids] for turn in (1, 2))
    values = {name: measure["value"] for name, measure in found.measures.items()}
    assert list(values) == ["average", "first_turn", "second_turn", *CATEGORIES]
    assert values["average"] == pytest.approx(statistics.mean(first + second))
    assert values["first_turn"] == pytest.approx(statistics.mean(first))
    assert values["second_turn"] == pytest.approx(statistics.mean(second))
    assert values["writing"] == (first[0] + second[0]) / 2
    of_questions = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    for name, means in (("average", of_questions), ("second_turn", second)):
        wanted = statistics.stdev(means) / math.sqrt(len(means))
        assert found.measures[name]["standard_error"] == pytest.approx(wanted)
    assert found.measures["writing"]["standard_error"] is None  # a single question
    assert len(server.bodies) == len(found.rows) == 2 * len(ids)
    for row in found.rows:
        turn = int(row["part"].removeprefix("turn "))
        assert row["score"] == rating_of(row["prompt_id"], turn)
        assert BY_CATEGORY[json.loads(row["details"])["category"]] == row["prompt_id"]
    assert found.judge == "judge some-model" and found.dropped == {}
    assert found.facts["ratings"] == 18 and found.facts["judge_prompt_tokens"] == 180


def test_the_judge_sees_what_it_rates_and_the_reference_where_there_is_one(
    tiny_recipe: str, questions: Path, answered: Answered, tmp_path: Path
) -> None:
    with serving(rates) as server:
        measured(recipe_of(tiny_recipe, questions, server.url), answered, tmp_path)
    prompts = {asked_about(body): body["messages"][0]["content"] for body in server.bodies}
    assert len(prompts) == 2 * len(QUESTIONS)
    assert {body["max_tokens"] for body in server.bodies} == {2048}
    for row, line in zip(answered.rows, QUESTIONS, strict=True):
        one, two = prompts[row["prompt_id"], 1], prompts[row["prompt_id"], 2]
        assert f"{line['turns'][0]}\n" in one and line["turns"][1] not in one
        assert f"=== Answer ===\n{row['responses'][0]}\n" in one
        assert [f"{text}\n" in two for text in [*line["turns"], *row["responses"]]] == [True] * 4
        assert ("Reference" in one) == ("Reference" in two) == (line["category"] in COMPARED)
        assert not re.search(r"\{\w+\}", one + two)
    math_1, math_2 = prompts[BY_CATEGORY["math"], 1], prompts[BY_CATEGORY["math"], 2]
    assert re.findall("<<.*?>>", math_1) == ["<<reference 84.1>>"]
    assert re.findall("<<.*?>>", math_2) == ["<<reference 84.1>>", "<<reference 84.2>>"]
    coding = prompts[BY_CATEGORY["coding"], 2]
    assert "=== Reference for question 1 ===\nit runs\n" in coding
    assert "=== Reference for question 2 ===\n(none)\n" in coding


def test_what_makes_the_figures_differ_from_published_ones_is_said(
    tiny_recipe: str, questions: Path, answered: Answered, tmp_path: Path
) -> None:
    with serving(rates) as server:
        found = measured(recipe_of(tiny_recipe, questions, server.url), answered, tmp_path)
    assert "gpt-4-0613" in found.notes[0]
    assert found.notes[1:] == [
        "9 questions were answered; the published MT-Bench has 80.",
        "For 1 of 3 questions in math, reasoning, coding the judge had the short reference of "
        "question.jsonl instead of GPT-4's answers (reference_answer/gpt-4.jsonl).",
        "For 1 of 3 questions in math, reasoning, coding the judge had no reference.",
        "Categories that the published MT-Bench does not have (cooking) were answered at "
        "temperature 0.7, as FastChat does.",
    ]


def test_an_answer_has_the_temperature_of_its_category(
    tiny_recipe: str, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the recipe's is; and at most 1024 tokens, as published."""
    got: list[float] = []
    tokens: set[int] = set()
    real = TransformersEngine.generate

    def noted(self: Any, prompts: Any, seeds: Any, temperatures: Any = None) -> Any:
        got.extend(temperatures)
        tokens.add(self.settings.max_tokens)
        return real(self, prompts, seeds, temperatures)

    monkeypatch.setattr(TransformersEngine, "generate", noted)
    whole = ["generation.shard_size=100", "generation.temperature=0.9", "generation.num_samples=3"]
    recipe = recipe_of(tiny_recipe, questions, "http://localhost:1", *whole)
    rows = answers_of(recipe, tmp_path).rows
    assert got == [0.7, 0.7, 0.0, 0.0, 0.0, 0.0, 0.1, 0.1, 0.7] * 2
    assert tokens == {8}  # the recipe's, which is smaller
    assert (
        mt_bench.as_asked(
            recipe_of(tiny_recipe, None, "http://localhost:1", "generation.max_tokens=4000")
        ).generation.max_tokens
        == 1024
    )
    greedy = load_engine(
        recipe.model.name_or_path, recipe.model, mt_bench.as_asked(recipe).generation
    )
    same = {}
    for row in rows:
        ids = greedy.chat.prompt_ids(row["prompt"][:1])
        same[columns_of(row)["category"]] = row["responses"][0] == greedy_text(greedy, ids)
    assert all(same[name] for name in ("extraction", "math", "coding", "reasoning"))
    assert not all(same.values())


def greedy_text(engine: Any, ids: list[int]) -> str:
    return engine.generate([ids], [0], [0.0])[0].text


def unreadable(body: dict[str, Any]) -> Reply:
    """Of some questions; in this order: no rating, one out of range, a refusal, one too long."""
    at = asked_about(body)
    replies: dict[tuple[str, int], Callable[[], Reply]] = {
        ("81", 1): lambda: completion("I cannot tell. 0"),
        ("82", 2): lambda: completion("Rating: [[0]]"),
        ("83", 1): lambda: completion(None, refusal="I do not rate that."),
        ("84", 2): lambda: error(
            400, "This model's maximum context length is 100 tokens, however you requested 999"
        ),
    }
    return replies[at]() if at in replies else rates(body)


def test_a_rating_that_there_is_not_is_counted_and_left_out(
    tiny_recipe: str, questions: Path, answered: Answered, tmp_path: Path
) -> None:
    with serving(unreadable) as server:
        found = measured(recipe_of(tiny_recipe, questions, server.url), answered, tmp_path)
    assert found.dropped == {"rating_not_read": 2, "refused_by_judge": 1, "too_long_for_judge": 1}
    assert found.dropped.first["rating_not_read"] == "question 81, turn 1"
    left = [(name, turn) for name in BY_CATEGORY.values() for turn in (1, 2)]
    for gone in (("81", 1), ("82", 2), ("83", 1), ("84", 2)):
        left.remove(gone)
    assert sorted((row["prompt_id"], int(row["part"][-1])) for row in found.rows) == sorted(left)
    wanted = statistics.mean(rating_of(*each) for each in left)
    assert found.measures["average"]["value"] == pytest.approx(wanted)
    assert found.measures["writing"] == {"value": rating_of("81", 2), "standard_error": None}
    assert any("4 of 18 ratings are left out: 2 rating_not_read" in note for note in found.notes)


def test_without_any_rating_there_is_no_result(
    tiny_recipe: str, questions: Path, answered: Answered, tmp_path: Path
) -> None:
    with (
        serving(lambda body: completion("No idea.")) as server,
        pytest.raises(UserError, match=r"benchmarks\.judge: no reply of judge some-model.*18 rati"),
    ):
        measured(recipe_of(tiny_recipe, questions, server.url), answered, tmp_path)


def test_nothing_is_asked_twice_and_long_explanations_are_kept(
    tiny_recipe: str, questions: Path, answered: Answered, tmp_path: Path
) -> None:
    def explains(body: dict[str, Any]) -> Reply:
        return completion("Well. " * 2000 + f"Rating: [[{rating_of(*asked_about(body)):g}]]")

    def asked_again(body: dict[str, Any]) -> Reply:
        raise AssertionError("it was asked before")

    with serving(explains) as server:
        recipe = recipe_of(tiny_recipe, questions, server.url)
        first = measured(recipe, answered, tmp_path)
        server.script = asked_again
        assert measured(recipe, answered, tmp_path) == first
        assert len(server.bodies) == 18


def test_the_files_are_those_of_fastchat(
    tiny_recipe: str, questions: Path, answered: Answered, tmp_path: Path
) -> None:
    """Read as FastChat reads them: its table of results from judgments, its answers by id."""
    with serving(unreadable) as server:
        found = measured(recipe_of(tiny_recipe, questions, server.url), answered, tmp_path)
    table = pandas.read_json(StringIO(found.files["judgment.jsonl"]), lines=True)
    table = table[["model", "score", "turn"]]
    assert len(table) == 18
    table = table[table["score"] != -1]
    by_turn = table[table["turn"] == 1].groupby(["model", "turn"]).mean()["score"]
    assert by_turn["tiny-iter-1", 1] == pytest.approx(found.measures["first_turn"]["value"])
    average = table[["model", "score"]].groupby(["model"]).mean()["score"]
    assert average["tiny-iter-1"] == pytest.approx(found.measures["average"]["value"])
    answers = [json.loads(line) for line in found.files["model_answer.jsonl"].splitlines()]
    assert [line["question_id"] for line in answers] == [each["question_id"] for each in QUESTIONS]
    for line, row in zip(answers, answered.rows, strict=True):
        assert line["choices"][0]["turns"] == row["responses"]
        assert line["model_id"] == "tiny-iter-1"
    assert len({line["answer_id"] for line in answers}) == len(answers)


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Rating: [[8]]", 8), ("[[7.5]]", 7.5), ("[7]", 7), ("Good.\n\n**Rating: [[10]]**", 10),
        ("[[5]], or rather [[6]]", 6), ("In the format [[rating]]. Rating: [[3]]", 3),
        ("[[8/10]]", 8), ("Rating: 8/10.", 8), ("**Score:** 4 out of 10", 4), ("rating is 2", 2),
        ("9", 9), ("<think>[[1]]</think> Rating: [[9]]", 9), ("a[5] is right. Rating: [7].", 7),
        ("", None), ("[[0]]", None), ("[[11]]", None), ("[[-5]]", None), ("Rating: -5", None),
        ("Rating: [[1", None), ("[[5]] was my first thought, but: [[12]]", None), ("[[A]]", None),
        ("The function returns a[5] for 3 inputs.", None), ("My rating from 1 to 10 follows", None),
        ("Rating: 1-10", None), ("Score: 8/20", None), ("Score: 85%", None), ("Rating: 7,5", None),
        ("<think>[[4]]", None), ("3 apples", None), ("1" * 400, None),
    ],
)  # fmt: skip
def test_a_rating_is_read_as_judges_write_it(text: str, rating: float | None) -> None:
    assert read_rating(text) == rating


def test_the_ratings_of_a_question_are_not_independent() -> None:
    """Two turns that always agree say no more than one."""
    once = [(str(i), float(rating)) for i, rating in enumerate((2, 4, 4, 7, 9))]
    one, two = mean_rating(once), mean_rating([*once, *once])
    assert two["value"] == pytest.approx(one["value"])
    assert two["standard_error"] == pytest.approx(one["standard_error"])
    assert one["standard_error"] == pytest.approx(statistics.stdev((2, 4, 4, 7, 9)) / math.sqrt(5))


def test_the_judge_has_to_be_an_llm(tiny_recipe: str, questions: Path) -> None:
    MT_BENCH.check(recipe_of(tiny_recipe, questions))
    no_judge = load_recipe(tiny_recipe, [f"benchmarks.data={questions}"])
    said = r"benchmarks\.judge: mt_bench needs an LLM .* random is not; .*judge\.ranker=judge"
    with pytest.raises(UserError, match=said):
        MT_BENCH.check(no_judge)


def test_the_plan_counts_questions_without_a_network(tiny_recipe: str, questions: Path) -> None:
    published = MT_BENCH.workload(recipe_of(tiny_recipe, None))
    assert (published.questions, published.texts, published.requests) == (80, 160, 160)
    local = MT_BENCH.workload(recipe_of(tiny_recipe, questions))
    assert (local.questions, local.requests) == (9, 18)
    few = MT_BENCH.workload(recipe_of(tiny_recipe, None, "http://x", "benchmarks.limit=7"))
    assert (few.questions, few.requests, few.answer_tokens) == (7, 14, 8)
    long = MT_BENCH.workload(recipe_of(tiny_recipe, None, "http://x", "generation.max_tokens=2000"))
    assert long.answer_tokens == 305
    assert long.request_tokens > few.request_tokens > 400
