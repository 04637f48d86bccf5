"""The estimate of a training's activations against PyTorch's, of a 7B model without its weights."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import LlamaConfig, LlamaModel

from selm.cost import training
from selm.model.shape import SHAPES
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Recipe
from selm.training import shared_prefix
from selm.training.layout import lay_out

REPOSITORY = Path(__file__).resolve().parents[1]
MISTRAL = SHAPES["HuggingFaceH4/mistral-7b-sft-beta"]
ROWS, PROMPT, RESPONSE = 4, 300, 200
PATHS = ("shared", "padded")
# strategy and dtype of a recipe -> dtype of the weights, and whether autocast is on
WAYS = {
    ("zero3", "bfloat16"): (torch.bfloat16, False),
    ("single", "bfloat16"): (torch.float32, True),
    ("single", "float32"): (torch.float32, False),
}


class Flex(torch.autograd.Function):
    """What FlexAttention's kernels keep and make on a GPU."""

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any) -> torch.Tensor:
        done = torch.empty_like(query)
        sums = torch.empty(query.shape[:3], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, done, sums)
        return done

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.empty_like(each) for each in ctx.saved_tensors[:3])


def as_flex(query: Any, key: Any, value: Any, *others: Any) -> torch.Tensor:
    """As `flex` calls the kernels, which take queries, keys and values of one dtype."""
    done = Flex.apply(query.to(value.dtype), key.to(value.dtype), value)
    return done.to(query.dtype)


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(shared_prefix, "by_blocks", as_flex)


class Measured(NamedTuple):
    """Bytes above the weights, after the forward pass and at the peak; and tokens of the batch."""

    kept: float
    peak: float
    tokens: int


def measured(path: str, way: tuple[str, str], layers: int, checkpoints: bool = False) -> Measured:
    """The decoder of Mistral 7B with some of its layers; nothing is allocated or computed."""
    dtype, autocasts = WAYS[way]
    with FakeTensorMode(allow_non_fake_inputs=True):
        model, inputs, tokens = made(path, layers, dtype)
        if checkpoints:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        for parameter in model.parameters():  # they are counted apart: let them go at once
            parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
        casts: AbstractContextManager[Any] = nullcontext()
        if autocasts:
            casts = torch.autocast("cpu", torch.bfloat16)
        tracker = MemTracker()
        tracker.track_external(model)
        before = in_use(tracker, "current")
        with tracker:
            with casts:
                hidden = model(**inputs, use_cache=False).last_hidden_state
                kept = in_use(tracker, "current")
            hidden.sum().backward()
    return Measured(kept - before, in_use(tracker, "peak") - before, tokens)


def in_use(tracker: MemTracker, when: str) -> int:
    return sum(each["Total"] for each in tracker.get_tracker_snapshot(when).values())


def made(path: str, layers: int, dtype: torch.dtype) -> tuple[LlamaModel, dict[str, Any], int]:
    """The model, a batch of rows with three responses each, and the batch's tokens."""
    attention = shared_prefix.ATTENTION if path == "shared" else "sdpa"
    model = LlamaModel._from_config(config(layers), attn_implementation=attention, dtype=dtype)
    if path == "padded":
        shape = (3 * ROWS, PROMPT + RESPONSE)
        mask = torch.ones(shape, dtype=torch.long)
        mask[0, -1] = 0  # without any padding, no mask is passed on
        ids = torch.zeros(shape, dtype=torch.long)
        return model, {"input_ids": ids, "attention_mask": mask}, ids.numel()
    row, positions, layout = lay_out([[1] * PROMPT] * ROWS, [[[1] * RESPONSE] * 3] * ROWS)
    inputs = {"input_ids": torch.tensor([row]), "position_ids": torch.tensor([positions])}
    return model, inputs | {"examples": layout}, len(row)


def config(layers: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=100,
        hidden_size=MISTRAL.hidden,
        intermediate_size=MISTRAL.intermediate,
        num_hidden_layers=layers,
        num_attention_heads=MISTRAL.heads,
        num_key_value_heads=MISTRAL.kv_heads,
        head_dim=MISTRAL.head_dim,
    )


def recipe(path: str, way: tuple[str, str], checkpoints: bool = False) -> Recipe:
    strategy, dtype = way
    return load_recipe(
        "recipes/zephyr-7b-sft/selm.yaml",
        [
            f"model.dtype={dtype}",
            f"training.accelerate_config=accelerate_configs/{strategy}.yaml",
            f"training.forward={path}",
            f"training.gradient_checkpointing={str(checkpoints).lower()}",
        ],
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("way", WAYS)
def test_a_layer_keeps_on_a_gpu_what_pytorch_keeps(path: str, way: tuple[str, str]) -> None:
    """Within 3 %: left out are masks (2 bytes per token of a row) and sums of exponents."""
    two, four = (measured(path, way, layers) for layers in (2, 4))
    kept = (four.kept - two.kept) / 2
    if WAYS[way][1]:  # autocast's copies of the weights, which the plan counts apart
        kept -= 2 * sum(rows * columns for rows, columns in MISTRAL.linears)
    expected = training.layer_bytes(recipe(path, way), MISTRAL)
    assert expected == pytest.approx(kept / four.tokens, rel=0.03)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("checkpoints", [True, False])
def test_activations_peak_where_pytorchs_do(path: str, checkpoints: bool) -> None:
    """Within 10 %: gradients of weights, a matrix at a time, are part of what PyTorch counts."""
    way = ("zero3", "bfloat16")
    found = measured(path, way, 8, checkpoints)
    shape = replace(MISTRAL, layers=8, vocab=0)  # without logits
    expected = training._activations(recipe(path, way, checkpoints), shape, found.tokens)
    assert expected == pytest.approx(found.peak, rel=0.1)


@pytest.mark.parametrize(("checkpoints", "megabytes"), [(False, 6.6), (True, 0.54)])
def test_a_7b_model_under_zero3_takes_megabytes_per_token(
    checkpoints: bool, megabytes: float
) -> None:
    """Of each token on the shared path; the two figures to choose micro-batches by."""
    settings = recipe("shared", ("zero3", "bfloat16"), checkpoints)
    more, less = (training._activations(settings, MISTRAL, tokens) for tokens in (9000, 8000))
    assert (more - less) / 1000 / 1e6 == pytest.approx(megabytes, rel=0.05)
