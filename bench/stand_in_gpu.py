"""Lets torch and Triton compile for a GPU that is not there. Nothing is computed.

Torch and Triton ask the driver what the GPU is like, load what they compiled, and launch it. The
stand-in answers the questions with the figures of NVIDIA's data sheets and does nothing for the
rest. It replaces private functions of torch 2.14 and Triton 3.8, for the life of the process.
"""

from types import SimpleNamespace
from typing import Any

import torch
import torch._inductor.fx_passes.joint_graph as joint_graph
import torch._inductor.fx_passes.post_grad as post_grad
import torch._inductor.runtime.triton_heuristics as heuristics
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

# name, compute capability, multiprocessors, shared memory of a block in bytes
GPUS = {
    "sm_80": ("NVIDIA A100-SXM4-80GB", (8, 0), 108, 166_912),
    "sm_90": ("NVIDIA H100 80GB HBM3", (9, 0), 132, 232_448),
}


def pretend(kind: str) -> None:
    """This process has one GPU of this kind, to compile for."""
    properties = _properties(kind)
    _answer_for_torch(properties)
    driver.set_active(_Driver(properties))
    heuristics.CachingAutotuner._make_launchers = lambda *_, **__: None
    heuristics.triton_helpers.set_driver_to_gpu = lambda *_: None
    for passes in (joint_graph, post_grad):
        passes.lazy_init = lambda *_, **__: None  # these run what they compile


def _properties(kind: str) -> SimpleNamespace:
    name, (major, minor), processors, shared = GPUS[kind]
    return SimpleNamespace(
        name=name,
        major=major,
        minor=minor,
        multi_processor_count=processors,
        shared_memory_per_block_optin=shared,
        shared_memory_per_block=48 * 2**10,
        shared_memory_per_multiprocessor=shared + 2**10,
        total_memory=80 * 2**30,
        max_threads_per_multi_processor=2048,
        regs_per_multiprocessor=65_536,
        warp_size=32,
        gcnArchName="",
        L2_cache_size=40 * 2**20,
        clock_rate=1_410_000,
        memory_clock_rate=1_215_000,
        memory_bus_width=5120,
        is_integrated=False,
        is_multi_gpu_board=False,
    )


def _answer_for_torch(properties: SimpleNamespace) -> None:
    random = {"get_rng_state": torch.zeros(16, dtype=torch.uint8)}
    random |= dict.fromkeys(("set_rng_state", "_lazy_init"))
    capturing = {"_cuda_isCurrentStreamCapturing": False}
    _answer(torch.cuda.random, random)
    _answer(torch.cuda.graphs, capturing)
    _answer(torch.accelerator, {"is_available": False, "current_stream": None})
    _answer(
        torch.cuda,
        {
            "is_available": True,
            "device_count": 1,
            "get_device_properties": properties,
            "_get_device_properties": properties,  # for who imported the function above
            "get_device_capability": (properties.major, properties.minor),
            "get_device_name": properties.name,
            "is_initialized": False,
            "is_current_stream_capturing": False,
            "current_stream": SimpleNamespace(cuda_stream=0),
            **dict.fromkeys(("current_device", "_exchange_device", "_maybe_exchange_device"), 0),
            **dict.fromkeys(("synchronize", "set_device")),
            **random,
        },
    )
    _answer(
        torch._C,
        {
            "_cuda_hasPrimaryContext": False,
            "_cuda_setDevice": None,
            **dict.fromkeys(("_cuda_getCurrentRawStream", "_cuda_getDevice"), 0),
            **dict.fromkeys(("_cuda_exchangeDevice", "_cuda_maybeExchangeDevice"), 0),
            "_accelerator_getDeviceIndex": 0,
            **capturing,
        },
    )
    torch._C._ensureCUDADeviceGuardSet()


def _answer(module: Any, answers: dict[str, Any]) -> None:
    """Functions with one answer each; no two are the same object, which torch would confuse."""
    for name, value in answers.items():
        setattr(module, name, lambda *_, value=value, **__: value)


class _Driver:
    """Triton's view of the GPU."""

    def __init__(self, properties: SimpleNamespace) -> None:
        self.target = GPUTarget("cuda", properties.major * 10 + properties.minor, 32)
        self.utils = _Utilities(properties)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, device: int) -> None:
        pass

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cuda", 0)

    def get_device_interface(self) -> Any:
        return torch.cuda

    def get_benchmarker(self) -> Any:
        return lambda *_, **__: 1.0

    def launcher_cls(self, *_: Any, **__: Any) -> Any:
        return lambda *_, **__: None

    def map_python_to_cpp_type(self, kind: str) -> str:
        return kind

    @staticmethod
    def is_active() -> bool:
        return True


class _Utilities:
    def __init__(self, properties: SimpleNamespace) -> None:
        self.properties = properties

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {
            "max_shared_mem": self.properties.shared_memory_per_block_optin,
            "max_num_regs": 65_536,
            "multiprocessor_count": self.properties.multi_processor_count,
            "warpSize": 32,
            "sm_clock_rate": 1_410_000,
            "mem_clock_rate": 1_215_000,
            "mem_bus_width": 5120,
        }

    def load_binary(self, *_: Any) -> tuple[int, int, int, int, int]:
        """Module, function, registers, spills, threads."""
        return 0, 0, 32, 0, 1024


def record(seen: list[dict[str, Any]]) -> None:
    """Every kernel that Triton compiles from now on, with the bytes of its code and memory."""
    compile_kernel = triton.compile

    def recorded(*args: Any, **kwargs: Any) -> Any:
        made = compile_kernel(*args, **kwargs)
        facts = made.metadata
        seen.append(
            {
                "kernel": facts.name,
                "target": f"sm_{facts.target.arch}",
                "shared_bytes": facts.shared,
                "cubin_bytes": len(made.asm["cubin"]),
            }
        )
        return made

    triton.compile = recorded
