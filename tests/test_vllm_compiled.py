"""What vLLM compiles is shared by the policies of a run; asked of vLLM's own configuration."""

import pickle
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def policies(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The checkpoints of two iterations: one shape, other weights."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("policies")
    for name in ("one", "two"):
        shutil.copytree(tiny_model, folder / name)
    model = AutoModelForCausalLM.from_pretrained(folder / "two")
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    model.save_pretrained(folder / "two")
    return [str(folder / name) for name in ("one", "two")]


def configuration(policy: str, **arguments):
    from selm.generation.vllm_engine import EngineArgs

    arguments = {"max_model_len": 256, "skip_tokenizer_init": True, "dtype": "float32"} | arguments
    return EngineArgs(model=policy, **arguments).create_engine_config()


def test_policies_of_one_shape_share_a_compilation(policies: list[str]) -> None:
    """Also in vLLM's own processes, which get the configuration as bytes."""
    one, two = map(configuration, policies)
    assert two.model_config.model == policies[1], "the weights are still read from there"
    assert one.compute_hash() == two.compute_hash()
    assert pickle.loads(pickle.dumps(two)).compute_hash() == one.compute_hash()
    base = configuration(policies[0], revision="main")
    assert base.compute_hash() == one.compute_hash()


def test_what_the_graph_depends_on_is_still_told_apart(policies: list[str]) -> None:
    import json

    one, two = policies
    known = configuration(one).compute_hash()
    assert configuration(one, max_model_len=128).compute_hash() != known
    assert configuration(one, dtype="bfloat16").compute_hash() != known
    path = Path(two) / "config.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(json.dumps(json.loads(text) | {"rms_norm_eps": 1e-3}), encoding="utf-8")
    assert configuration(two).compute_hash() != known
    path.write_text(text, encoding="utf-8")


def test_an_engine_has_room_for_every_sequence_and_few_lengths() -> None:
    from selm.generation.vllm_compiled import room

    for context in (512, 1000, 4096, 131_072):
        lengths = {tokens: room(tokens, context) for tokens in range(1, context + 1)}
        assert all(tokens <= length <= context for tokens, length in lengths.items())
        powers = {512 * 2**n for n in range(9)}
        assert set(lengths.values()) <= powers | {context}


def test_engines_of_two_iterations_have_the_same_configuration(
    policies: list[str], tiny_recipe: Path
) -> None:
    """As the stages make them: longest prompts that differ, and other paths."""
    from selm.generation.kinds import load_engine
    from selm.recipe.loading import load_recipe

    recipe = load_recipe(tiny_recipe, ["generation.engine=vllm"])
    hashes = set()
    for policy, longest in zip(policies, (20, 33), strict=True):
        engine = load_engine(policy, recipe.model, recipe.generation, longest)
        assert engine.max_prompt_tokens == longest
        hashes.add(engine.llm.llm_engine.vllm_config.compute_hash())
        assert engine.generate([[5, 6, 7]], [0])[0].num_tokens >= 1
        del engine
    assert len(hashes) == 1
