"""AlpacaEval 2: instructions in, the annotator's preferences, the measures and the files out."""

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import alpaca_files
import pytest
from alpaca_files import chance, longer_wins, shown
from chat_server import TEMPLATE, ChatServer, completion, error, serving
from chat_server import Reply as Sent
from chat_server import longer_wins as by_length

from selm.data.schemas import ResponseRow
from selm.errors import UserError
from selm.evaluation import alpaca_data
from selm.evaluation.alpaca_eval import ALPACA_EVAL, PAPERS_JUDGE
from selm.evaluation.annotator import read, share_of_first, shows_policy_first
from selm.evaluation.base import Answering, Measured, Measuring
from selm.evaluation.length_control import Annotation, length_controlled, win_rate
from selm.ranking.base import Reply
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Recipe


@pytest.fixture
def recipe_for(tiny_recipe: str, tmp_path: Path):
    """A server or a ranker in YAML, instructions and further overrides in; a recipe out."""

    def make(
        judge: ChatServer | str, *overrides: str, count: int = 12, table: bool = False
    ) -> Recipe:
        data = alpaca_files.write(tmp_path / "data", alpaca_files.entries(count), table)
        if not isinstance(judge, str):
            judge = f"{{ranker: judge, name_or_path: j, judge: {{base_url: '{judge.url}'}}}}"
        own = ("benchmarks.names=[alpaca_eval]", f"benchmarks.data={data}")
        return load_recipe(tiny_recipe, [*own, f"benchmarks.judge={judge}", *overrides])

    return make


@pytest.fixture
def measured(tmp_path: Path) -> Callable[..., Measured]:
    """A recipe and a policy's answers in, the benchmark's results out."""

    def measure(recipe: Recipe, answers: Sequence[ResponseRow], name: str = "m") -> Measured:
        folder, verdicts = tmp_path / f"work-{name}", tmp_path / "verdicts"
        asked = Measuring(recipe, 1, "no policy", folder, name, {1: answers}, verdicts)
        return ALPACA_EVAL.measure(asked)

    return measure


LENGTHS = {n: 15 + 5 * n for n in range(12)}


def by_hand(recipe: Recipe) -> list[float]:
    """The preferences that `longer_wins` gives answers of these lengths."""
    known = alpaca_data.instructions(recipe)
    return [1 + chance(LENGTHS[n], len(each.output)) for n, each in enumerate(known)]


# What is measured


def test_the_preference_is_how_likely_the_judge_names_the_answer(recipe_for, measured) -> None:
    with serving(longer_wins) as server:
        recipe = recipe_for(server)
        found = measured(recipe, alpaca_files.answers(recipe, LENGTHS))
    scores = [row["score"] for row in found.rows]
    assert scores == pytest.approx([value - 1 for value in by_hand(recipe)], abs=1e-9)
    assert [body["max_tokens"] for body in server.bodies] == [1] * 12
    rate, error_of_mean = win_rate(by_hand(recipe))
    assert found.measures["win_rate"]["value"] == pytest.approx(rate, abs=1e-7)
    assert found.measures["win_rate"]["standard_error"] == pytest.approx(error_of_mean, abs=1e-7)
    length = found.measures["length"]
    assert length["value"] == sum(LENGTHS.values()) / 12
    assert length["standard_error"] == pytest.approx(math.sqrt(25 * 13 / 12), rel=1e-12)
    annotation = found.facts["annotation"]
    assert (annotation["logprobs"], annotation["ties"]) == (12, 0)
    assert annotation["judge_tokens"] == 12 * 13
    assert annotation["policy_first"] + annotation["other_first"] == 12
    assert found.facts["baseline"] == "gpt4_1106_preview"
    assert found.judge == "judge j"


@pytest.mark.parametrize("table", [False, True])
def test_the_length_controlled_rate_is_that_of_the_annotations(
    recipe_for, measured, table: bool
) -> None:
    with serving(longer_wins) as server:
        recipe = recipe_for(server, table=table)
        found = measured(recipe, alpaca_files.answers(recipe, LENGTHS))
    known = alpaca_data.instructions(recipe)
    own = [
        Annotation(each.text, value, len(each.output), LENGTHS[n])
        for n, (each, value) in enumerate(zip(known, by_hand(recipe), strict=True))
    ]
    reference = alpaca_data.reference(recipe, known)
    assert len(reference.gamed) == (24 if table else 0)
    difficulties = reference.difficulties or {each.text: 0.0 for each in known}
    wanted = length_controlled(own, difficulties, reference.gamed)
    assert found.measures["lc_win_rate"]["value"] == pytest.approx(wanted.win_rate, abs=1e-4)
    warned = "lc_win_rate is not regularised: it was fitted without df_gamed.csv."
    assert (warned in found.notes) != table
    rates = ["lc_win_rate", "win_rate"] if table else ["win_rate", "lc_win_rate"]
    assert list(found.measures) == [*rates, "length"]
    # Without difficulties P is the same for all, so its spread says nothing of the error.
    assert (found.measures["lc_win_rate"]["standard_error"] is not None) == table


def test_rows_say_how_the_preference_came_about(recipe_for, measured) -> None:
    with serving(longer_wins) as server:
        recipe = recipe_for(server)
        rows = measured(recipe, alpaca_files.answers(recipe, LENGTHS)).rows
    known = alpaca_data.instructions(recipe)
    for n, (row, each) in enumerate(zip(rows, known, strict=True)):
        details = json.loads(row["details"])
        assert (row["prompt_id"], row["part"]) == (each.prompt_id, "")
        assert details["length"] == LENGTHS[n]
        assert details["baseline_length"] == len(each.output)
        assert details["source"] == "logprobs"
        first = "policy" if shows_policy_first(each.text) else "other"
        assert details["shown_first"] == first


def test_the_order_is_the_same_for_two_models_and_fair(recipe_for, measured) -> None:
    orders: list[dict[str, bool]] = []
    for letter, length in (("p", 33), ("q", 50)):
        with serving(longer_wins) as server:
            recipe = recipe_for(server, count=40)
            answers = alpaca_files.answers(recipe, dict.fromkeys(range(40), length))
            for row in answers:
                row["responses"] = [letter * length]
            measured(recipe, answers, name=letter)
        asked = map(shown, server.bodies)
        orders.append({text: first.startswith(letter) for text, first, _ in asked})
    assert orders[0] == orders[1]
    assert len(orders[0]) == 40
    assert 10 <= sum(orders[0].values()) <= 30  # of 40 coins; outside: once in 500 sets


def test_a_judge_that_always_names_the_first_gives_even_odds_to_equals(
    recipe_for, measured
) -> None:
    """Each answer wins where it stands first, whoever wrote it."""
    with serving(lambda body: completion("A", {"A": -0.001, "B": -7.0})) as server:
        recipe = recipe_for(server, count=40)
        found = measured(recipe, alpaca_files.answers(recipe))
    firsts = sum(shows_policy_first(each.text) for each in alpaca_data.instructions(recipe))
    share = 1 / (1 + math.exp(0.001 - 7))
    wanted = 100 * (firsts * share + (40 - firsts) * (1 - share)) / 40
    assert found.measures["win_rate"]["value"] == pytest.approx(wanted, abs=1e-6)
    assert found.facts["annotation"]["first_wins"] == round(share, 4)


# Judges of all kinds


def test_an_endpoint_without_log_probs_gives_verdicts(recipe_for, measured, capsys) -> None:
    def verdict(body: dict[str, Any]) -> Sent:
        if "logprobs" in body:
            return error(400, "logprobs: not supported")
        return longer_wins(body)

    with serving(verdict) as server:
        recipe = recipe_for(server, "benchmarks.judge.judge.concurrency=1")
        found = measured(recipe, alpaca_files.answers(recipe, LENGTHS))
    wanted = [round(value) - 1 for value in by_hand(recipe)]
    assert [row["score"] for row in found.rows] == wanted
    assert found.facts["annotation"]["verdict"] == 12
    assert len(server.answered) == 12, "the one token was the verdict"
    assert "asked for log-probs" in capsys.readouterr().out


def test_a_judge_that_speaks_before_its_verdict_is_let_speak(recipe_for, measured) -> None:
    """One token is "The" or a thought; what it says with more tokens counts."""

    def wordy(body: dict[str, Any]) -> Sent:
        _, a, b = shown(body)
        if body["max_tokens"] == 1:
            return completion("The", {"The": -0.001, "A": -12.0, "B": -14.0})
        return completion(f"<think>Hm, A?</think>**{'A' if len(a) > len(b) else 'B'}**")

    with serving(wordy) as server:
        recipe = recipe_for(server, "benchmarks.judge.judge.max_tokens=50")
        found = measured(recipe, alpaca_files.answers(recipe, LENGTHS))
    assert [row["score"] for row in found.rows] == [round(v) - 1 for v in by_hand(recipe)]
    assert Counter(body["max_tokens"] for body in server.bodies) == {1: 12, 50: 12}
    assert found.facts["annotation"]["judge_tokens"] == 2 * 12 * 13


def test_what_gives_no_preference_is_counted_and_left_out(recipe_for, measured) -> None:
    """Four of twelve: the win rate is that of the other eight."""

    def script(body: dict[str, Any]) -> Sent:
        number = int(shown(body)[0].split()[1])
        if number == 0:
            return error(400, "This model's maximum context length is 9 tokens. However, ...")
        if number == 1:
            return completion(None, refusal="No.")
        return completion("Well, well") if number in (2, 3) else longer_wins(body)

    with serving(script) as server:
        recipe = recipe_for(server)
        found = measured(recipe, alpaca_files.answers(recipe, LENGTHS))
    assert found.dropped == {
        "too_long_for_judge": 1,
        "refused_by_judge": 1,
        "unreadable_judgement": 2,
    }
    assert "Question 2 about" in found.dropped.first["unreadable_judgement"]
    assert len(found.rows) == 8
    wanted = win_rate(by_hand(recipe)[4:]).win_rate
    assert found.measures["win_rate"]["value"] == pytest.approx(wanted, abs=1e-7)
    assert "Of AlpacaEval's 805 instructions, 8 count here." in found.notes
    assert len(json.loads(found.files["annotations.json"])) == 8
    assert len(json.loads(found.files["model_outputs.json"])) == 12


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (completion("Well, well"), "unreadable_judgement .*it said 'Well, well'"),
        (error(400, "maximum context length is 9 tokens. However, ..."), "too_long_for_judge"),
    ],
)
def test_a_judge_that_says_nothing_at_all_is_an_error(
    recipe_for, measured, sent: Sent, words: str
) -> None:
    with serving(lambda body: sent) as server:
        recipe = recipe_for(server)
        with pytest.raises(UserError, match=rf"^benchmarks\.judge: judge j has no.*12 {words}"):
            measured(recipe, alpaca_files.answers(recipe))


def test_equal_texts_are_ties_that_nobody_is_asked_about(recipe_for, measured) -> None:
    with serving(longer_wins) as server:
        recipe = recipe_for(server)
        answers = alpaca_files.answers(recipe, LENGTHS)
        for row, each in list(zip(answers, alpaca_data.instructions(recipe), strict=True))[:3]:
            row["responses"] = [each.output]
        found = measured(recipe, answers)
        assert len(server.bodies) == 9
    assert [row["score"] for row in found.rows[:3]] == [0.5] * 3
    assert json.loads(found.rows[0]["details"])["shown_first"] is None
    assert found.facts["annotation"]["same_text"] == found.facts["annotation"]["ties"] == 3


def test_a_policy_that_is_the_baseline_has_half(recipe_for, measured) -> None:
    with serving(longer_wins) as server:
        recipe = recipe_for(server, table=True)
        answers = alpaca_files.answers(recipe)
        for row, each in zip(answers, alpaca_data.instructions(recipe), strict=True):
            row["responses"] = [each.output]
        found = measured(recipe, answers)
        assert not server.bodies
    rates = [found.measures[name]["value"] for name in ("lc_win_rate", "win_rate")]
    assert rates == [50.0, 50.0]


def test_empty_answers_are_judged_like_others(recipe_for, measured) -> None:
    with serving(longer_wins) as server:
        recipe = recipe_for(server)
        found = measured(recipe, alpaca_files.answers(recipe, dict.fromkeys(range(12), 0)))
        assert len(server.answered) == 12
    assert len(found.rows) == 12
    assert found.measures["length"] == {"value": 0.0, "standard_error": 0.0}
    assert 0 < found.measures["win_rate"]["value"] < 25


@pytest.mark.parametrize("table", [False, True])
def test_a_ranker_that_is_no_llm_decides_by_scores(
    recipe_for, measured, tmp_path: Path, table: bool
) -> None:
    """A function of the user's, which scores by length: wins are 2, losses 1, ties 1.5."""
    reward = tmp_path / "reward.py"
    reward.write_text(
        "def score(prompt, candidates, dataset):\n"
        "    assert dataset in ('koala', 'helpful_base')\n"
        "    return [len(text) for text in candidates]\n",
        encoding="utf-8",
    )
    judge = f"{{ranker: function, name_or_path: '{reward}:score', shard_size: 5}}"
    recipe = recipe_for(judge, table=table)
    known = alpaca_data.instructions(recipe)
    lengths = LENGTHS | {0: len(known[0].output)}
    found = measured(recipe, alpaca_files.answers(recipe, lengths))
    wanted = [
        1.0 if lengths[n] > len(each.output) else 0.5 if lengths[n] == len(each.output) else 0.0
        for n, each in enumerate(known)
    ]
    assert [row["score"] for row in found.rows] == wanted
    assert found.facts["annotation"]["ties"] == wanted.count(0.5) >= 1
    assert "lc_win_rate" in found.measures
    assert any(note.startswith(f"The judge is function {reward}:score") for note in found.notes)


def test_an_ensemble_of_judges_decides_by_scores_and_counts_its_verdicts(
    recipe_for, measured, tmp_path: Path
) -> None:
    """It is no LLM that could be asked in other words: each member asks in its own."""
    (tmp_path / "judge.txt").write_text(TEMPLATE, encoding="utf-8")
    with serving(by_length) as server:
        member = f"judge: {{base_url: '{server.url}', template: '{tmp_path / 'judge.txt'}'}}"
        members = ", ".join(f"{{ranker: judge, name_or_path: {m}, {member}}}" for m in "ab")
        recipe = recipe_for(f"{{ranker: ensemble, rankers: [{members}]}}")
        found = measured(recipe, alpaca_files.answers(recipe, LENGTHS))
    assert [row["score"] for row in found.rows] == [round(v) - 1 for v in by_hand(recipe)]
    verdicts = {label: facts["verdicts"] for label, facts in found.facts["rankers"].items()}
    assert verdicts == {"0 judge a": 24, "1 judge b": 24}


def test_the_papers_judge_has_no_note_about_the_judge(recipe_for, measured) -> None:
    with serving(longer_wins) as server:
        recipe = recipe_for(server, f"benchmarks.judge.name_or_path={PAPERS_JUDGE}")
        notes = measured(recipe, alpaca_files.answers(recipe, LENGTHS)).notes
    assert not any("judge" in note for note in notes)


@pytest.mark.parametrize("count", [1, 4])
def test_with_few_instructions_there_is_no_length_control(recipe_for, measured, count: int) -> None:
    with serving(longer_wins) as server:
        recipe = recipe_for(server, f"benchmarks.limit={count}")
        found = measured(recipe, alpaca_files.answers(recipe, LENGTHS))
    assert list(found.measures) == ["win_rate", "length"]
    assert (found.measures["win_rate"]["standard_error"] is None) == (count == 1)
    assert f"it needs 5 preferences, and there are {count}." in found.notes[-1]
    json.dumps(found.measures, allow_nan=False)


def test_a_429_is_waited_for(recipe_for, measured) -> None:
    turns: Counter[str] = Counter()

    def script(body: dict[str, Any]) -> Sent:
        turns[shown(body)[0]] += 1
        limited = turns[shown(body)[0]] < 3
        return error(429, "slow down", Retry_After="0") if limited else longer_wins(body)

    with serving(script) as server:
        recipe = recipe_for(server)
        found = measured(recipe, alpaca_files.answers(recipe, LENGTHS))
    assert set(turns.values()) == {3}
    assert len(found.rows) == 12 and not found.dropped


def test_a_stopped_annotation_goes_on_and_asks_only_the_rest(recipe_for, measured) -> None:
    def seven_then_nothing(body: dict[str, Any]) -> Sent:
        return longer_wins(body) if len(server.answered) < 7 else error(401, "expired")

    with serving(seven_then_nothing) as server:
        recipe = recipe_for(server, "benchmarks.judge.judge.concurrency=1")
        answers = alpaca_files.answers(recipe, LENGTHS)
        with pytest.raises(UserError, match="401 expired"):
            measured(recipe, answers)
        assert len(server.answered) == 7
        server.script = longer_wins
        found = measured(recipe, answers)
        assert Counter(Counter(server.answered).values()) == {1: 12}
        assert measured(recipe, answers) == found
        assert len(server.answered) == 12
    assert len(found.rows) == 12


# The reply


def test_letters_are_found_in_the_ways_of_tokenizers() -> None:
    log = math.log
    assert share_of_first({"A": log(0.6), "B": log(0.2)}) == 0.75
    assert share_of_first({"A": log(0.3), " A": log(0.2), "▁b": log(0.5)}) == 0.5
    assert share_of_first({"**B": log(0.5), "ĠB": log(0.5)}) == 0.0
    assert share_of_first({"A": log(0.5), "AB": log(0.5)}) == 1.0
    assert share_of_first({"The": -0.1, "A": -9.0}) is None
    assert share_of_first({"A": 5.0, "B": 0.0}) == 0.5  # no probability is above 1
    assert share_of_first({}) is None


@pytest.mark.parametrize("policy_first", [True, False])
def test_the_order_is_undone(policy_first: bool) -> None:
    first = read(
        Reply("A", "stop", logprobs={"A": math.log(0.8), "B": math.log(0.2)}), policy_first
    )
    assert first.value == pytest.approx(1.8 if policy_first else 1.2)
    assert read(Reply("[[B]]", "stop"), policy_first).value == (1.0 if policy_first else 2.0)
    assert read(Reply("Tie", "stop"), policy_first).value == 1.5
    assert read(Reply("", "length"), policy_first).reason == "unreadable_judgement"
    assert read(Reply("A", "content_filter"), policy_first).reason == "refused_by_judge"


# Files for others


def test_annotations_reproduce_the_win_rate_and_outputs_are_all_there(recipe_for, measured) -> None:
    with serving(longer_wins) as server:
        recipe = recipe_for(server)
        answers = alpaca_files.answers(recipe, LENGTHS)
        answers[4]["responses"] = ["ünï 🙂 \x00 </s>"]
        found = measured(recipe, answers)
    annotations = json.loads(found.files["annotations.json"])
    outputs = json.loads(found.files["model_outputs.json"])
    assert win_rate([each["preference"] for each in annotations]).win_rate == pytest.approx(
        found.measures["win_rate"]["value"], rel=1e-12
    )
    known = alpaca_data.instructions(recipe)
    assert [each["output"] for each in outputs] == [row["responses"][0] for row in answers]
    assert [each["output_2"] for each in annotations] == [each["output"] for each in outputs]
    assert [each["output_1"] for each in annotations] == [each.output for each in known]
    assert {each["generator"] for each in outputs} == {"tiny-iter-1"}
    assert {each["generator_1"] for each in annotations} == {"gpt4_1106_preview"}
    assert [each["index"] for each in annotations] == list(range(12))
    assert set(outputs[0]) == {"dataset", "instruction", "output", "generator"}


def test_pandas_reads_the_files_as_the_package_does(recipe_for, measured, tmp_path: Path) -> None:
    import pandas

    with serving(longer_wins) as server:
        recipe = recipe_for(server)
        found = measured(recipe, alpaca_files.answers(recipe, LENGTHS))
    for name, text in found.files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    frame = pandas.read_json(tmp_path / "annotations.json")
    rate = 100 * (frame["preference"] - 1).mean()
    assert rate == pytest.approx(found.measures["win_rate"]["value"], rel=1e-9)
    lengths = pandas.read_json(tmp_path / "model_outputs.json")["output"].str.len()
    assert lengths.mean() == found.measures["length"]["value"]


# Answers


def asked(recipe: Recipe, folder: Path) -> Answering:
    return Answering(recipe, 0, recipe.model.name_or_path, folder, "answers")


def test_the_policy_answers_greedily_in_the_files_order(recipe_for, tmp_path: Path) -> None:
    sampled = ("generation.temperature=1.0", "generation.num_samples=3")
    recipe = recipe_for("{ranker: random}", *sampled, "benchmarks.limit=5")
    found = ALPACA_EVAL.answer(asked(recipe, tmp_path / "one"))
    again = ALPACA_EVAL.answer(asked(recipe, tmp_path / "two"))
    known = alpaca_data.instructions(recipe)
    assert len(known) == 12
    assert [row["prompt_id"] for row in found.rows] == [each.prompt_id for each in known[:5]]
    assert [len(row["responses"]) for row in found.rows] == [1] * 5
    assert found.rows == again.rows
    assert len({row["responses"][0] for row in found.rows}) > 1
    assert all(row["num_tokens"][0] <= 8 for row in found.rows)


def test_answers_of_the_policy_can_be_measured(recipe_for, measured, tmp_path: Path) -> None:
    with serving(longer_wins) as server:
        recipe = recipe_for(server, "benchmarks.limit=7", table=True)
        rows = ALPACA_EVAL.answer(asked(recipe, tmp_path / "answers")).rows
        found = measured(recipe, rows)
    assert len(found.rows) == 7
    assert list(found.measures) == ["lc_win_rate", "win_rate", "length"]


def test_unanswered_instructions_are_counted(recipe_for, measured) -> None:
    recipe = recipe_for("{ranker: random}")
    answers = alpaca_files.answers(recipe)
    found = measured(recipe, [row for n, row in enumerate(answers) if n not in (2, 3)])
    assert found.dropped["not_answered"] == 2
    assert "Question 2" in found.dropped.first["not_answered"]
    assert [each["index"] for each in json.loads(found.files["annotations.json"])][:3] == [0, 1, 4]


# The files


def test_the_plan_counts_without_the_hub(recipe_for, tiny_recipe: str) -> None:
    own = ["benchmarks.names=[alpaca_eval]"]
    load = ALPACA_EVAL.workload(load_recipe(tiny_recipe, own))
    assert (load.questions, load.texts, load.requests) == (805, 805, 805)
    assert ALPACA_EVAL.workload(load_recipe(tiny_recipe, [*own, "benchmarks.limit=9"])).texts == 9
    assert ALPACA_EVAL.workload(recipe_for("{ranker: random}")).texts == 12


def test_the_files_that_decide_are_named(recipe_for) -> None:
    def named(recipe: Recipe) -> list[str]:
        return [*ALPACA_EVAL.files(recipe), *ALPACA_EVAL.references(recipe)]

    assert named(recipe_for("{ranker: random}")) == [alpaca_data.QUESTIONS]
    with_table = named(recipe_for("{ranker: random}", table=True))
    assert with_table == [alpaca_data.QUESTIONS, alpaca_data.TABLE]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("preference", "x"), "no column 'preference'"),
        (
            lambda text: text.replace("\n3,3,", "\n3,99,"),
            "table has 100 instructions, the dataset 12",
        ),
        (lambda text: re.sub(r"\n3,3,[^\n]*", "", text), "no difficulty of 'Question 3 about"),
        (lambda text: re.sub(r"concise,[^,]*", "concise,much", text), "could not convert"),
        (lambda text: re.sub(r"concise,[^,]*", "concise,nan", text), "numbers that are not finite"),
        (lambda text: text.splitlines()[0], "it has no rows"),
        (lambda text: "", "it has no rows"),
    ],
)
def test_another_table_is_refused_before_anybody_is_asked(
    recipe_for, measured, change: Callable[[str], str], words: str
) -> None:
    with serving(longer_wins) as server:
        recipe = recipe_for(server, table=True)
        path = alpaca_data.local_files(recipe, alpaca_data.TABLE)[alpaca_data.TABLE]
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
        with pytest.raises(UserError) as caught:
            measured(recipe, alpaca_files.answers(recipe))
        assert not server.bodies
    message = str(caught.value)
    assert message.startswith(f"benchmarks.data: {path}: ") and words in message
    assert message.endswith("remove it for a win rate that is not regularised")


def test_scikit_learn_is_missed_before_anybody_is_asked(recipe_for, measured, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with serving(longer_wins) as server:
        recipe = recipe_for(server)
        with pytest.raises(UserError, match=r"need scikit-learn: pip install 'selm\[benchmarks\]'"):
            measured(recipe, alpaca_files.answers(recipe))
        assert not server.bodies
