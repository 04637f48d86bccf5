"""Regret of online preference optimisation, with and without optimism, in bandits of known reward.

    python bench/regret.py                     # one and a half minutes of a CPU, on two processes
    python bench/regret.py --quick             # some seconds: fewer seeds and settings
    python bench/regret.py --json out.json     # every number, too

bench/bandits.py has the bandits and the loop. The first third of the seeds chooses, the others are
measured: the step size at which DPO has the least regret, and each term's alpha. Whatever is
compared has the same bandits and random numbers, so differences are paired by seed. Draws
docs/evidence/regret.png.
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
from regret_numbers import cell, describe, lines, summed
from regret_why import betas, betas_table, ingredients, ingredients_table

PICTURE = Path(__file__).parents[1] / "docs" / "evidence" / "regret.png"
TERMS = ("selm", "expected", "xpo", "geb", "vpo")
ALPHAS = (0.001, 0.01, 0.1, 1.0)
RATES = {"log-linear": (0.1, 0.3, 1, 3, 10, 30, 100), "tabular": (1, 3, 10, 30, 100)}
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
IN_FULL = ("paper", "XPO", "XPO, noisy")  # tabular and small steps, too


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
        if bandit == "log-linear" or (loop in IN_FULL and not options.quick)
    ]
    start = time.monotonic(), sum(os.times()[:4])
    with ProcessPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as workers:
        results = []
        why = [workers.submit(part, seeds) for part in (ingredients, betas)]
        for result in workers.map(solve, cases, [seeds] * len(cases)):
            results.append(result)
            print(result["case"], file=sys.stderr, flush=True)
        found = {"cases": results, "ingredients": why[0].result(), "betas": why[1].result()}
    print(tables(results))
    print(ingredients_table(found["ingredients"]))
    print(betas_table(found["betas"]))
    wall, cpu = time.monotonic() - start[0], sum(os.times()[:4]) - start[1]
    print(f"\n{seeds} seeds, {wall:.0f} seconds, {cpu:.0f} of them of a CPU")
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if not options.quick:
        draw(results, PICTURE)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=75, help="a third of them chooses settings")
    parser.add_argument("--quick", action="store_true", help="12 seeds, four cases, no picture")
    parser.add_argument("--json", metavar="FILE", help="write all results there")
    options = parser.parse_args()
    if options.seeds < 6:
        parser.error("--seeds: at least 6, of which 2 choose and 4 are measured")
    return options


def solve(case: Case, seeds: int) -> dict[str, Any]:
    """All methods in one case: at DPO's best step size and at the smallest one."""
    bandit = make_bandit(case.bandit == "log-linear", RARITY[case.exploration], range(seeds))
    loop, rates = LOOPS[case.loop], RATES[case.bandit]
    dpo = {rate: run(bandit, replace(loop, rate=rate), Method()) for rate in rates}
    chosen = seeds // 3
    best = min(rates, key=lambda rate: summed(dpo[rate])[:chosen].mean().item())
    uniform = run(bandit, replace(loop, pool="uniform", rate=best), Method())
    oracles = [
        measure(bandit, loop, oracle(bandit, loop, t), t) for t in range(loop.iterations + 1)
    ]
    found = {
        "case": case.name,
        "best_rate": best,
        "dpo": {str(rate): describe(dpo[rate], chosen, dpo[rates[0]]) for rate in rates},
        "uniform": describe(uniform, chosen),
        "oracle": {
            "regret": [m["regret"][chosen:].mean().item() for m in oracles],
            "summed": sum(m["regret"][chosen:].mean().item() for m in oracles[1:]),
        },
        "terms": {},
    }
    for steps, rate in {"best": best, "small": rates[0]}.items():
        if steps == "small" and case.loop not in IN_FULL:
            continue
        found["terms"][steps] = {
            term: {
                str(alpha): describe(
                    run(bandit, replace(loop, rate=rate), Method(term, alpha)), chosen, dpo[rate]
                )
                for alpha in ALPHAS
            }
            for term in TERMS
        }
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


if __name__ == "__main__":
    main()
