"""vLLM on a GPU answers as transformers does, in this process and in Ray actors, and lets go."""

import importlib.util
import shutil
from pathlib import Path

import pytest
import torch
from end_to_end.conftest import Project
from on_device import behind_the_best, by_an_actor, greedy, in_own_process
from transformers import AutoModelForCausalLM

from selm.data.parquet import read_rows
from selm.run import artifacts

needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM")

# The tiny model takes a megabyte; vLLM would take 0.9 of the GPU beside what tests hold of it.
VLLM = ("generation.engine=vllm", "generation.vllm.gpu_memory_utilization=0.3")

# Logits are of size 10. Kernels that round to TF32 are off by 0.1 % of that, so a token that is
# greedy for one engine can miss the other's largest logit by twice as much.
TIE = 0.02
# Answers of eight tokens of which one is such a tie: seldom, and so are other answers.
SAME = 0.9


def answers(project: Project) -> list[str]:
    """Generates iteration 1; its answers."""
    done = project.stage("generate", 1)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = read_rows(artifacts.folder(project.recipe, "responses", 1) / "train.parquet")
    shutil.rmtree(artifacts.folder(project.recipe, "responses", 1))
    return [row["responses"][0] for row in rows]


def same(some: list[str], others: list[str]) -> float:
    """The share of answers that are the same."""
    return sum(map(str.__eq__, some, others)) / max(len(some), len(others))


@needs_vllm
def test_greedy_tokens_are_those_of_transformers(project: Project, tiny_model: str) -> None:
    """In fp32: every token of vLLM is the best one, or ties with it."""
    vllm = project.with_overrides(*VLLM)
    prompts, ids, texts = in_own_process(greedy, vllm.words)
    policy = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).cuda()
    assert max(behind_the_best(policy, prompts, ids)) < TIE
    assert same(texts, answers(project)) >= SAME


@needs_vllm
def test_vllm_in_a_ray_actor(project: Project, tmp_path: Path) -> None:
    vllm = project.with_overrides(*VLLM)
    _, _, texts = in_own_process(greedy, vllm.words)
    assert same(in_own_process(by_an_actor, vllm.words, tmp_path), texts) >= SAME


@needs_vllm
@pytest.mark.gpus(2)
def test_two_actors_with_a_gpu_each(project: Project) -> None:
    one = project.with_overrides(*VLLM, "generation.workers=1")
    two = project.with_overrides(*VLLM, "generation.workers=auto")
    assert same(answers(two), answers(one)) >= SAME


@needs_vllm
@pytest.mark.gpus(2)
def test_one_engine_on_two_gpus(project: Project) -> None:
    """The tiny model has one key head, which both have; its two query heads are split."""
    one = project.with_overrides(*VLLM, "generation.workers=1")
    both = one.with_overrides("generation.tensor_parallel_size=2")
    assert same(answers(both), answers(one)) >= SAME


ENGINES = [
    pytest.param((), id="transformers"),
    pytest.param(VLLM, id="vllm", marks=needs_vllm),
]


@pytest.mark.parametrize("overrides", ENGINES)
def test_a_stage_gives_its_memory_back(project: Project, overrides: tuple[str, ...]) -> None:
    """To the next one: 256 MB may come and go with other processes, an engine takes more."""
    torch.cuda.synchronize()  # this process has its context before the first look
    before, _ = torch.cuda.mem_get_info()
    engine = project.with_overrides(*overrides)
    done = [engine.stage("generate", 1), engine.stage("rank", 1), engine.stage("train", 1)]
    assert [stage.returncode for stage in done] == [0, 0, 0], done[-1].stderr[-3000:]
    after, _ = torch.cuda.mem_get_info()
    assert before - after < 256 * 2**20
