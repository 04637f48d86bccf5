"""Regret of online preference optimisation, with and without optimism, in bandits of known reward.

    python bench/regret.py                     # a minute or two on two idle cores
    python bench/regret.py --quick             # some seconds: fewer seeds and settings
    python bench/regret.py --json out.json     # every number, too

bench/bandits.py has the bandits and the loop. The first third of the seeds chooses, the others are
measured: the step size at which DPO has the least regret, and each term's alpha. Whatever is
compared has the same bandits and random numbers, so differences are paired by seed. Draws
docs/regret.png.
"""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from bandits import RESPONSES, Loop, Method, make_bandit, measure, oracle, run
from regret_figure import draw

PICTURE = Path(__file__).parents[1] / "docs" / "regret.png"
TERMS = ("selm", "expected", "xpo", "geb", "vpo")
ALPHAS = (0.001, 0.01, 0.1, 1.0)
RATES = {"log-linear": (0.1, 0.3, 1, 3, 10, 30), "tabular": (1, 3, 10, 30, 100)}
RARITY = {"easy": 1 / RESPONSES, "hard": 0.001}
THREE, MIXED = Loop(pool="three"), Loop(pool="mixed", newest=False, previous=False)
LOOPS = {
    "paper": THREE,
    "XPO": MIXED,
    "paper, greedy": replace(THREE, greedy=True),
    "paper, noisy": replace(THREE, noisy=True),
    "XPO, noisy": replace(MIXED, noisy=True),
    "two": replace(THREE, pool="two"),
}
WITH_SMALL_STEPS = ("paper", "XPO")


@dataclass(frozen=True)
class Case:
    """A bandit and a loop; its results are those of all methods in it."""

    bandit: str
    exploration: str
    loop: str

    @property
    def name(self) -> str:
        return f"{self.bandit}, {self.exploration}; {self.loop}"


def main() -> None:
    options = parse()
    seeds = 12 if options.quick else options.seeds
    cases = [
        Case(bandit, exploration, loop)
        for loop in list(LOOPS)[: 2 if options.quick else None]
        for bandit in RATES
        for exploration in RARITY
        if bandit == "log-linear" or (loop in WITH_SMALL_STEPS and not options.quick)
    ]
    start = time.monotonic(), sum(os.times()[:4])
    with ProcessPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as workers:
        results = []
        for result in workers.map(solve, cases, [seeds] * len(cases)):
            results.append(result)
            print(result["case"], file=sys.stderr, flush=True)
    print(tables(results))
    wall, cpu = time.monotonic() - start[0], sum(os.times()[:4]) - start[1]
    print(f"\n{seeds} seeds, {wall:.0f} seconds, {cpu:.0f} of them of a CPU")
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if not options.quick:
        draw(results, PICTURE)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=75, help="a third of them chooses settings")
    parser.add_argument("--quick", action="store_true", help="12 seeds, four cases, no picture")
    parser.add_argument("--json", metavar="FILE", help="write all results there")
    return parser.parse_args()


def solve(case: Case, seeds: int) -> dict[str, Any]:
    """All methods in one case: at DPO's best step size and at the smallest one."""
    bandit = make_bandit(case.bandit == "log-linear", RARITY[case.exploration], seeds)
    loop, rates = LOOPS[case.loop], RATES[case.bandit]
    dpo = {rate: run(bandit, replace(loop, rate=rate), Method()) for rate in rates}
    choosing = slice(0, seeds // 3)
    best = min(rates, key=lambda rate: summed(dpo[rate])[choosing].mean().item())
    uniform = run(bandit, replace(loop, pool="uniform", rate=best), Method())
    oracles = [
        measure(bandit, loop, oracle(bandit, loop, t), t) for t in range(loop.iterations + 1)
    ]
    found = {
        "case": case.name,
        "best_rate": best,
        "dpo": {str(rate): describe(dpo[rate], seeds, dpo[rates[0]]) for rate in rates},
        "uniform": describe(uniform, seeds),
        "oracle": {
            "regret": [m["regret"][seeds // 3 :].mean().item() for m in oracles],
            "summed": sum(m["regret"][seeds // 3 :].mean().item() for m in oracles[1:]),
        },
        "terms": {},
    }
    for steps, rate in {"best": best, "small": rates[0]}.items():
        if steps == "small" and case.loop not in WITH_SMALL_STEPS:
            continue
        found["terms"][steps] = {
            term: {
                str(alpha): describe(
                    run(bandit, replace(loop, rate=rate), Method(term, alpha)), seeds, dpo[rate]
                )
                for alpha in ALPHAS
            }
            for term in TERMS
        }
    return found


def summed(metrics: dict[str, torch.Tensor]) -> torch.Tensor:
    """Regret summed over the iterations, without the base policy's, (S,)."""
    return metrics["regret"][:, 1:].sum(1)


def describe(
    metrics: dict[str, torch.Tensor], seeds: int, dpo: dict[str, torch.Tensor] | None = None
) -> dict[str, Any]:
    """Means over the measured seeds, what the choosing seeds say, and the difference from DPO."""
    chosen = seeds // 3
    regret = summed(metrics)
    found: dict[str, Any] = {
        "choosing": regret[:chosen].mean().item(),
        "summed": regret[chosen:].mean().item(),
    }
    for name in ("regret", "kl_regret", "best", "entropy", "found"):
        found[name] = [round(value, 5) for value in metrics[name][chosen:].mean(0).tolist()]
    if dpo is not None:
        differences = (regret - summed(dpo))[chosen:]
        error = 1.96 * differences.std().item() / len(differences) ** 0.5
        found["difference"], found["half_width"] = differences.mean().item(), error
    return found


def chosen_alpha(by_alpha: dict[str, dict[str, Any]]) -> str:
    """The alpha of least regret on the choosing seeds."""
    return min(by_alpha, key=lambda alpha: by_alpha[alpha]["choosing"])


def tables(results: list[dict[str, Any]]) -> str:
    """Markdown: each term at its chosen alpha; SELM over alpha; both at both step sizes."""
    parts = []
    for steps in ("best", "small"):
        measured = [result for result in results if steps in result["terms"]]
        head = ["case", "step", "DPO", "uniform", "oracle", "DPO, step x 3", *TERMS]
        body = [head, *(chosen_line(result, steps) for result in measured)]
        parts += [f"\nEach term at its chosen alpha, less DPO; {steps} step size", *lines(body)]
        head = ["case", *(f"alpha {alpha}" for alpha in ALPHAS)]
        body = [
            [r["case"], *(cell(r["terms"][steps]["selm"][str(a)]) for a in ALPHAS)]
            for r in measured
        ]
        parts += [f"\nSELM less DPO, over alpha; {steps} step size", *lines([head, *body])]
    return "\n".join(parts)


def chosen_line(result: dict[str, Any], steps: str) -> list[str]:
    small, longer = list(result["dpo"])[:2]
    rate = str(result["best_rate"]) if steps == "best" else small
    line = [result["case"], rate, f"{result['dpo'][rate]['summed']:.2f}"]
    line += [f"{result[other]['summed']:.2f}" for other in ("uniform", "oracle")]
    line.append(cell(result["dpo"][longer]) if steps == "small" else "")
    for term in TERMS:
        by_alpha = result["terms"][steps][term]
        alpha = chosen_alpha(by_alpha)
        line.append(f"{cell(by_alpha[alpha])} ({alpha})")
    return line


def cell(found: dict[str, Any]) -> str:
    """Difference and half width of its interval, bold where the interval leaves zero out."""
    text = f"{found['difference']:+.3f} ± {found['half_width']:.3f}"
    return f"**{text}**" if abs(found["difference"]) > found["half_width"] else text


def lines(body: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in [body[0], ["---"] * len(body[0]), *body[1:]]]


if __name__ == "__main__":
    main()
