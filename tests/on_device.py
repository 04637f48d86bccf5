"""What the tests of tests/gpu do, for any device: test_on_device.py does it on the CPU.

Errors of arithmetic in 16 bits are measured against fp32 on the CPU, and judged by those that the
padded path makes on the same device: so no tolerance belongs to one kind of GPU.
"""

import copy
import json
import multiprocessing
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from end_to_end.conftest import Project
from test_forward import CONFIGS, examples, log_probs, padded_and_shared
from transformers import AutoModelForCausalLM, LlamaConfig

from selm.data.portions import training_portion
from selm.generation import respond
from selm.generation.answered import longest_prompt
from selm.generation.kinds import load_engine
from selm.recipe.loading import load_recipe
from selm.run import artifacts
from selm.run.workers import Workers, spread
from selm.training.flex import flex
from selm.training.layout import lay_out
from selm.training.shared_prefix import by_blocks

Errors = dict[str, tuple[float, float]]  # what: the error of ours, and of the padded path

HEADS, KV_HEADS = 8, 2  # grouped queries
# (prompt, responses): blocks of FlexAttention have 128 positions, and no length is a multiple.
LENGTHS = ((150, (200, 31, 140)), (37, (1, 90)), (1, (129, 260, 5)))


def assert_close(errors: Errors, dtype: torch.dtype) -> None:
    """Twice the padded path's error, and half a rounding for where that has none by chance."""
    for what, (ours, padded) in errors.items():
        assert ours <= 2 * padded + torch.finfo(dtype).eps / 2, (what, ours, padded)
        assert ours < 0.1, (what, ours)


def off(found: torch.Tensor, truth: torch.Tensor) -> float:
    """Relative, of the whole tensor.

    >>> off(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 4.0]))
    0.75
    """
    return float((found.cpu().float() - truth).norm() / truth.norm())


def attention_errors(device: str, dtype: torch.dtype, head_dim: int) -> Errors:
    """Of the shared path's attention on a device, and of torch's own on one block after another."""
    prompts = [[1] * prompt for prompt, _ in LENGTHS]
    ids, _, layout = lay_out(prompts, [[[1] * n for n in lengths] for _, lengths in LENGTHS])
    generator = torch.Generator().manual_seed(head_dim)
    shapes = [(1, n, len(ids), head_dim) for n in (HEADS, KV_HEADS, KV_HEADS, HEADS)]
    drawn = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]

    def computed(compute: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> list[Any]:
        """The result, and the gradients of query, key and value."""
        inputs = [tensor.clone().requires_grad_() for tensor in tensors[:3]]
        done = compute(*inputs, layout, head_dim**-0.5, 0.0)
        done.backward(tensors[3])
        return [done.detach(), *(tensor.grad for tensor in inputs)]

    truth = computed(by_blocks, *(tensor.float() for tensor in drawn))
    there = [tensor.to(device) for tensor in drawn]
    ours = computed(flex if device == "cuda" else by_blocks, *there)
    padded = computed(by_blocks, *there)
    return {
        what: (off(ours[i], truth[i]), off(padded[i], truth[i]))
        for i, what in enumerate(("result", "query", "key", "value"))
    }


def model_errors(device: str, dtype: torch.dtype, head_dim: int) -> Errors:
    """Of log-probs and of the gradient of a model with heads of this size, shared and padded."""
    torch.manual_seed(head_dim)
    given = CONFIGS["llama"].to_dict() | {"hidden_size": 4 * head_dim, "head_dim": head_dim}
    config = LlamaConfig(**given | {"initializer_range": 0.05})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").to(dtype)

    def computed(of: Any, shared: bool) -> list[torch.Tensor]:
        sums = log_probs(of, shared, examples())
        (sums * torch.linspace(-1, 1, len(sums), device=sums.device)).sum().backward()
        gradients = [p.grad.flatten().cpu().float() for p in of.parameters()]
        return [sums.detach(), torch.cat(gradients)]

    exact, _ = padded_and_shared(copy.deepcopy(model).float())
    truth = computed(exact, False)
    padded, shared = (each.to(device) for each in padded_and_shared(model))
    found = computed(shared, True), computed(padded, False)
    return {
        what: (off(found[0][i], truth[i]), off(found[1][i], truth[i]))
        for i, what in enumerate(("log-probs", "gradient"))
    }


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of a module returns in a process of its own, with which its memory goes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def greedy(words: Sequence[str]) -> tuple[list[list[int]], list[list[int]], list[str]]:
    """The prompts of iteration 1, the token ids that vLLM answers, and the engine's texts.

    Call it in a process of its own: vLLM keeps its memory until the process ends.
    """
    recipe = load_recipe(words[0], words[1:])
    rows, _ = training_portion(recipe, 1)
    policy = recipe.model.name_or_path
    longest = longest_prompt(rows, policy, recipe)
    engine: Any = load_engine(policy, recipe.model, recipe.generation, longest)
    prompts = [engine.chat.prompt_ids(row["prompt"]) for row in rows]
    texts = [response.text for response in engine.generate(prompts, [0] * len(prompts))]
    asked = [{"prompt_token_ids": ids} for ids in prompts]
    outputs = engine.llm.generate(asked, [engine._sampling(0, 0.0)] * len(prompts))
    return prompts, [list(output.outputs[0].token_ids) for output in outputs], texts


def behind_the_best(
    policy: Any, prompts: Sequence[list[int]], answers: Sequence[list[int]]
) -> list[float]:
    """For each answer: by how much its worst token misses the largest logit in fp32; 0: greedy."""
    found = []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt + answer], device=policy.device)
        with torch.no_grad():
            logits = policy(ids).logits[0, len(prompt) - 1 : -1].float()
        chosen = logits.gather(1, ids[0, len(prompt) :, None])[:, 0]
        found.append(float((logits.amax(dim=1) - chosen).max()))
    return found


def by_an_actor(words: Sequence[str], folder: Path) -> list[str]:
    """The answers to iteration 1 by one Ray actor, with one GPU if there are any."""
    recipe = load_recipe(words[0], words[1:])
    rows, _ = training_portion(recipe, 1)
    policy = recipe.model.name_or_path
    load = partial(respond._load, policy, recipe, 1, longest_prompt(rows, policy, recipe))
    shards = {range(len(rows)): list(rows)}
    ((_, found),) = spread(shards, load, Workers(1), 1, folder)
    return [row["responses"][0] for row in found]


def trained(ranked: Project, folder: Path, config: str, *overrides: str) -> list[float]:
    """The losses of iteration 1 by the real script, in a copy; its checkpoint is looked at.

    Args:
        config: of accelerate, by its name; `training.num_processes` is 1 unless it is overridden.
    """
    shutil.copytree(ranked.output_dir, folder)
    path = Path(__file__).parents[1] / "accelerate_configs" / f"{config}.yaml"
    project = Project(ranked.recipe_path, folder, ranked.overrides).with_overrides(
        f"training.accelerate_config={path}", "training.num_processes=1", *overrides
    )
    done = project.stage("train", 1)
    assert done.returncode == 0, done.stderr[-3000:]
    checkpoint = artifacts.folder(project.recipe, "checkpoint", 1)
    policy, loading = AutoModelForCausalLM.from_pretrained(checkpoint, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    base = AutoModelForCausalLM.from_pretrained(project.recipe.model.name_or_path)
    moved = [
        float((one.float() - other.float()).detach().abs().max())
        for one, other in zip(policy.parameters(), base.parameters(), strict=True)
    ]
    assert all(torch.isfinite(torch.tensor(moved))) and max(moved) > 1e-5, "nothing was learned"
    return losses(checkpoint)


def losses(checkpoint: Path) -> list[float]:
    log = json.loads((checkpoint / "training_log.json").read_text(encoding="utf-8"))
    return [entry["loss"] for entry in log if "loss" in entry]
