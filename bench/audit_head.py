"""Compiles the kernels of TRL's fused head, which the padded path uses, without a GPU.

python bench/audit_head.py sm_80|sm_90 OUT.json
"""

import json
import sys
from pathlib import Path
from typing import Any

import triton
import trl.kernels.chunked_logprob as head
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

# What TRL's DPO asks of the head: log-probs, entropies, mean logits, is a token the best one?
FORWARD = {
    "HAS_SOFTCAP": False,
    "HAS_ENTROPY": True,
    "HAS_LOG_SUM_SQ_PROBS": False,
    "HAS_MEAN_LOGITS": True,
    "HAS_IS_TOP1": True,
    "BLOCK_SIZE": 1024,
}
BACKWARD = {
    "HAS_SOFTCAP": False,
    "HAS_LOGPROB_GRAD": True,
    "HAS_ENTROPY_GRAD": False,
    "BLOCK_SIZE": 1024,
}
TYPES = {"mm_ptr": "*bf16", "targets_ptr": "*i64"}
NUMBERS = ("logit_scale", "softcap", "inv_t")


def main(target: str, out: Path) -> None:
    compiled = [
        compiled_for(target, head._forward_kernel, FORWARD),
        compiled_for(target, head._backward_kernel, BACKWARD),
    ]
    out.write_text(json.dumps(compiled, indent=1) + "\n", encoding="utf-8")


def compiled_for(target: str, kernel: Any, constants: dict[str, Any]) -> dict[str, Any]:
    names = kernel.arg_names
    source = ASTSource(
        kernel,
        signature={name: kind(name, constants) for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
    )
    made = triton.compile(source, target=GPUTarget("cuda", int(target.removeprefix("sm_")), 32))
    return {
        "kernel": kernel.__name__,
        "target": target,
        "shared_bytes": made.metadata.shared,
        "cubin_bytes": len(made.asm["cubin"]),
    }


def kind(name: str, constants: dict[str, Any]) -> str:
    """The type of an argument: pointers are to fp32 and numbers integers, with few exceptions."""
    if name in constants:
        return "constexpr"
    if name in NUMBERS:
        return "fp32"
    return TYPES.get(name, "*fp32" if name.endswith("_ptr") else "i32")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
