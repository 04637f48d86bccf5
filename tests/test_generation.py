"""The transformers engine with the tiny model: what a prompt is answered depends on it alone."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

from selm.data.drops import in_words
from selm.data.portions import training_portion
from selm.data.prompts import as_text
from selm.errors import UserError
from selm.generation import transformers_engine
from selm.generation.base import Engine, Response, sample_seed
from selm.generation.kinds import load_engine
from selm.generation.respond import respond
from selm.generation.transformers_engine import GumbelNoise, TransformersEngine
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Recipe

TEXTS = ("Hi", "Name three points about the sea.", "Is it true?", "None", "a " * 40, "Hi")


def engine_of(recipe: Recipe) -> TransformersEngine:
    made = load_engine(recipe.model.name_or_path, recipe.model, recipe.generation)
    assert isinstance(made, TransformersEngine)
    return made


def prompts_of(engine: Engine) -> list[list[int]]:
    return [engine.chat.prompt_ids([{"role": "user", "content": text}]) for text in TEXTS]


def one_by_one(engine: Engine, seeds: Sequence[int]) -> list[Response]:
    pairs = zip(prompts_of(engine), seeds, strict=True)
    return [engine.generate([ids], [seed])[0] for ids, seed in pairs]


def test_greedy_answers_do_not_depend_on_the_batch(tiny_recipe: str) -> None:
    engine = engine_of(load_recipe(tiny_recipe))
    together = engine.generate(prompts_of(engine), [0] * len(TEXTS))
    assert together == one_by_one(engine, range(len(TEXTS)))  # nor on the seed
    assert together[0] == together[-1]
    assert len({response.text for response in together}) == len(set(TEXTS))


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_samples_depend_on_prompt_and_seed_alone(tiny_recipe: str, top_p: float) -> None:
    sampling = ["generation.temperature=1.5", f"generation.top_p={top_p}"]
    engine = engine_of(load_recipe(tiny_recipe, [*sampling, "generation.batch_size=4"]))
    seeds = [3, 1, 4, 1, 5, 9]
    together = engine.generate(prompts_of(engine), seeds)
    assert together == one_by_one(engine, seeds)
    backwards = engine.generate(prompts_of(engine)[::-1], seeds[::-1])
    assert together == backwards[::-1]
    assert together[0] != together[-1]  # the same prompt, another seed


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_that_have_ended_leave_the_batch(
    tiny_recipe: str, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And those that stay are answered as if nobody had left."""
    overrides = [f"generation.temperature={temperature}", "generation.max_tokens=24"]
    engine = engine_of(load_recipe(tiny_recipe, overrides))
    prompts = [ids for ids in prompts_of(engine) for _ in range(5)]
    seeds = range(len(prompts))
    monkeypatch.setattr(transformers_engine, "TOKENS_AT_A_TIME", 24)
    to_the_end = engine.generate(prompts, seeds)
    ended_early = [response.num_tokens <= 16 for response in to_the_end]
    assert any(ended_early) and not all(ended_early)

    rows: list[int] = []
    count = lambda module, args, kwargs: rows.append(len(kwargs["input_ids"]))  # noqa: E731
    engine.policy.register_forward_pre_hook(count, with_kwargs=True)
    monkeypatch.setattr(transformers_engine, "TOKENS_AT_A_TIME", 8)
    assert engine.generate(prompts, seeds) == to_the_end
    assert rows[0] == len(prompts) and rows == sorted(rows, reverse=True)
    assert rows[-1] == ended_early.count(False)


@pytest.mark.parametrize("setting", [{"use_cache": False}, {"cache_implementation": "static"}])
def test_a_checkpoint_may_ask_for_another_cache(
    setting: dict[str, Any], tiny_recipe: str, tmp_path: Path
) -> None:
    recipe = load_recipe(tiny_recipe, ["generation.max_tokens=24"])
    shutil.copytree(recipe.model.name_or_path, tmp_path / "model")
    path = tmp_path / "model" / "generation_config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | setting), encoding="utf-8"
    )
    other = load_recipe(
        tiny_recipe, ["generation.max_tokens=24", f"model.name_or_path={tmp_path / 'model'}"]
    )
    engines = [engine_of(recipe), engine_of(other)]
    answers = [engine.generate(prompts_of(engine), [0] * len(TEXTS)) for engine in engines]
    assert answers[0] == answers[1]


def test_a_model_with_a_state_in_place_of_a_cache_answers_in_one_go(tiny_recipe: str) -> None:
    engine = engine_of(load_recipe(tiny_recipe, ["generation.max_tokens=24"]))
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "state_size": 4}
    vocabulary = engine.policy.config.vocab_size
    engine.policy = MambaForCausalLM(MambaConfig(vocab_size=vocabulary, **shape)).eval()
    lengths = [response.num_tokens for response in engine.generate(prompts_of(engine), [0] * 6)]
    assert max(lengths) == 24


def test_an_answer_stops_at_a_stop_token_or_at_the_limit(tiny_recipe: str) -> None:
    engine = engine_of(load_recipe(tiny_recipe, ["generation.temperature=1.0"]))
    tokenizer = engine.chat.tokenizer
    end, a, b = engine.chat.end_of_turn, *tokenizer.convert_tokens_to_ids(["a", "b"])
    assert engine._response([a, b, end, end]) == Response("ab", "stop", 3)
    assert engine._response([a, b]) == Response("ab", "length", 2)
    assert engine._response([end, end]) == Response("", "stop", 1)
    assert engine._response([a, end, b]) == Response("a", "stop", 2)

    seeds = range(200)
    responses = engine.generate([prompts_of(engine)[0]] * len(seeds), seeds)
    assert {response.finish_reason for response in responses} == {"stop", "length"}
    for response in responses:
        assert 1 <= response.num_tokens <= 8
        assert response.num_tokens == 8 or response.finish_reason == "stop"
        assert "<|im_end|>" not in response.text


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def test_gumbel_noise_samples_the_softmax_distribution() -> None:
    """20,000 draws over five tokens. The chi-square statistic with four degrees of freedom is
    above 18.5 once in a thousand seeds; the seeds are fixed."""
    num_draws = 20_000
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5])
    noise = GumbelNoise(generators(num_draws))
    scores = noise(torch.empty(num_draws, 0), logits.expand(num_draws, -1))
    counts = torch.bincount(scores.argmax(dim=-1), minlength=5).double()
    expected = logits.double().softmax(dim=-1) * num_draws
    assert ((counts - expected) ** 2 / expected).sum() < 18.5


def test_gumbel_noise_never_draws_what_top_p_excluded() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 0.0]]).expand(500, -1)
    drawn = GumbelNoise(generators(500))(torch.empty(500, 0), logits).argmax(dim=-1)
    assert set(drawn.tolist()) == {0, 2}


def test_each_sample_has_its_own_seed() -> None:
    seeds = {
        sample_seed(seed, iteration, prompt_id, sample)
        for seed in (1, 2)
        for iteration in (0, 1, 11)
        for prompt_id in ("a", "b", "1")
        for sample in (0, 1)
    }
    assert len(seeds) == 36
    assert sample_seed(1, 2, "a", 0) == sample_seed(1, 2, "a", 0) < 2**48


def test_responses_stay_with_their_prompts(tiny_recipe: str, tmp_path: Path) -> None:
    recipe = load_recipe(tiny_recipe, ["generation.shard_size=5"])
    rows, _ = training_portion(recipe, 1)
    answered = respond(rows, recipe.model.name_or_path, recipe, 1, tmp_path, "test")
    engine = engine_of(recipe)
    for row, result in zip(rows, answered.rows, strict=True):
        alone = engine.generate([engine.chat.prompt_ids(row["prompt"])], [0])[0]
        assert (result["prompt_id"], result["prompt"]) == (row["prompt_id"], row["prompt"])
        assert as_text(result["chosen"]) == row["chosen"]
        assert as_text(result["rejected"]) == row["rejected"]
        assert result["responses"] == [alone.text]
        assert result["finish_reasons"] == [alone.finish_reason]
        assert result["num_tokens"] == [alone.num_tokens]
    assert answered.tokens == sum(sum(row["num_tokens"]) for row in answered.rows)
    again = respond(rows, "no model is loaded for this", recipe, 1, tmp_path, "test")
    assert again == answered


def test_several_samples_of_a_prompt_differ(tiny_recipe: str, tmp_path: Path) -> None:
    recipe = load_recipe(tiny_recipe, ["generation.temperature=1.0", "generation.num_samples=3"])
    rows, _ = training_portion(recipe, 2)
    answered = respond(rows, recipe.model.name_or_path, recipe, 2, tmp_path, "test")
    assert all(len(set(row["responses"])) == 3 for row in answered.rows)


def test_prompts_longer_than_the_context_are_dropped_and_counted(
    tiny_recipe: str, tmp_path: Path
) -> None:
    recipe = load_recipe(tiny_recipe)
    rows, _ = training_portion(recipe, 1)
    for i in (0, 5):
        rows[i] = rows[i] | {"prompt": [{"role": "user", "content": "sea " * 600}]}
    answered = respond(rows, recipe.model.name_or_path, recipe, 1, tmp_path, "test")
    kept = [row["prompt_id"] for i, row in enumerate(rows) if i not in (0, 5)]
    assert [row["prompt_id"] for row in answered.rows] == kept
    assert answered.dropped == {"prompt_longer_than_context": 2}


def test_no_room_for_any_prompt_is_the_users_mistake(tiny_recipe: str, tmp_path: Path) -> None:
    recipe = load_recipe(tiny_recipe, ["generation.max_tokens=500"])
    rows, _ = training_portion(recipe, 1)
    with pytest.raises(UserError, match=r"generation\.max_tokens: 500 leaves no room"):
        respond(rows, recipe.model.name_or_path, recipe, 1, tmp_path, "test")


STRICT = (
    "{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_row_that_the_template_refuses_is_dropped_and_named(
    tiny_recipe: str, tmp_path: Path
) -> None:
    template = tmp_path / "strict.jinja"
    template.write_text(STRICT, encoding="utf-8")
    recipe = load_recipe(tiny_recipe, [f"model.chat_template={template}"])
    rows, _ = training_portion(recipe, 1)
    twice = [{"role": "user", "content": "One?"}, {"role": "user", "content": "Two?"}]
    rows[3] = rows[3] | {"prompt": twice}
    answered = respond(rows, recipe.model.name_or_path, recipe, 1, tmp_path, "test")
    assert answered.dropped == {"refused_by_template": 1}
    assert f"prompt {rows[3]['prompt_id']}, 'Two?'" in in_words(answered.dropped)
    assert [row["prompt_id"] for row in answered.rows] == [
        row["prompt_id"] for i, row in enumerate(rows) if i != 3
    ]
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="takes no prompt"):
        respond([rows[3]], recipe.model.name_or_path, recipe, 1, tmp_path / "x", "test")


def test_tools_reach_the_template_or_cost_the_row(tiny_recipe: str, tmp_path: Path) -> None:
    """SmolLM2's template writes no tools: the policy would answer what it was not asked."""
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    writes = "{% for t in tools or [] %}[{{ t.function.name }}]{% endfor %}" + STRICT
    template = tmp_path / "tools.jinja"
    template.write_text(writes, encoding="utf-8")
    for overrides, dropped in (
        ([], {"tools_not_in_template": 1}),
        ([f"model.chat_template={template}"], {}),
    ):
        recipe = load_recipe(tiny_recipe, overrides)
        rows, _ = training_portion(recipe, 1)
        rows[0] = rows[0] | {"tools": [tool]}
        folder = tmp_path / str(len(dropped))
        folder.mkdir()
        answered = respond(rows[:2], recipe.model.name_or_path, recipe, 1, folder, "test")
        assert answered.dropped == dropped
        assert [row["tools"] for row in answered.rows if row.get("tools")] == (
            [] if dropped else [[tool]]
        )
