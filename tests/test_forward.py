"""The shared path computes what the padded one does, in fp32, for every family it is offered to."""

import copy
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.attention.flex_attention as flex_attention
from patience import PATIENCE
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)
from trl.trainer.utils import add_fused_lm_head

from selm.errors import UserError
from selm.model.loading import check_attention
from selm.recipe.schema import Model
from selm.training import shared_prefix
from selm.training.choice import FAMILIES, choose
from selm.training.config import SELMConfig
from selm.training.examples import ROLES
from selm.training.flex import flex
from selm.training.forward import SELMCollator, forward, pair_part
from selm.training.layout import Example, lay_out
from selm.training.shared_prefix import by_blocks, prepare

VOCABULARY, WINDOW = 96, 64
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SHAPE),
    "mistral": MistralConfig(**SHAPE, sliding_window=WINDOW),
    "phi3": Phi3Config(**SHAPE, sliding_window=None, eos_token_id=1, bos_token_id=2),
    "qwen2": Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SHAPE, head_dim=16),
}


def examples() -> list[dict[str, Any]]:
    """All three roles; prompts and responses from one token to the window's length."""
    generator = torch.Generator().manual_seed(0)

    def ids(count: int) -> list[int]:
        return torch.randint(3, VOCABULARY, (count,), generator=generator).tolist()

    lengths = [(5, 3, 9, 4), (1, 1, 1, 1), (20, 44, 2, 17), (7, 1, 30, 0), (50, 14, 14, 0)]
    roles = ["neither", "neither", "neither", "chosen", "rejected"]
    return [
        {
            "prompt_ids": ids(prompt),
            "chosen_ids": ids(chosen),
            "rejected_ids": ids(rejected),
            "explored_ids": ids(explored) if role == "neither" else [],
            "explored_role": ROLES[role],
        }
        for (prompt, chosen, rejected, explored), role in zip(lengths, roles, strict=True)
    ]


def padded_and_shared(model: PreTrainedModel) -> tuple[PreTrainedModel, PreTrainedModel]:
    twin = copy.deepcopy(model)
    add_fused_lm_head(model)
    prepare(twin)
    return model, twin


def make(family: str) -> PreTrainedModel:
    torch.manual_seed(1)
    config = copy.deepcopy(CONFIGS[family])
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")


def log_probs(model: Any, shared: bool, rows: list[dict[str, Any]]) -> torch.Tensor:
    """(2B + E,), summed over each response."""
    batch = SELMCollator(0, shared=shared)(rows)
    on_device = {k: v.to(model.device) if k != "layout" else v for k, v in batch.items()}
    return forward(model, on_device).log_probs.sum(dim=1)


def assert_same(padded: Any, shared: Any) -> None:
    """Log-probs within 1e-4, the gradient of their sum with a cosine above 0.9999."""
    both = [log_probs(model, way, examples()) for model, way in ((padded, False), (shared, True))]
    torch.testing.assert_close(both[1], both[0], rtol=1e-4, atol=1e-5)
    weights = torch.linspace(-1, 1, len(both[0]), device=both[0].device)
    for sums in both:
        (sums * weights).sum().backward()
    named = [dict(model.named_parameters()) for model in (padded, shared)]
    for name, parameter in named[0].items():
        if parameter.requires_grad:
            one, other = parameter.grad.flatten(), named[1][name].grad.flatten()
            assert one.norm() > 0, name
            assert torch.cosine_similarity(one, other, dim=0) > 0.9999, name
            torch.testing.assert_close(other.norm(), one.norm(), rtol=1e-3, atol=1e-5)


def test_every_family_is_tested() -> None:
    assert set(CONFIGS) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_is_padded(family: str) -> None:
    assert_same(*padded_and_shared(make(family)))


@pytest.mark.parametrize("family", FAMILIES)
def test_with_gradient_checkpointing(family: str) -> None:
    padded, shared = padded_and_shared(make(family))
    shared.gradient_checkpointing_enable({"use_reentrant": False})
    assert_same(padded, shared.train())


@pytest.mark.parametrize("family", FAMILIES)
def test_with_lora(family: str) -> None:
    """As the trainer does it: the adapter goes around a prepared model."""
    settings = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", lora_alpha=8)
    wrapped = []
    for model in padded_and_shared(make(family)):
        torch.manual_seed(2)
        wrapped.append(get_peft_model(model, settings))
        for name, parameter in wrapped[-1].named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    assert_same(*wrapped)


SHARDED = ("llama", "qwen2")  # the second with tied embeddings


def parts() -> list[list[dict[str, Any]]]:
    """The rows of each of two processes."""
    return [examples()[:2], examples()[2:]]


@pytest.fixture(scope="module")
def by_two_processes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What sharded_gradients.py makes of each family, in one launch."""
    given = {
        family: {
            "config": CONFIGS[family],
            "weights": make(family).state_dict(),
            "batches": [SELMCollator(0, shared=True)(rows) for rows in parts()],
        }
        for family in SHARDED
    }
    folder = tmp_path_factory.mktemp("sharded")
    torch.save(given, folder / "input.pt")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    launcher += ["--log_dir", os.devnull]  # or a folder is left in /tmp
    script = Path(__file__).parent / "sharded_gradients.py"
    subprocess.run([*launcher, script, folder], check=True, timeout=PATIENCE)
    return torch.load(folder / "output.pt")


@pytest.mark.parametrize("family", SHARDED)
def test_with_every_weight_sharded_by_fsdp2(family: str, by_two_processes: dict[str, Any]) -> None:
    """Two processes with other rows each: their log-probs, and the mean of their gradients."""
    padded, _ = padded_and_shared(make(family))
    found = by_two_processes[family]
    for rows, sums in zip(parts(), found["sums"], strict=True):
        wanted = log_probs(padded, False, rows)
        torch.testing.assert_close(sums, wanted.detach(), rtol=1e-4, atol=1e-5)
        (wanted.mean() / len(parts())).backward()
    wanted_gradients = {name: parameter.grad for name, parameter in padded.named_parameters()}
    torch.testing.assert_close(found["gradients"], wanted_gradients, rtol=1e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("heads", [4, 2])
def test_flex_attention_is_attention_by_blocks(heads: int) -> None:
    """The mask alone, with more heads of queries than of keys or as many."""
    layout = SELMCollator(0, shared=True)(examples())["layout"]
    generator = torch.Generator().manual_seed(0)
    length = layout[-1].blocks[-1][1]
    inputs = [torch.randn(1, n, length, 8, generator=generator) for n in (4, heads, heads)]
    found = [compute(*inputs, layout, 0.3, 0.0) for compute in (flex, by_blocks)]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.fixture
def flex_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared path takes FlexAttention, as on a GPU, but without its kernel.

    Torch can compute its backward on a CPU, in which T x T scores exist; only a check refuses it.
    """
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *tensors: None)
    monkeypatch.setattr(shared_prefix, "by_blocks", flex)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_shared_is_padded_by_flex_attention(
    family: str, checkpointing: bool, flex_on_a_cpu: None
) -> None:
    padded, shared = padded_and_shared(make(family))
    if checkpointing:
        shared.gradient_checkpointing_enable({"use_reentrant": False})
    assert_same(padded, shared.train())


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_flex_attention_under_autocast_is_as_near_to_fp32_as_the_padded_path(
    dtype: torch.dtype, flex_on_a_cpu: None
) -> None:
    """There query and key arrive in fp32 and the values in half precision."""
    padded, shared = padded_and_shared(make("llama"))
    exact = log_probs(padded, False, examples())
    with torch.autocast("cpu", dtype):
        found = [log_probs(padded, False, examples()), log_probs(shared, True, examples())]
    errors = [float((values - exact).detach().norm()) for values in found]
    assert 0 < errors[1] < 2 * errors[0]


def test_a_response_does_not_see_the_others() -> None:
    """Changing one response of one example changes the log-prob of that one alone."""
    _, model = padded_and_shared(make("llama"))
    before = log_probs(model, True, examples())
    changed = examples()
    changed[2]["rejected_ids"][0] = 3 + (changed[2]["rejected_ids"][0] - 2) % (VOCABULARY - 3)
    after = log_probs(model, True, changed)
    assert (before != after).nonzero().flatten().tolist() == [5 + 2]


def test_the_row_holds_each_prompt_once() -> None:
    row, positions, layout = lay_out([[5, 6], [4]], [[[7, 8], [9]], [[3]]])
    assert row == [5, 6, 7, 6, 4]
    assert positions == [0, 1, 2, 1, 0]
    assert layout == [Example((0, 1), ((1, 3), (3, 4))), Example((4, 4), ((4, 5),))]


def test_no_token_is_padding_and_no_head_is_wasted() -> None:
    batch = SELMCollator(0, shared=True)(examples())
    tokens = sum(
        len(e["prompt_ids"]) - 1 + len(e["chosen_ids"] + e["rejected_ids"] + e["explored_ids"])
        for e in examples()
    )
    assert batch["row_ids"].shape == (1, tokens)
    assert len(batch["scored"]) == int(batch["completion_mask"].sum())


def test_the_pair_is_the_first_two_thirds() -> None:
    _, model = padded_and_shared(make("llama"))
    batch = SELMCollator(0, shared=True)(examples())
    for key in ("ref_chosen_logps", "ref_rejected_logps"):
        batch[key] = torch.zeros(5)
    output = forward(model, batch)
    pair, pair_output = pair_part(batch, output)
    assert len(output.log_probs) == 13
    assert len(pair_output.log_probs) == len(pair["completion_mask"]) == 10


def test_a_prepared_model_still_works_as_it_did() -> None:
    """For generation in a callback, say: logits, with a mask for padding."""
    plain, prepared = padded_and_shared(make("llama"))
    inputs = {"input_ids": torch.tensor([[0, 5, 6]]), "attention_mask": torch.tensor([[0, 1, 1]])}
    torch.testing.assert_close(prepared(**inputs).logits, plain(**inputs).logits)
    log_probs(prepared, True, examples())


def arguments(**settings: Any) -> SELMConfig:
    return SELMConfig(use_cpu=True, bf16=False, **{"max_length": WINDOW} | settings)


def test_auto_takes_the_shared_path_where_it_can_and_says_why_not() -> None:
    assert choose(arguments(), make("mistral")) == (True, "each prompt once, no padding")
    assert choose(arguments(forward="padded"), make("mistral")) == (False, "as the recipe says")
    _, prepared = padded_and_shared(make("mistral"))
    assert choose(arguments(), prepared)[0], "a second trainer of the same model"
    shared, why = choose(arguments(max_length=WINDOW + 1), make("mistral"))
    assert not shared and "sliding window of 64" in why
    other = make("llama")
    other.config.model_type = "gpt_neox"
    assert choose(arguments(), other) == (False, "not tested with models of type gpt_neox")
    with pytest.raises(
        UserError, match=r"training.forward: shared does not work: .* set it to padded"
    ):
        choose(arguments(forward="shared"), other)


def test_a_window_that_is_too_short_is_refused_in_the_attention_too() -> None:
    model = make("mistral")
    model.config.sliding_window = 8
    prepare(model)
    with pytest.raises(ValueError, match="sliding window of 8"):
        log_probs(model, True, examples())


class OwnLlama(LlamaForCausalLM):
    """As code from the Hub would: it calls itself llama, and computes its attention by itself."""


class OwnAttention(torch.nn.Module):
    """Would not see the shared path's layout."""


def test_only_transformers_own_classes_take_the_shared_path() -> None:
    own = OwnLlama(CONFIGS["llama"])
    assert own.config.model_type == "llama"
    shared, why = choose(arguments(), own)
    assert not shared and why == f"OwnLlama is not a class of transformers ({__name__})"
    with pytest.raises(UserError, match="OwnLlama is not a class of transformers"):
        choose(arguments(forward="shared"), own)
    inside = make("llama")
    assert choose(arguments(), inside)[0]
    inside.model.layers[1].self_attn = OwnAttention()
    shared, why = choose(arguments(), inside)
    assert not shared and "OwnAttention is not a class of transformers" in why


GEMMA = Gemma2Config(**SHAPE, head_dim=8, attn_logit_softcapping=5.0, final_logit_softcapping=5.0)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_soft_capping_is_never_lost_without_a_word(implementation: str) -> None:
    """The shared path refuses it; eager computes it; sdpa, which does not, is refused."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(GEMMA, attn_implementation=implementation)
    exact = copy.deepcopy(model)
    exact.set_attn_implementation("eager")
    assert choose(arguments(), model) == (False, "not tested with models of type gemma2")
    with pytest.raises(UserError, match="gemma2; set it to padded"):
        choose(arguments(forward="shared"), model)
    lost = implementation == "sdpa"
    with pytest.raises(UserError, match="soft-capping") if lost else nullcontext():
        check_attention(model.config, Model(name_or_path="x", attn_implementation=implementation))
    add_fused_lm_head(model)
    row = examples()[0]
    found = log_probs(model, False, [row])[0]
    ids = torch.tensor([row["prompt_ids"] + row["chosen_ids"]])
    wanted = exact(ids).logits.log_softmax(-1)[0, len(row["prompt_ids"]) - 1 : -1]
    wanted = wanted[range(len(row["chosen_ids"])), row["chosen_ids"]].sum()
    assert ((found - wanted).abs() > 1e-3) == lost


def test_dropout_in_attention_is_left_to_the_padded_path() -> None:
    config = LlamaConfig(**SHAPE, attention_dropout=0.25)
    model = AutoModelForCausalLM.from_config(config)
    shared, why = choose(arguments(), model)
    assert not shared and "attention_dropout of 0.25" in why
