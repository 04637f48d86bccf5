"""FlexAttention's mask is made from the layout: the same tiles as from all pairs of positions."""

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from torch.nn.attention.flex_attention import create_block_mask
from torch.utils._python_dispatch import TorchDispatchMode

from selm.training.flex import TILE, _compiled, block_mask, mask_of
from selm.training.layout import Example, lay_out
from selm.training.shared_prefix import by_blocks

CPU = torch.device("cpu")


def layout_of(*examples: tuple[int, ...]) -> tuple[Example, ...]:
    """Each example: the prompt's tokens, then those of its responses."""
    prompts = [[1] * prompt for prompt, *_ in examples]
    responses = [[[1] * length for length in lengths] for _, *lengths in examples]
    return tuple(lay_out(prompts, responses)[2])


def random_layout(seed: int) -> tuple[Example, ...]:
    """One to six examples whose parts lie below, at and above whole tiles."""
    draw = random.Random(seed)
    lengths = [1, 2, 5, TILE - 1, TILE, TILE + 1, 2 * TILE, 2 * TILE + 1, 3 * TILE + 7]
    longest = draw.choice([3, 200, 500])  # some rows of many short examples

    def length() -> int:
        at = draw.choice(lengths) if draw.random() < 0.5 else draw.randint(1, longest)
        return max(1, min(at, longest))

    count = draw.randint(1, 6)
    return layout_of(
        *((length(), *(length() for _ in range(draw.randint(1, 3)))) for _ in range(count))
    )


def fields(mask: Any) -> dict[str, Any]:
    """All that the kernels read."""
    names = ("kv_num_blocks", "kv_indices", "q_num_blocks", "q_indices")
    names += tuple(f"full_{name}" for name in names)
    return {name: getattr(mask, name) for name in (*names, "seq_lengths", "BLOCK_SIZE")}


def assert_same_as_from_all_pairs(layout: tuple[Example, ...]) -> None:
    sees, length = mask_of(layout, CPU)
    wanted = fields(create_block_mask(sees, None, None, length, length, device="cpu"))
    found = fields(block_mask(layout, CPU))
    for name, value in wanted.items():
        if isinstance(value, torch.Tensor):
            assert found[name].dtype == value.dtype, name
            assert torch.equal(found[name], value), name
        else:
            assert found[name] == value, name


@pytest.mark.parametrize("seed", range(60))
def test_a_random_row_has_the_mask_of_all_its_pairs(seed: int) -> None:
    assert_same_as_from_all_pairs(random_layout(seed))


@pytest.mark.parametrize(
    "layout",
    [
        layout_of((1, 1)),
        layout_of((1, TILE)),  # one whole tile, which is causal
        layout_of((TILE + 1, TILE, TILE, TILE)),  # every part is one tile
        layout_of((TILE + 1, 2 * TILE, 1)),
        layout_of((4 * TILE + 1, 3 * TILE, 2 * TILE), (2, TILE - 1)),
        layout_of(*[(2, 1, 1)] * 60),  # many examples in a tile
    ],
)
def test_a_row_that_ends_at_a_tile_has_the_mask_of_all_its_pairs(layout: Any) -> None:
    assert_same_as_from_all_pairs(layout)


def test_the_random_rows_have_tiles_of_all_kinds() -> None:
    """Or the tests above would say little: masked, without a mask, skipped, and cut at the end."""
    masks = [block_mask(random_layout(seed), CPU) for seed in range(60)]
    assert sum(int(mask.full_kv_num_blocks.sum()) for mask in masks) > 100
    assert sum(int(mask.kv_num_blocks.sum()) for mask in masks) > 300
    assert sum(mask.seq_lengths[0] % TILE > 0 for mask in masks) > 30
    skipped = [_skipped_below_the_diagonal(mask) for mask in masks]
    assert sum(skipped) > 100


def _skipped_below_the_diagonal(mask: Any) -> int:
    rows = mask.kv_num_blocks.shape[-1]
    taken = mask.kv_num_blocks.sum() + mask.full_kv_num_blocks.sum()
    return rows * (rows + 1) // 2 - int(taken)


class Allocated(TorchDispatchMode):
    """Bytes of all tensors that are made, as if none were freed."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.total += tensor.untyped_storage().nbytes()
        return made


def test_the_mask_of_a_long_row_needs_little_memory() -> None:
    """Eight rows of 185 + 3 x 839 tokens, whose pairs alone are 467 million."""
    layout = layout_of(*[(185, 839, 839, 839)] * 8)
    block_mask.cache_clear()
    with Allocated() as allocated:
        mask = block_mask(layout, CPU)
    block_mask.cache_clear()
    assert mask.seq_lengths[0] > 21_600
    assert allocated.total < 20e6


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles the CPU's kernel with g++")
def test_one_compiled_kernel_computes_rows_of_all_lengths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU's kernel skips tiles as the GPU's does. It has no backward."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    graphs = []
    generator = torch.Generator().manual_seed(0)
    layouts = [layout for seed in range(60) if _tiles(layout := random_layout(seed)) > 1]
    for layout in layouts[:20]:
        length = layout[-1].blocks[-1][1]
        inputs = [torch.randn(1, n, length, 32, generator=generator) for n in (4, 2, 2)]
        before = counters["stats"]["unique_graphs"]
        found = _compiled()(*inputs, block_mask=block_mask(layout, CPU), enable_gqa=True)
        graphs.append(counters["stats"]["unique_graphs"] - before)
        wanted = by_blocks(*inputs, layout, None, 0.0)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert graphs == [1] + [0] * 19
    assert len({layout[-1].blocks[-1][1] for layout in layouts[:20]}) == 20


def _tiles(layout: tuple[Example, ...]) -> int:
    """A row of a single tile has a kernel of its own: torch takes a size of 1 for a constant."""
    return -(-layout[-1].blocks[-1][1] // TILE)
