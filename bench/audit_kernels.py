"""Compiles the shared path's attention, forward and backward, for a GPU that is not there.

    python bench/audit_kernels.py sm_80|sm_90 HEAD_DIM HEADS KEY_HEADS OUT

Leaves in OUT, a folder, `<target>-<head_dim>.json`: each kernel with the bytes of its machine code;
and the Python code that torch's compiler wrote, for audit_interpreter.py. The forward is what
`training/flex.py` compiles. Autograd starts a real driver for tensors on a GPU, so the backward is
traced from the operator that autograd calls, with the same mask and the options of the forward.
"""

import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CellType, FunctionType
from typing import Any
from unittest import mock

import stand_in_gpu
import torch
from torch._inductor import config as inductor
from torch._inductor.compile_fx import compile_fx_inner
from torch._inductor.graph import GraphLowering
from torch._inductor.output_code import CompiledFxGraph
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention.flex_attention import BlockMask

from selm.training import flex
from selm.training.layout import Example, lay_out

# (prompt, responses); the kernel's tiles have 128 positions, and the row's length is no multiple.
ROWS = ((150, (200, 31, 140)), (37, (1, 90)), (1, (129, 60, 5)))

MASK_TENSORS = (
    *("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices"),
    *("q_num_blocks", "q_indices", "full_q_num_blocks", "full_q_indices"),
)
# What torch's front end hands to the operator, and its forward for training.
OPTIONS = {
    "BACKEND": "AUTO",
    "PRESCALE_QK": False,
    "ROWS_GUARANTEED_SAFE": False,
    "BLOCKS_ARE_CONTIGUOUS": False,
    "WRITE_DQ": True,
    "OUTPUT_LOGSUMEXP": True,
    "OUTPUT_MAX": False,
}


def main(target: str, head_dim: int, heads: int, key_heads: int, out: Path) -> None:
    stand_in_gpu.pretend(target)
    inductor.compile_threads = 1  # in this process, where the GPU is
    inductor.force_disable_caches = True  # what is found in a cache is not compiled
    kernels: list[dict[str, Any]] = []
    stand_in_gpu.record(kernels)
    layout = row()
    mask = flex.block_mask(tuple(layout), torch.device("cpu"))
    shapes = [(1, n, mask.seq_lengths[0], head_dim) for n in (heads, key_heads, key_heads)]
    for what, compiled in (("forward", forward), ("backward", backward)):
        with written() as code, FakeTensorMode(allow_non_fake_inputs=True):
            inputs = [torch.empty(s, dtype=torch.bfloat16, device="cuda") for s in shapes]
            compiled(inputs, mask, layout)
        (text,) = code
        (out / f"{target}-{head_dim}-{what}.py.txt").write_text(text, encoding="utf-8")
    facts = json.dumps(kernels, indent=1)
    (out / f"{target}-{head_dim}.json").write_text(facts + "\n", encoding="utf-8")


def row() -> list[Example]:
    prompts, responses = [[1] * n for n, _ in ROWS], [[[1] * n for n in sizes] for _, sizes in ROWS]
    return lay_out(prompts, responses)[2]


@contextmanager
def written() -> Iterator[list[str]]:
    """The Python code that torch's compiler writes."""
    found: list[str] = []
    generate = GraphLowering.codegen

    def codegen(self: Any) -> Any:
        done = generate(self)
        found.append(str(getattr(done[0], "value", done[0])))
        return done

    with mock.patch.object(GraphLowering, "codegen", codegen):
        yield found


class Compiled(Exception):
    """Raised where the compiled code would be called."""


def forward(inputs: Sequence[torch.Tensor], mask: BlockMask, layout: Sequence[Example]) -> None:
    def called(*_: Any) -> None:
        raise Compiled

    there, _ = on_gpu(mask)
    with (
        mock.patch.object(flex, "block_mask", lambda *_: there),
        mock.patch.object(CompiledFxGraph, "__call__", called),
        suppress(Compiled),
    ):
        flex.flex(*inputs, layout, None, 0.0)


def backward(inputs: Sequence[torch.Tensor], mask: BlockMask, layout: Sequence[Example]) -> None:
    operator = importlib.import_module("torch._higher_order_ops.flex_attention")
    there, ids = on_gpu(mask)
    *blocks, _ = there.as_tuple()
    places = [i for i, value in enumerate(blocks) if isinstance(value, torch.Tensor)]

    def sees(*args: Any) -> Any:
        """The mask with the tensors that it uses as arguments."""
        return with_tensors(mask.mask_mod, args[4:])(*args[:4])

    def gradients(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        *given, example_of, block_of = tensors[: 6 + 2]
        parts = list(blocks)
        for place, tensor in zip(places, tensors[6 + 2 :], strict=True):
            parts[place] = tensor
        done = operator.flex_attention_backward(
            *given,
            None,
            lambda score, *_: score,
            lambda score, b, h, q, k, gradient, *_: [gradient, None, None, None, None],
            (*parts, sees),
            given[0].shape[-1] ** -0.5,
            OPTIONS,
            (),
            (example_of, block_of),
        )
        return tuple(done[:3])

    query, *_ = inputs
    sums = torch.empty(query.shape[:-1], dtype=torch.float32, device="cuda")
    tensors = [*inputs, torch.empty_like(query), sums, torch.empty_like(query), *ids]
    tensors += [blocks[place] for place in places]
    compile_fx_inner(make_fx(gradients, tracing_mode="real")(*tensors), tensors)


def on_gpu(mask: BlockMask) -> tuple[BlockMask, list[torch.Tensor]]:
    """The mask with its tensors on the GPU, and those that decide each position."""
    cells = [cell.cell_contents for cell in mask.mask_mod.__closure__ or ()]
    ids = [empty_on_gpu(tensor) for tensor in cells]
    tensors = {name: empty_on_gpu(getattr(mask, name)) for name in MASK_TENSORS}
    sees = with_tensors(mask.mask_mod, ids)
    there = BlockMask(
        seq_lengths=mask.seq_lengths, BLOCK_SIZE=mask.BLOCK_SIZE, mask_mod=sees, **tensors
    )
    return there, ids


def empty_on_gpu(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")


def with_tensors(function: Any, tensors: Sequence[torch.Tensor]) -> FunctionType:
    """The same function, which uses other tensors than those around it."""
    cells = tuple(CellType(tensor) for tensor in tensors)
    return FunctionType(function.__code__, function.__globals__, function.__name__, None, cells)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]), Path(sys.argv[5]))
