"""Runs the kernels that audit_kernels.py compiled in Triton's interpreter, on the CPU.

    TRITON_INTERPRET=1 python bench/audit_interpreter.py TARGET HEAD_DIM HEADS KEY_HEADS FOLDER

Their result and gradients are compared with autograd through torch's own attention on one block
after another (`shared_prefix.by_blocks`), in fp32. Inputs are fp32 and fp16: the interpreter has no
arithmetic for bf16. Leaves in FOLDER `interpreted-<target>-<head_dim>.json`: by dtype, the relative
error of each.
"""

import importlib.util
import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from audit_kernels import MASK_TENSORS, row

from selm.training.flex import block_mask, positions
from selm.training.shared_prefix import by_blocks

Tensors = dict[str, torch.Tensor]


def main(target: str, head_dim: int, heads: int, key_heads: int, folder: Path) -> None:
    sources = {
        what: (folder / f"{target}-{head_dim}-{what}.py.txt").read_text(encoding="utf-8")
        for what in ("forward", "backward")
    }
    shapes = [(1, n, row()[-1].blocks[-1][1], head_dim) for n in (heads, key_heads, key_heads)]
    generator = torch.Generator().manual_seed(head_dim)
    drawn = [torch.randn(shape, generator=generator) for shape in (*shapes, shapes[0])]
    found = {
        str(dtype).removeprefix("torch."): errors(sources, [t.to(dtype) for t in drawn])
        for dtype in (torch.float32, torch.float16)
    }
    path = folder / f"interpreted-{target}-{head_dim}.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def errors(sources: dict[str, str], drawn: list[torch.Tensor]) -> dict[str, float]:
    """Of the result and of each gradient: the norm of the difference, relative."""
    query, key, value, gradient = drawn
    given = {"arg_Q": query, "arg_K": key, "arg_V": value, "arg_DO": gradient, **of_mask()}
    sums = torch.empty(query.shape[:-1])
    made = {name: torch.empty_like(query) for name in ("out", "arg_DQ")}
    made |= {name: torch.empty_like(key) for name in ("arg_DK", "arg_DV")}
    of_forward = {"out_ptr0": made["out"], "arg_LSE": sums, "arg_MAX": torch.empty_like(sums)}
    run(sources["forward"], given | of_forward)
    delta = (made["out"].float() * gradient.float()).sum(-1)
    of_backward = {"arg_LSE": sums, "arg_DELTA": delta, "out_ptr0": made["arg_DK"], **made}
    run(sources["backward"], given | of_backward)
    inputs = [tensor.float().clone().requires_grad_() for tensor in (query, key, value)]
    truth = by_blocks(*inputs, row(), query.shape[-1] ** -0.5, 0.0)
    truth.backward(gradient.float())
    wanted = [truth.detach(), *(tensor.grad for tensor in inputs)]
    names = {"result": "out", "query": "arg_DQ", "key": "arg_DK", "value": "arg_DV"}
    return {
        what: float((made[name].float() - true).norm() / true.norm())
        for (what, name), true in zip(names.items(), wanted, strict=True)
    }


def of_mask() -> Tensors:
    """The mask's tensors by the names that the kernels give them."""
    mask = block_mask(tuple(row()), torch.device("cpu"))
    short = [name.replace("blocks", "blks").replace("indices", "idx") for name in MASK_TENSORS]
    tensors = {
        f"arg_{mine.upper()}": getattr(mask, name)
        for mine, name in zip(short, MASK_TENSORS, strict=True)
    }
    return tensors | {"ids": positions(row())}


def run(source: str, values: dict[str, Any]) -> None:
    """Call the kernel as the code around it does."""
    name, call = re.findall(r"(triton_tem_\w+)\.run\((.*?), stream=", source)[-1]
    function, arguments = interpreted(source, name)
    length, tiles = values["arg_Q"].shape[2], values["arg_KV_IDX"].shape[-1]
    ids = iter(values["ids"])  # used, so named, in this order: the example, then the block in it
    sizes = iter((length, tiles))
    there = []
    for argument in arguments:
        if argument.startswith("in_ptr"):
            there.append(next(ids))
        elif argument.startswith("ks"):
            there.append(next(sizes))
        else:
            there.append(values[argument])
    symbols = dict.fromkeys(re.findall(r"\bs\d+\b", call), length)
    grid = tuple(int(eval(part, {}, symbols)) for part in call.split(", ")[-3:])
    function[grid](*there)


def interpreted(source: str, name: str) -> tuple[Callable[..., Any], list[str]]:
    """A kernel out of the code that torch's compiler wrote, without its launcher."""
    text = re.search(rf"async_compile\.triton\('{name}', '''(.*?)'''", source, re.DOTALL)
    assert text is not None, name
    before, _, launched = text[1].partition("@triton_heuristics")
    kernel = launched[launched.index("@triton.jit") :]
    # Triton reads the lines of a file.
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".py") as file:
        file.write(before.replace("triton_helpers.set_driver_to_gpu()", "") + kernel)
        file.flush()
        spec = importlib.util.spec_from_file_location(name, file.name)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        signature = re.search(rf"def {name}\((.*?)\)", kernel)
        assert signature is not None
        return getattr(module, name), signature[1].split(", ")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]), Path(sys.argv[5]))
