"""Mixtures of experts: the router's load-balancing loss is TRL's, and its gradient too."""

import copy
from pathlib import Path
from typing import Any

import dpo_rows
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from selm.errors import UserError
from selm.training.config import SELMConfig
from selm.training.forward import check_router

VOCABULARY = 64
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.25,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
    "num_experts_per_tok": 2,
}
MIXTURES: dict[str, dict[str, Any]] = {
    "Mixtral": {"num_local_experts": 4, "sliding_window": None},
    "Qwen2Moe": {
        "num_experts": 4,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 32,
    },
    "Qwen3Moe": {"num_experts": 4, "moe_intermediate_size": 16, "head_dim": 8},
    "Olmoe": {"num_experts": 4},
}
# fp32: sums of a few hundred products in the order of two ways to call the same kernels.
CLOSE = {"rtol": 1e-4, "atol": 1e-6}


def make(family: str, **settings: Any) -> PreTrainedModel:
    config = getattr(transformers, f"{family}Config")(**SHAPE | MIXTURES[family] | settings)
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")


@pytest.fixture(scope="module")
def tokenizer(tiny_model: str) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.mark.parametrize("coefficient", [None, 0.5, 0.0])
@pytest.mark.parametrize("family", MIXTURES)
def test_without_optimism_a_step_is_trls(
    family: str, coefficient: float | None, tokenizer: Any, tmp_path: Path
) -> None:
    policy, reference = make(family), make(family)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.mul_(1.05)
    twins = [copy.deepcopy(policy), copy.deepcopy(policy)]
    data = dpo_rows.rows(6, VOCABULARY)
    settings = {"per_device_train_batch_size": 6, "router_aux_loss_coef": coefficient}
    trainers = [
        make_trainer(twin, tokenizer, data, tmp_path, copy.deepcopy(reference), **settings)
        for make_trainer, twin in zip((dpo_rows.selm, dpo_rows.trl), twins, strict=True)
    ]
    (ours, mine), (theirs, logged) = (dpo_rows.trained(trainer) for trainer in trainers)
    assert mine["loss"] == pytest.approx(logged["loss"], rel=1e-5)
    assert ("aux_loss" in mine) == ("aux_loss" in logged) == (coefficient != 0)
    assert mine.get("aux_loss", 0) == pytest.approx(logged.get("aux_loss", 0), rel=1e-5)
    assert ours.keys() == theirs.keys() and any(name.endswith("gate.weight") for name in ours)
    torch.testing.assert_close(ours, theirs, **CLOSE)


def test_with_optimism_the_explored_responses_are_balanced_too(
    tokenizer: Any, tmp_path: Path
) -> None:
    """By hand, over all 2B + E sequences; the loss is its three terms."""
    policy = make("Mixtral")
    twin = copy.deepcopy(policy)
    data = dpo_rows.rows(3, VOCABULARY, roles=(2,))
    trainer = dpo_rows.selm(
        policy, tokenizer, data, tmp_path, alpha=0.5, per_device_train_batch_size=3
    )
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(3)])
    assert len(batch["input_ids"]) == 9
    _, log = dpo_rows.trained(trainer)
    mask = batch["attention_mask"]
    with torch.no_grad():
        out = twin(input_ids=batch["input_ids"], attention_mask=mask, output_router_logits=True)
    wanted = load_balancing_loss_func(out.router_logits, 4, 2, mask).item()
    assert log["aux_loss"] == pytest.approx(wanted, rel=1e-5)
    assert log["loss"] == pytest.approx(log["loss/dpo"] + log["loss/optimism"], rel=1e-5)


def settings(**given: Any) -> SELMConfig:
    return SELMConfig(use_cpu=True, bf16=False, **given)


def test_a_router_that_trl_cannot_compute_is_refused_before_the_reference() -> None:
    config = transformers.PhimoeConfig(num_local_experts=4)
    config.router_aux_loss_coef = 0.01
    with pytest.raises(UserError, match=r"router_aux_loss_coef: .* type phimoe; set it to 0"):
        check_router(settings(), config)
    check_router(settings(router_aux_loss_coef=0.0), config)


def test_a_coefficient_without_a_router_is_refused() -> None:
    config = transformers.LlamaConfig()
    check_router(settings(), config)
    with pytest.raises(UserError, match="a model of type llama returns no router logits"):
        check_router(settings(router_aux_loss_coef=0.1), config)
