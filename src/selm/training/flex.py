"""Attention over a shared prefix with FlexAttention, on GPUs: one kernel skips masked blocks."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from selm.training.layout import Example

TILE = 128  # positions; the kernel skips or takes this many queries and keys at a time


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
    """Which positions each position of the row sees; made once for all layers.

    It is made from the layout. `create_block_mask` would first compute T x T booleans and their
    sums: 4.6 GB at 21,608 tokens, where this needs less than 20 MB.
    """
    sees, length = mask_of(examples, device)
    tiles = [
        ordered.to(device) for kind in tiles_of(examples) for ordered in _ordered(kind[None, None])
    ]
    return BlockMask.from_kv_blocks(
        *tiles, BLOCK_SIZE=TILE, mask_mod=sees, seq_lengths=(length, length)
    )


def mask_of(examples: Sequence[Example], device: torch.device) -> tuple[Callable[..., Any], int]:
    """The mask as FlexAttention's `mask_mod`, for single positions; and the row's length."""
    example_of, block_of = (ids.to(device) for ids in positions(examples))

    def sees(batch: Any, head: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        same_example = example_of[query] == example_of[key]
        own_or_prompt = (block_of[key] == 0) | (block_of[key] == block_of[query])
        return same_example & own_or_prompt & (key <= query)

    return sees, len(example_of)


def tiles_of(examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """The tiles of TILE x TILE positions that the kernel masks, and those it takes without a mask.

    The positions of one block that lie in one row of tiles are a run. All of a run see what its
    first position sees; the others see only more of the tile in which the run lies. So the first
    decides which tiles are visible and which are wholly so.

    Returns:
        Two (N, N), N tiles in the row: in part visible, and wholly visible. All others are skipped.
    """
    runs = torch.tensor(list(_runs(examples)))
    length = int(runs[-1, 1])
    count = -(-length // TILE)
    visible = _visible_keys(runs, count)
    some, missing = (torch.zeros(count, count, dtype=torch.long) for _ in range(2))
    some.index_add_(0, runs[:, 0] // TILE, (visible > 0).long())
    missing.index_add_(0, runs[:, 0] // TILE, (visible < TILE).long())
    whole = missing == 0
    if length % TILE:
        whole[-1] = False  # it also holds positions behind the row's end
    return (some > 0) & ~whole, whole


def _runs(examples: Sequence[Example]) -> Iterator[tuple[int, int, int, int, int]]:
    """Start and end of each run, start of its block, start and end of the prompt before it.

    >>> list(_runs([Example((0, 1), ((1, 3),))]))
    [(0, 1, 0, 0, 0), (1, 3, 1, 0, 1)]
    """
    for example in examples:
        parts = [(*example.prompt, 0, 0), *((*block, *example.prompt) for block in example.blocks)]
        for start, end, *prompt in parts:
            at = start
            while at < end:
                stop = min(end, (at // TILE + 1) * TILE)
                yield at, stop, start, prompt[0], prompt[1]
                at = stop


def _visible_keys(runs: torch.Tensor, count: int) -> torch.Tensor:
    """How many positions of each tile the first position of each run sees; (R, count).

    Args:
        runs: (R, 5), of `_runs`.
    """
    at, _, block, *prompt = runs.unbind(1)
    tiles = torch.arange(count) * TILE
    return sum(
        (torch.minimum(end[:, None], tiles + TILE) - torch.maximum(start[:, None], tiles)).clamp(0)
        for start, end in ((block, at + 1), prompt)
    )


def _ordered(tiles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each row of tiles: how many are chosen, and the numbers of all, the chosen ones first."""
    order = tiles.int().argsort(dim=-1, descending=True, stable=True)
    return tiles.sum(dim=-1, dtype=torch.int32), order.int()


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
