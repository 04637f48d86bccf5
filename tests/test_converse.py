"""Conversations with the tiny model: every turn is asked with the answers before it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE

from selm.data.drops import in_words
from selm.data.schemas import DatasetRow
from selm.errors import UserError
from selm.generation.answered import Answered
from selm.generation.converse import asked, converse
from selm.generation.kinds import load_engine
from selm.generation.transformers_engine import TransformersEngine
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Recipe

TOPICS = ("the sea", "a red fox", "old maps", "Paris", "rain", "bread", "tall trees", "the moon")
HOT, COLD = 1.2, 0.0
SHARDS_OF_TWO = "generation.shard_size=2"
REPOSITORY = Path(__file__).parents[1]


def row_of(prompt_id: str, *turns: str, **message: Any) -> DatasetRow:
    prompt = [{"role": "user", "content": turn} for turn in turns]
    nothing: dict[str, Any] = {"chosen": None, "rejected": None, "columns": {"category": "x"}}
    return {"prompt_id": prompt_id, "prompt": prompt, **nothing, **message}


ROWS = [row_of(topic, f"Write about {topic}.", "Say it again.") for topic in TOPICS]
TEMPERATURES = {topic: HOT if i % 2 else COLD for i, topic in enumerate(TOPICS)}


def conversed(
    rows: Sequence[DatasetRow],
    recipe: Recipe,
    folder: Path,
    temperatures: dict[str, float] = TEMPERATURES,
) -> Answered:
    policy = recipe.model.name_or_path
    return converse(rows, policy, recipe, 1, folder, "test", temperatures)


def engine_of(recipe: Recipe) -> TransformersEngine:
    made = load_engine(recipe.model.name_or_path, recipe.model, recipe.generation)
    assert isinstance(made, TransformersEngine)
    return made


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The prompts that engines get, in the order in which they get them."""
    got: list[list[int]] = []
    real = TransformersEngine.generate

    def noted(self: Any, prompts: Any, *arguments: Any) -> Any:
        got.extend(prompts)
        return real(self, prompts, *arguments)

    monkeypatch.setattr(TransformersEngine, "generate", noted)
    return got


def test_the_second_turn_is_asked_after_the_first_answer(
    tiny_recipe: str, tmp_path: Path, prompts: list[list[int]]
) -> None:
    recipe = load_recipe(tiny_recipe, ["generation.shard_size=100"])
    answered = conversed(ROWS, recipe, tmp_path)
    assert [row["prompt_id"] for row in answered.rows] == list(TOPICS)
    assert answered.dropped == {}
    firsts, seconds = prompts[: len(ROWS)], prompts[len(ROWS) :]
    chat = engine_of(recipe).chat
    for given, row, first, second in zip(ROWS, answered.rows, firsts, seconds, strict=True):
        ask, again = given["prompt"]
        said = {"role": "assistant", "content": row["responses"][0]}
        assert row["prompt"] == given["prompt"]
        assert first == chat.prompt_ids([ask])
        assert second == chat.prompt_ids([ask, said, again])
        behind = chat.response_ids([ask], row["responses"][0])
        assert second[: len(first) + len(behind)] == [*first, *behind]
        assert len(row["responses"]) == len(row["finish_reasons"]) == len(row["num_tokens"]) == 2
    assert answered.tokens == sum(sum(row["num_tokens"]) for row in answered.rows)


def test_answers_at_temperature_0_are_greedy_whatever_the_recipe_says(
    tiny_recipe: str, tmp_path: Path
) -> None:
    answered = conversed(ROWS, load_recipe(tiny_recipe, ["generation.temperature=0.9"]), tmp_path)
    greedy = engine_of(load_recipe(tiny_recipe))
    same = []
    for row in answered.rows:
        ids = [greedy.chat.prompt_ids(asked(row, row["responses"][:turn])) for turn in (0, 1)]
        alone = [greedy.generate([prompt], [0])[0] for prompt in ids]
        assert row["prompt_id"] in TEMPERATURES
        same.append([response.text for response in alone] == row["responses"])
        if TEMPERATURES[row["prompt_id"]] == COLD:
            assert same[-1]
            assert [response.num_tokens for response in alone] == row["num_tokens"]
    assert same.count(False) >= 3  # nearly all of the four that were sampled


def test_samples_depend_on_their_question_and_turn_alone(tiny_recipe: str, tmp_path: Path) -> None:
    recipe = load_recipe(tiny_recipe, ["generation.batch_size=3"])
    together = conversed(ROWS, recipe, tmp_path / "together")
    for row, found in zip(ROWS[1:4], together.rows[1:4], strict=True):
        alone = conversed([row], recipe, tmp_path / row["prompt_id"])
        assert alone.rows == [found]
    twice = [row_of(name, "Write about rain.", "Write about rain.") for name in ("a", "b")]
    hot = conversed(twice, recipe, tmp_path / "twice", {"a": HOT, "b": HOT})
    assert hot.rows[0]["responses"] != hot.rows[1]["responses"]


def test_an_engine_mixes_temperatures_in_a_call(tiny_recipe: str) -> None:
    recipe = load_recipe(tiny_recipe, ["generation.temperature=0.3", "generation.batch_size=4"])
    engine = engine_of(recipe)
    ids = [engine.chat.prompt_ids(row["prompt"][:1]) for row in ROWS]
    seeds = list(range(len(ids)))
    mixed = engine.generate(ids, seeds, [HOT, COLD, 0.3, COLD, HOT, 0.3, HOT, COLD])
    for temperature in (HOT, COLD, 0.3):
        whole = engine.generate(ids, seeds, [temperature] * len(ids))
        places = [0, 4, 6] if temperature == HOT else [2, 5] if temperature else [1, 3, 7]
        assert [whole[i] for i in places] == [mixed[i] for i in places]
    assert engine.generate(ids, seeds) == engine.generate(ids, seeds, [0.3] * len(ids))
    assert engine.generate([], [], []) == []


def test_two_workers_say_what_one_says(tiny_recipe: str, tmp_path: Path) -> None:
    one = conversed(ROWS, load_recipe(tiny_recipe, [SHARDS_OF_TWO]), tmp_path / "one")
    overrides = [SHARDS_OF_TWO, "generation.workers=2"]
    (tmp_path / "two").mkdir()
    two = conversed(ROWS, load_recipe(tiny_recipe, overrides), tmp_path / "two")
    assert two == one
    logs = {path.name for path in (tmp_path / "two").glob("worker-*.log")}
    # On a busy machine one of them can have done all the work before the other has started.
    assert logs and logs <= {"worker-0.log", "worker-1.log"}


def test_after_a_kill_only_what_is_missing_is_answered(
    tiny_recipe: str, tmp_path: Path, prompts: list[list[int]]
) -> None:
    overrides = ["generation.shard_size=1", "generation.max_tokens=64"]
    recipe = load_recipe(tiny_recipe, overrides)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from test_converse import ROWS, conversed, load_recipe\n"
        "conversed(ROWS, load_recipe(sys.argv[2], sys.argv[4:]), Path(sys.argv[3]))\n"
    )
    folder = tmp_path / "killed"
    arguments = [str(REPOSITORY / "tests"), tiny_recipe, str(folder), *overrides]
    process = subprocess.Popen([sys.executable, "-c", script, *arguments])
    until = time.monotonic() + PATIENCE
    while not (kept := list(folder.glob("shard-*.parquet"))):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = list(folder.glob("shard-*.parquet"))
    assert 0 < len(kept) < len(ROWS)
    again = conversed(ROWS, recipe, folder)
    assert len(prompts) == 2 * (len(ROWS) - len(kept))
    assert again == conversed(ROWS, recipe, tmp_path / "whole")
    no_model = recipe.model.model_copy(update={"name_or_path": "no model is loaded for this"})
    prompts.clear()
    assert conversed(ROWS, recipe.model_copy(update={"model": no_model}), folder) == again
    assert prompts == []


def test_what_leaves_no_room_for_a_turn_is_dropped_and_counted(
    tiny_recipe: str, tmp_path: Path
) -> None:
    """The context has 512 tokens: an answer, a question of 400 and 100 more are too much."""
    recipe = load_recipe(tiny_recipe, ["generation.max_tokens=100"])
    chat = engine_of(recipe).chat
    long = "sea " * 330
    assert 395 < len(chat.prompt_ids([{"role": "user", "content": long}])) <= 412
    rows = [
        row_of("first", long * 2, "Why?"),
        row_of("second", "Why?", long),
        row_of("third", "Why?", "Why?", long),
        row_of("whole", "Why?", "Why?"),
    ]
    cold = dict.fromkeys(("first", "second", "third", "whole"), COLD)
    for _ in range(2):  # the second time from finished shards
        answered = conversed(rows, recipe, tmp_path, cold)
        assert [row["prompt_id"] for row in answered.rows] == ["whole"]
        assert answered.dropped == {
            "prompt_longer_than_context": 1,
            "no_room_for_turn_2": 1,
            "no_room_for_turn_3": 1,
        }
    assert "1 no_room_for_turn_2 (prompt second, " in in_words(answered.dropped)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"generation\.max_tokens: 100 leaves no room .*turn_2"):
        conversed(rows[1:2], recipe, tmp_path / "none", cold)


def test_a_conversation_that_the_template_refuses_is_dropped(
    tiny_recipe: str, tmp_path: Path
) -> None:
    """As a template that takes one question does."""
    template = tmp_path / "one.jinja"
    template.write_text(
        "{% if messages | length > 3 %}{{ raise_exception('one answer') }}{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        encoding="utf-8",
    )
    recipe = load_recipe(tiny_recipe, [f"model.chat_template={template}"])
    rows = [row_of("a", "One?", "Two?"), row_of("b", "One?", "Two?", "Three?"), row_of("c", "Hm?")]
    answered = conversed(rows, recipe, tmp_path / "shards", {"a": HOT, "b": HOT, "c": COLD})
    assert [len(row["responses"]) for row in answered.rows] == [2, 1]
    assert answered.dropped == {"refused_by_template": 1}
    assert "prompt b" in in_words(answered.dropped)
