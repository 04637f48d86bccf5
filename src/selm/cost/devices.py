"""The devices that a plan can be made for: `devices.yaml`, and the CPU of this machine."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from selm.cost.quantities import GB, Memory
from selm.recipe.schema import Recipe

UNUSED_SHARE = 0.1  # memory that an allocator cannot use again, as a share of the tensors
CPU_MEMORY_GB = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
_CPU_CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Device:
    """A row of `devices.yaml`, which explains the columns."""

    memory_gb: float
    tflops: float
    gb_per_second: float
    mfu: float
    decode_mfu: float
    start_seconds: float
    layer_seconds: float
    other_gb: float

    def seconds(self, flops: float) -> float:
        """The time of arithmetic on many tokens at once."""
        return flops / (self.tflops * 1e12 * self.mfu)

    def decode_seconds(self, flops: float) -> float:
        """The time of arithmetic on one token each of several sequences."""
        return flops / (self.tflops * 1e12 * self.decode_mfu)

    def read_seconds(self, size_bytes: float) -> float:
        """The time to move this many bytes between memory and processor."""
        return size_bytes / (self.gb_per_second * GB)

    def memory(self, **tensor_bytes: float) -> Memory:
        """The memory of a process with these tensors, and what it needs beside them."""
        other = self.other_gb * GB + UNUSED_SHARE * sum(tensor_bytes.values())
        return Memory(**tensor_bytes, other=other)


def _read() -> dict[str, Device]:
    table = Path(__file__).with_name("devices.yaml").read_text(encoding="utf-8")
    devices = {name: Device(**row) for name, row in yaml.safe_load(table).items()}
    cpu = devices["cpu"]
    cpu = replace(cpu, memory_gb=CPU_MEMORY_GB, tflops=cpu.tflops * _CPU_CORES)
    return devices | {"cpu": cpu}


DEVICES = _read()


def device_of(recipe: Recipe) -> Device:
    """The device in the recipe's `estimate`, with the numbers that the recipe overrides."""
    row, given = DEVICES[recipe.estimate.device], recipe.estimate
    own = {key: getattr(given, key) for key in ("memory_gb", "tflops", "mfu")}
    return replace(row, **{key: value for key, value in own.items() if value is not None})
