"""Attention over a shared prefix with FlexAttention, on GPUs: one kernel skips masked blocks."""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from selm.training.layout import Example


def flex(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    examples: Sequence[Example],
    scaling: float | None,
    dropout: float,
) -> torch.Tensor:
    """Attention over a row of `lay_out`.

    Args:
        query: (1, heads, T, D); key and value may have fewer heads.

    Returns:
        (1, heads, T, D).

    Raises:
        ValueError: dropout is not 0; FlexAttention has no dropout.
    """
    if dropout:
        raise ValueError(
            "attention_dropout does not work on a GPU: set it to 0, or set training.forward=padded"
        )
    dtype = query.dtype
    compute = _compiled() if query.is_cuda else flex_attention
    done = compute(
        query.to(value.dtype),  # under autocast RoPE leaves query and key in fp32
        key.to(value.dtype),
        value,
        block_mask=block_mask(tuple(examples), query.device),
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return done.to(dtype)


@cache
def _compiled() -> Callable[..., Any]:
    """Compiled once for all lengths; without compilation it would hold T x T scores."""
    return torch.compile(flex_attention, dynamic=True)


@lru_cache(maxsize=1)
def block_mask(examples: tuple[Example, ...], device: torch.device) -> BlockMask:
    """Which positions each position of the row sees; made once for all layers."""
    example_of, block_of = (ids.to(device) for ids in positions(examples))

    def sees(batch: Any, head: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        same_example = example_of[query] == example_of[key]
        own_or_prompt = (block_of[key] == 0) | (block_of[key] == block_of[query])
        return same_example & own_or_prompt & (key <= query)

    length = len(example_of)
    return create_block_mask(sees, None, None, length, length, device=str(device))


def positions(examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """For each position of the row: its example, and its block in the example (0 is the prompt).

    >>> positions([Example((0, 1), ((1, 3), (3, 4))), Example((4, 4), ((4, 5),))])
    (tensor([0, 0, 0, 0, 1]), tensor([0, 1, 1, 2, 1]))
    """
    parts = [
        (number, block, end - start)
        for number, example in enumerate(examples)
        for block, (start, end) in enumerate((example.prompt, *example.blocks))
    ]
    sizes = torch.tensor([size for _, _, size in parts])
    return (
        torch.tensor([number for number, _, _ in parts]).repeat_interleave(sizes),
        torch.tensor([block for _, block, _ in parts]).repeat_interleave(sizes),
    )
