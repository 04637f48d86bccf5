"""Loads the policy for training, with or without an adapter, and merges the adapter afterwards."""

from pathlib import Path

import torch
from accelerate import init_empty_weights
from peft import LoraConfig, PeftModel
from transformers import BitsAndBytesConfig, PreTrainedModel

from selm.errors import UserError
from selm.model import loading
from selm.recipe.schema import Lora, Recipe


def load_policy(recipe: Recipe, path: str, sharded: bool) -> PreTrainedModel:
    """Weights to train, in fp32 under autocast: bf16 would round small updates to nothing.

    Two cases use the recipe's dtype, because they lose nothing: DeepSpeed (`sharded`) keeps its
    own fp32 copies, and the weights below a LoRA adapter, itself in fp32, are not updated.
    """
    lora = recipe.training.lora
    own_dtype = getattr(torch, recipe.model.dtype)
    quantization = None
    if lora is not None and lora.load_in_4bit:
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=own_dtype,
        )
    model = loading.load(
        path,
        recipe.model,
        dtype=own_dtype if sharded else getattr(torch, recipe.trained_dtype()),
        quantization_config=quantization,
    )
    if sharded:
        compute_buffers_again(model)
    return model


def compute_buffers_again(model: PreTrainedModel) -> None:
    """Compute buffers in fp32: `zero3_init_flag` builds a model with RoPE frequencies in bf16.

    They are then wrong by up to 0.2 %. At a distance of a hundred tokens this rotates the fast ones
    by up to 0.2 radians, so the model would differ from the one that generation runs.
    """
    with init_empty_weights(include_buffers=False):
        exact = type(model)(model.config)
    for name, buffer in exact.named_buffers():
        owner, _, attribute = name.rpartition(".")
        kept = model.get_submodule(owner)._buffers
        kept[attribute] = buffer.to(kept[attribute].device)


def lora_config(lora: Lora | None) -> LoraConfig | None:
    """The recipe's section `training.lora` as peft's config; None: all weights are trained."""
    if lora is None:
        return None
    settings = lora.model_dump(mode="json", exclude={"load_in_4bit"})
    return LoraConfig(task_type="CAUSAL_LM", **settings)


def merge(recipe: Recipe, base: str, adapter: Path) -> PreTrainedModel:
    """Base and adapter merged into one model, in fp32.

    The base is read again, because with QLoRA the weights in memory have only 4 bits.
    """
    model = loading.load(base, recipe.model, dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter).merge_and_unload()


def check_can_quantise(device: str) -> None:
    """Refuse a CPU: bitsandbytes computes with 4-bit weights there, but its gradients are wrong."""
    if device != "cuda":
        raise UserError(
            "training.lora.load_in_4bit: needs an NVIDIA GPU; on a CPU set it to false, "
            "which takes 2 bytes per weight instead of 0.5"
        )
