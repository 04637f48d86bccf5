"""The generate stage with the real vLLM engine, on a CPU after `make setup VLLM=1`."""

import importlib.util
import shutil

import pytest

from selm.data.parquet import read_rows
from selm.run import artifacts

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None, reason="needs vLLM: make setup VLLM=1"
    ),
]


def responses(project) -> list:
    return read_rows(artifacts.folder(project.recipe, "responses", 1) / "train.parquet")


def test_greedy_answers_are_those_of_transformers(project, finished) -> None:
    """The same token ids go in, so in fp32 the same answers come out, ended for the same reason."""
    vllm = project.with_overrides("generation.engine=vllm")
    done = vllm.stage("generate", 1)
    assert done.returncode == 0, done.stderr
    assert responses(vllm) == responses(finished)


def test_samples_are_seeded_by_prompt_and_index(project) -> None:
    sampling = project.with_overrides(
        "generation.engine=vllm",
        "generation.num_samples=2",
        "generation.temperature=1.0",
        "data.limit=8",
    )
    assert sampling.stage("generate", 1).returncode == 0
    first = responses(sampling)
    assert any(row["responses"][0] != row["responses"][1] for row in first)
    shutil.rmtree(artifacts.folder(sampling.recipe, "responses", 1))
    again = sampling.with_overrides("generation.shard_size=1")
    assert again.stage("generate", 1).returncode == 0
    assert responses(again) == first


def test_an_option_that_vllm_refuses_is_one_line(project) -> None:
    """Longer than the model's context, which only vLLM finds out."""
    failed = project.with_overrides("generation.engine=vllm", "generation.vllm.max_model_len=99999")
    done = failed.stage("generate", 1)
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: generation.vllm: "), last
    assert "max_model_len" in last
    assert "Traceback" not in done.stderr
