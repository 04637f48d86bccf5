"""The benchmarks: each one is a file beside this one and a line here."""

from selm.evaluation.base import Benchmark
from selm.evaluation.mt_bench import MT_BENCH

BENCHMARKS: dict[str, Benchmark] = {
    "mt_bench": MT_BENCH,
}
