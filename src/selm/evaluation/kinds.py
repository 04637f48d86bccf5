"""The benchmarks: each one is a file beside this one and a line here."""

from selm.evaluation.alpaca_eval import ALPACA_EVAL
from selm.evaluation.base import Benchmark
from selm.evaluation.lm_eval import BENCHMARKS_OF_LM_EVAL
from selm.evaluation.mt_bench import MT_BENCH
from selm.evaluation.pairwise import PAIRWISE

BENCHMARKS: dict[str, Benchmark] = {
    **BENCHMARKS_OF_LM_EVAL,
    "alpaca_eval": ALPACA_EVAL,
    "mt_bench": MT_BENCH,
    "pairwise": PAIRWISE,
}
