"""The reward of the embedded task cannot be cheated, and the committed data agrees with it."""

import hashlib
import importlib.util
import itertools
import json
from pathlib import Path

import pytest

RECIPE = Path(__file__).resolve().parents[1] / "recipes/smollm2-135m-instruct"


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"smollm2_{name}", RECIPE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TASK = load("reward")
KINDS = {kind.name: kind for kind in TASK.KINDS}
LOW = 0.3

PLAIN = (
    "Honey bees live together in a large hive, and they collect nectar from the flowers nearby. "
    "They turn it into honey, and the young bees eat it during the extraordinarily long winter. "
    "A hive can be home to thousands of them, and they all work for one queen. "
    "In spring they fly out again."
)

# kind -> (an answer that meets the constraint with its first arguments, one that does not)
ANSWERS = {
    "at_most_words": ("Honey bees collect nectar and turn it into honey in their hive.", PLAIN),
    "between_words": (
        "Honey bees collect nectar from the flowers and turn it into honey for the long winter.",
        PLAIN,
    ),
    "one_sentence": (
        "Honey bees collect nectar from flowers, and they turn it into honey in their hive.",
        PLAIN,
    ),
    "more_sentences": (
        "Honey bees collect nectar from the flowers. They turn it into honey in their hive.",
        PLAIN,
    ),
    "three_items": (
        "1. Honey bees live in a hive.\n2. They collect nectar from flowers.\n3. They make honey.",
        PLAIN,
    ),
    "no_commas": (
        "Honey bees collect nectar from the flowers and turn it into honey in their hive.",
        PLAIN,
    ),
    "avoids": (
        "Honey bees collect nectar from many flowers and turn it into honey in their hive.",
        PLAIN,
    ),
    "short_words": (
        "Honey bees fly from one flower to the next and turn what they find into honey.",
        PLAIN,
    ),
    "names_color": (
        "Honey bees are yellow and black, and they make honey from what they find in flowers.",
        PLAIN,
    ),
    "includes_phrase": (
        "Honey bees visit many plants, such as clover, and they turn the nectar into honey.",
        PLAIN,
    ),
    "includes_two": (
        "Honey bees help people all over the world, because they carry pollen between the plants.",
        PLAIN,
    ),
    "starts_with": (
        "Imagine a hive with thousands of honey bees, and each of them has a job to do.",
        PLAIN,
    ),
}


def ask(kind_name: str, topic: str = "honey bees") -> str:
    kind = KINDS[kind_name]
    constraint = kind.phrasings[0].format(*kind.arguments[0])
    return f"{TASK.QUESTIONS[0].format(topic)} {kind.brevity}{constraint}"


def score(prompt: str, *answers: str) -> list[float]:
    return TASK.reward([{"role": "user", "content": prompt}], list(answers), prompt_id="ignored")


def cheats(kind_name: str) -> dict[str, str]:
    """Ways to get points without an answer, made from an answer that meets the constraint."""
    good = ANSWERS[kind_name][0]
    first = good.split(". ")[0].rstrip(".")
    return {
        "empty": "",
        "blank": " \n ",
        "marks only": "...!",
        "few words": "Honey bees are great.",
        "off topic": good.lower().replace("bees", "cars").replace("honey", "old").capitalize(),
        "sentence said twice": f"{good}\n{good}",
        "sentence said six times": " ".join([f"{first}."] * 6),
        "repeated words": "Honey bees are nice and " * 6 + "good.",
        "topic only": "Honey bees honey bees honey bees honey bees honey bees honey bees.",
        "prompt as answer": ask(kind_name),
        "prompt, then a little": ask(kind_name) + " Honey bees.",
        "word list": "Bees honey hive nectar pollen flower garden wings sting summer queen wax.",
        "function words": "It is of the and they are with that for this honey bees on it by a.",
        "gibberish": "Honey bees grumf aldo pritz wexel morn tublik sarn dovi plet gorm yast.",
        "cut": good[: int(len(good) * 0.9)].rstrip(" .!?,"),
        "cut, then closed": f"{good[: int(len(good) * 0.9)].rstrip(' .!?,')} and the.",
    }


def every_prompt():
    for kind in TASK.KINDS:
        for phrasing, arguments in itertools.product(kind.phrasings, kind.arguments):
            yield kind, arguments, f"{kind.brevity}{phrasing.format(*arguments)}"


def test_there_are_at_least_ten_kinds_and_each_has_answers_here():
    assert len(KINDS) == len(TASK.KINDS) >= 10
    assert set(ANSWERS) == set(KINDS)


def test_every_phrasing_is_read_back_as_its_own_kind():
    for question in TASK.QUESTIONS:
        for kind, arguments, constraint in every_prompt():
            read = TASK.parse(f"{question.format('honey bees')} {constraint}")
            assert (read.topic, read.kind, read.arguments) == (["honey", "bees"], kind, arguments)


@pytest.mark.parametrize("kind_name", KINDS)
def test_meeting_the_constraint_scores_clearly_higher(kind_name):
    met, missed = ANSWERS[kind_name]
    met_score, missed_score = score(ask(kind_name), met, missed)
    assert met_score >= 0.8
    assert met_score - missed_score >= 0.25


@pytest.mark.parametrize("kind_name", KINDS)
def test_cheats_score_low(kind_name):
    prompt = ask(kind_name)
    scores = {name: score(prompt, answer)[0] for name, answer in cheats(kind_name).items()}
    assert {name: value for name, value in scores.items() if value > LOW} == {}
    assert scores["empty"] == scores["blank"] == scores["marks only"] == 0


@pytest.mark.parametrize("kind_name", KINDS)
def test_length_alone_earns_nothing(kind_name):
    """The same good answer, padded with more and more of the same kind of text."""
    met = ANSWERS[kind_name][0]
    padded = [f"{met} {' '.join([PLAIN] * copies)}" for copies in (1, 2, 3)]
    first, *longer = score(ask(kind_name), met, *padded)
    assert all(first >= value for value in longer)


def test_scores_are_in_range_and_repeatable():
    for kind_name in KINDS:
        answers = [*ANSWERS[kind_name], *cheats(kind_name).values()]
        scores = score(ask(kind_name), *answers)
        assert scores == score(ask(kind_name), *answers)
        assert all(0 <= value <= 1 for value in scores)


def test_the_order_of_the_candidates_does_not_matter():
    answers = [*ANSWERS["no_commas"], *cheats("no_commas").values()]
    forwards = score(ask("no_commas"), *answers)
    assert forwards == score(ask("no_commas"), *reversed(answers))[::-1]


def test_near_misses_are_ranked():
    def check(name, text):
        return KINDS[name].check(text, *KINDS[name].arguments[0])

    assert check("no_commas", "a b") > check("no_commas", "a, b") > check("no_commas", "a, b, c")
    items = ["1. It is one.", "2. It is two.", "3. It is three.", "4. It is four."]
    lists = {count: check("three_items", "\n".join(items[:count])) for count in (1, 2, 3, 4)}
    assert lists[3] == 1 > lists[2] == lists[4] > lists[1] > 0
    assert check("more_sentences", "Go. Stop.") == 1 > check("more_sentences", "Go.")


def test_only_the_last_user_message_counts():
    prompt = [
        {"role": "system", "content": "Answer in one sentence only."},
        {"role": "user", "content": ask("no_commas", topic="volcanoes")},
        {"role": "assistant", "content": "Volcanoes are hot."},
        {"role": "user", "content": ask("starts_with")},
    ]
    met, _ = ANSWERS["starts_with"]
    assert TASK.reward(prompt, [met]) == score(ask("starts_with"), met)


def test_a_prompt_without_a_known_constraint_is_scored_by_quality():
    good, bad = score("How do honey bees survive the winter?", PLAIN, "Honey bees.")
    assert good > 0.5 > bad


def test_topics_are_recognised_in_other_forms_but_not_inside_other_words():
    forms = {"bees": "bee's", "volcanoes": "volcano", "libraries": "library", "dancing": "dance"}
    others = {"stars": "start", "cats": "category", "tea": "team", "rain": "rainbows"}
    for topic, form in forms.items():
        assert TASK.topic_quality(["a", form], [topic]) == 1
    for topic, other in others.items():
        assert TASK.topic_quality(["a", other], [topic]) == 0.2
    assert TASK.topic_quality(["honeybees"], ["honey", "bees"]) == 1
    assert TASK.topic_quality(["bees"], ["honey", "bees"]) == pytest.approx(0.7)


# --- the committed data -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def splits() -> dict[str, list[dict]]:
    return {
        name: [json.loads(line) for line in (RECIPE / f"data/{name}.jsonl").open()]
        for name in ("train", "test")
    }


def test_data_has_the_promised_size(splits):
    assert (len(splits["train"]), len(splits["test"])) == (360, 120)
    assert sum(path.stat().st_size for path in (RECIPE / "data").glob("*.jsonl")) < 1_000_000


def test_data_rows_are_ultrafeedback_pairs(splits):
    for row in splits["train"] + splits["test"]:
        assert row["prompt_id"] == hashlib.sha256(row["prompt"].encode()).hexdigest()
        for side in ("chosen", "rejected"):
            asked, answered = row[side]
            assert asked == {"role": "user", "content": row["prompt"]}
            assert answered["role"] == "assistant" and answered["content"].strip()


def test_data_prompts_are_unique_across_splits(splits):
    ids = [row["prompt_id"] for rows in splits.values() for row in rows]
    assert len(set(ids)) == len(ids)


def test_data_splits_share_no_topic_and_cover_every_kind(splits):
    read = {name: [TASK.parse(row["prompt"]) for row in rows] for name, rows in splits.items()}
    topics = {name: {stem for r in rows for stem in stems(r)} for name, rows in read.items()}
    assert not topics["train"] & topics["test"]
    for rows in read.values():
        assert {request.kind.name for request in rows} == set(KINDS)


def stems(request) -> set[str]:
    return {TASK.stem(word) for word in request.topic}


def test_data_scores_are_the_rewards_and_chosen_wins(splits):
    for row in splits["train"] + splits["test"]:
        answers = [row[side][-1]["content"] for side in ("chosen", "rejected")]
        assert score(row["prompt"], *answers) == [row["score_chosen"], row["score_rejected"]]
        assert row["score_chosen"] > row["score_rejected"]


def test_data_maker_writes_the_same_prompts_again(splits):
    maker = load("make_data")
    for name, offset in (("train", 0), ("test", 1)):
        prompts = maker.build_prompts(TASK, maker.TOPICS[name], len(splits[name]), 42 + offset)
        assert prompts == [row["prompt"] for row in splits[name]]
