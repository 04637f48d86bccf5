"""The bodies of tests/gpu on the CPU, where no GPU is needed to see that they work."""

from pathlib import Path

import pytest
import torch
from on_device import (
    assert_close,
    attention_errors,
    behind_the_best,
    by_an_actor,
    greedy,
    in_own_process,
    model_errors,
    off,
)
from transformers import AutoModelForCausalLM

from selm.data.portions import training_portion
from selm.generation.kinds import load_engine
from selm.recipe.loading import load_recipe

DTYPES = (torch.bfloat16, torch.float16)


def test_no_gpu_is_visible() -> None:
    """Whatever this machine has; stages inherit it."""
    assert torch.cuda.device_count() == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_on_a_cpu(dtype: torch.dtype) -> None:
    errors = attention_errors("cpu", dtype, 64)
    assert_close(errors, dtype)
    assert all(ours > 0 for ours, _ in errors.values()), "fp32 was measured against itself"


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_on_a_cpu(dtype: torch.dtype) -> None:
    errors = model_errors("cpu", dtype, 64)
    assert_close(errors, dtype)
    assert all(ours > 0 for ours, _ in errors.values()), "fp32 was measured against itself"


def test_an_error_beyond_the_padded_paths_is_seen() -> None:
    assert off(torch.ones(4), 2 * torch.ones(4)) == 0.5
    assert_close({"same": (0.01, 0.01)}, torch.bfloat16)
    for errors in ((0.03, 0.01), (0.2, 0.2)):
        with pytest.raises(AssertionError, match="worse"):
            assert_close({"worse": errors}, torch.bfloat16)


def test_a_token_that_is_not_the_best_is_seen(tiny_model: str) -> None:
    policy = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    prompt = [5, 6, 7]
    best = int(policy(torch.tensor([prompt])).logits[0, -1].argmax())
    assert behind_the_best(policy, [prompt, prompt], [[best], [best + 1]])[0] == 0.0
    assert behind_the_best(policy, [prompt], [[best + 1]])[0] > 0.1


@pytest.mark.slow
@pytest.mark.vllm
def test_tokens_of_vllm_on_a_cpu(tiny_recipe: str, tiny_model: str) -> None:
    words = [tiny_recipe, "generation.engine=vllm", "data.limit=8"]
    prompts, ids, texts = in_own_process(greedy, words)
    policy = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    assert max(behind_the_best(policy, prompts, ids)) < 1e-3
    assert len(set(texts)) > 1


@pytest.mark.slow
def test_an_actor_on_a_cpu(tiny_recipe: str, tmp_path: Path) -> None:
    words = [tiny_recipe, "data.limit=8"]
    recipe = load_recipe(words[0], words[1:])
    engine = load_engine(recipe.model.name_or_path, recipe.model, recipe.generation)
    rows, _ = training_portion(recipe, 1)
    prompts = [engine.chat.prompt_ids(row["prompt"]) for row in rows]
    texts = [response.text for response in engine.generate(prompts, [0] * len(prompts))]
    assert in_own_process(by_an_actor, words, tmp_path) == texts
