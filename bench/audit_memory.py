"""Activations of a 7B training step without its numbers, beside what the plan estimates for them.

    python bench/audit_memory.py OUT.json

A model of Mistral-7B's shape takes a forward and a backward of the shared path under torch's
FakeTensorMode, which knows shapes and dtypes and computes nothing; torch's MemTracker adds up what
exists at one time. As under ZeRO-3, weights are bf16 and each gradient leaves when it is there.
Attention keeps and makes what FlexAttention's kernel does.
"""

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import AutoModelForCausalLM, MistralConfig

from selm.cost import training
from selm.cost.quantities import model_shape
from selm.recipe.loading import load_recipe
from selm.training import shared_prefix
from selm.training.examples import ROLES
from selm.training.forward import SELMCollator

RECIPE = "recipes/zephyr-7b-sft/selm.yaml"
PROMPT, RESPONSE, ROWS = 200, 400, 4  # three responses a row: 4 x (199 + 3 x 400) tokens


def main(out: Path) -> None:
    found = {}
    for checkpointing in (True, False):
        tokens, peak = measured(checkpointing)
        name = "with checkpointing" if checkpointing else "without"
        found[name] = {
            "tokens": tokens,
            "peak_gb": round(peak / 1e9, 2),
            "plan_gb": round(planned(tokens, checkpointing) / 1e9, 2),
        }
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def planned(tokens: int, checkpointing: bool) -> float:
    """The plan's activations, in bytes, for a micro-batch of as many tokens."""
    given = [f"training.gradient_checkpointing={str(checkpointing).lower()}"]
    recipe = load_recipe(RECIPE, [*given, "training.forward=shared"])
    with mock.patch.object(training, "fullest_batch", lambda *_: tokens):
        return training.memory(recipe, model_shape(recipe), True).activations


class Kernel(torch.autograd.Function):
    """Keeps query, key, value, result and the sums of its rows; its backward makes three."""

    @staticmethod
    def forward(context: Any, *inputs: torch.Tensor) -> torch.Tensor:
        query = inputs[0]
        result, sums = torch.empty_like(query), torch.empty(query.shape[:3], dtype=torch.float32)
        context.save_for_backward(*inputs, result, sums)
        return result

    @staticmethod
    def backward(context: Any, *_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(map(torch.empty_like, context.saved_tensors[:3]))


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any) -> torch.Tensor:
    return Kernel.apply(query, key, value)


def measured(checkpointing: bool) -> tuple[int, float]:
    """Tokens of the micro-batch, and the peak in bytes above the weights."""
    config = MistralConfig(  # that of Zephyr's base model
        vocab_size=32_000,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        sliding_window=4096,
        pad_token_id=0,
    )
    batch = SELMCollator(0, shared=True)([example()] * ROWS)
    scored = batch["input_ids"][batch["completion_mask"] == 1]
    tracker = MemTracker()
    with (
        mock.patch.object(shared_prefix, "by_blocks", attention),
        FakeTensorMode(allow_non_fake_inputs=True),
    ):
        how = {"attn_implementation": "sdpa", "dtype": torch.bfloat16}
        model = AutoModelForCausalLM.from_config(config, **how).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        shared_prefix.prepare(model)
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(let_go)
        tracker.track_external(model)
        with tracker:
            log_probs(model, batch, scored).sum().backward()
        peak = tracker.get_tracker_snapshot("peak")
    (of_device,) = [sizes for device, sizes in peak.items() if device.type == "cpu"]
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return batch["row_ids"].numel(), of_device["Total"] - weights


def example() -> dict[str, Any]:
    return {
        "prompt_ids": [5] * PROMPT,
        **{key: [6] * RESPONSE for key in ("chosen_ids", "rejected_ids", "explored_ids")},
        "explored_role": ROLES["neither"],
    }


def log_probs(model: Any, batch: dict[str, Any], targets: torch.Tensor) -> torch.Tensor:
    """As `forward` does; which tokens are scored is known before, since fake tensors have none."""
    return model(
        input_ids=batch["row_ids"],
        position_ids=batch["row_positions"],
        examples=batch["layout"],
        scored=batch["scored"],
        targets=targets,
    )["log_probs"]


def let_go(parameter: torch.Tensor) -> None:
    parameter.grad = None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
