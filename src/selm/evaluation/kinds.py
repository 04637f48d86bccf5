"""The benchmarks: each one is a file beside this one and a line here."""

from selm.evaluation.base import Benchmark

BENCHMARKS: dict[str, Benchmark] = {}
