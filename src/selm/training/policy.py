"""The policy: as it is loaded to be trained, with or without an adapter, and as it is merged."""

from pathlib import Path

import torch
from accelerate import init_empty_weights
from peft import LoraConfig, PeftModel
from transformers import BitsAndBytesConfig, PreTrainedModel

from selm.errors import UserError
from selm.model import loading
from selm.recipe.schema import Lora, Recipe


def load_policy(recipe: Recipe, path: str, sharded: bool) -> PreTrainedModel:
    """Weights to train: in fp32 under autocast, for bf16 would round small updates away.

    The recipe's dtype where that is no loss: DeepSpeed (`sharded`) keeps fp32 copies of its own,
    and below a LoRA adapter, which is in fp32 itself, nothing moves.
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
        dtype=own_dtype if sharded or lora is not None else torch.float32,
        quantization_config=quantization,
    )
    if sharded:
        compute_buffers_again(model)
    return model


def compute_buffers_again(model: PreTrainedModel) -> None:
    """Buffers in fp32: a model built sharded (`zero3_init_flag`) has RoPE's frequencies in bf16.

    They are off by up to 0.2 % then, which a hundred tokens away turns the fast ones by up to 0.2
    radians: another model than the one that generation runs.
    """
    with init_empty_weights(include_buffers=False):
        exact = type(model)(model.config)
    for name, buffer in exact.named_buffers():
        owner, _, attribute = name.rpartition(".")
        kept = model.get_submodule(owner)._buffers
        kept[attribute] = buffer.to(kept[attribute].device)


def lora_config(lora: Lora | None) -> LoraConfig | None:
    """The recipe's section `training.lora` as peft has it; None: all weights are trained."""
    if lora is None:
        return None
    settings = lora.model_dump(mode="json", exclude={"load_in_4bit"})
    return LoraConfig(task_type="CAUSAL_LM", **settings)


def merge(recipe: Recipe, base: str, adapter: Path) -> PreTrainedModel:
    """The model that base and adapter are together, in fp32.

    The base is read anew: with QLoRA the weights that were trained on are only 4 bits wide.
    """
    model = loading.load(base, recipe.model, dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter).merge_and_unload()


def check_can_quantise(device: str) -> None:
    """bitsandbytes computes with 4-bit weights on a CPU, but its gradients there are wrong."""
    if device != "cuda":
        raise UserError(
            "training.lora.load_in_4bit: needs an NVIDIA GPU; on a CPU set it to false, "
            "which takes 2 bytes per weight instead of 0.5"
        )
