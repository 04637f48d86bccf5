"""Out of memory is one line that names what to lower; everything else keeps its traceback."""

import sys
from typing import Any

import pytest
import torch

from selm import cli, memory

OURS = {"train", "generate", "rank", "answer", "evaluate"}


def allocate_on_a_cpu() -> None:
    torch.empty(2**60)


def allocate_in_python() -> None:
    bytearray(2**62)


def allocate_on_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")


def start_vllm() -> None:
    raise ValueError(
        "Free memory on device cuda:0 (3.1/79.2 GiB) on startup is less than desired GPU memory "
        "utilization (0.9, 71.3 GiB)."
    )


@pytest.mark.parametrize("script", sorted(OURS))
@pytest.mark.parametrize(
    "fail", [allocate_on_a_cpu, allocate_in_python, allocate_on_a_gpu, start_vllm]
)
def test_one_line_says_what_to_lower(fail: Any, script: str, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", [f"scripts/{script}.py", "recipe.yaml"])
    with pytest.raises(SystemExit) as ended:
        cli.run_main(fail)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: out of memory: lower") and said.count("\n") == 1
    assert memory.LOWER[script] in said


def test_other_errors_are_no_lack_of_memory() -> None:
    for error in (RuntimeError("shapes differ"), ValueError("no such key"), KeyError("memory")):
        assert memory.said(error, "train") is None

    def main() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        cli.run_main(main)


def test_the_keys_to_lower_are_keys_of_a_recipe(tiny_recipe: str) -> None:
    from selm.recipe.loading import load_recipe

    said = " ".join(memory.LOWER.values())
    lowered = (
        *("training.per_device_train_batch_size=1", "training.gradient_checkpointing=true"),
        *("training.max_length=8", "training.lora={}", "generation.batch_size=1"),
        *("generation.tensor_parallel_size=2", "ranking.tokens_per_batch=1", "ranking.workers=1"),
        *("generation.vllm.gpu_memory_utilization=0.5", "generation.vllm.max_model_len=9"),
    )
    for words in (lowered, ["training.tokens_per_micro_batch=1"]):
        load_recipe(tiny_recipe, list(words))
        assert all(word.split("=")[0] in said for word in words)
