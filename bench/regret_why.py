"""Why an optimism term pays: the loop taken apart, and DPO made greedier instead.

Both were added after a first look at the other tables. So they have seeds of their own.
"""

from dataclasses import replace
from typing import Any

import torch
from bandits import Loop, Method, make_bandit, run
from regret_numbers import cell, describe, lines

RARITY, FIRST_SEED = 0.001, 1000
# Four times the steps of the other tables: DPO with noisy verdicts is then near its optimum.
LOOP = Loop(pool="mixed", newest=False, previous=False, noisy=True, steps=40, rate=10)
METHODS = {f"{term} {alpha}": Method(term, alpha) for term, alpha in (
    ("selm", 0.01), ("selm", 0.1), ("expected", 0.1), ("xpo", 0.1), ("geb", 0.1),
)}  # fmt: skip
BETAS = (0.5, 0.25, 0.1, 0.05)


def ingredients(seeds: int) -> list[dict[str, Any]]:
    """All combinations of ranker, pool, data and reference."""
    return [
        {"ranker": "noisy" if noisy else "exact", "pool": pool}
        | {"data": "newest" if newest else "all", "reference": "previous" if previous else "base"}
        | against_dpo(
            replace(LOOP, noisy=noisy, pool=pool, newest=newest, previous=previous),
            ("selm 0.01", "selm 0.1"), seeds,
        )
        for noisy in (True, False)
        for pool in ("mixed", "three")
        for newest in (False, True)
        for previous in (False, True)
    ]  # fmt: skip


def betas(seeds: int) -> list[dict[str, Any]]:
    """A smaller beta makes DPO's policy greedier without optimism; curvature is beta squared."""
    return [
        {"beta": beta}
        | against_dpo(
            replace(LOOP, beta=beta, rate=LOOP.rate * (LOOP.beta / beta) ** 2), METHODS, seeds
        )
        for beta in BETAS
    ]


def against_dpo(loop: Loop, names: Any, seeds: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    bandit = make_bandit(True, RARITY, range(FIRST_SEED, FIRST_SEED + seeds))
    dpo = run(bandit, loop, Method())
    found = {"dpo": describe(dpo, 0)}
    return found | {name: describe(run(bandit, loop, METHODS[name]), 0, dpo) for name in names}


def ingredients_table(found: list[dict[str, Any]]) -> str:
    head = ["ranker", "pool", "data", "reference", "DPO", "its found", "alpha 0.01", "alpha 0.1"]
    body = [
        [one[key] for key in head[:4]]
        + [f"{one['dpo']['summed']:.2f}", f"{one['dpo']['found'][-1]:.2f}"]
        + [with_found(one[name]) for name in ("selm 0.01", "selm 0.1")]
        for one in found
    ]
    title = "SELM less DPO in every loop, log-linear, hard; in brackets: best responses found"
    return "\n".join(["", title, *lines([head, *body])])


def betas_table(found: list[dict[str, Any]]) -> str:
    head = ["beta", "DPO", *METHODS]
    body = [
        [str(one["beta"]), f"{one['dpo']['summed']:.2f} ({one['dpo']['found'][-1]:.2f})"]
        + [with_found(one[name]) for name in METHODS]
        for one in found
    ]
    title = "Over beta, XPO's loop with a noisy ranker; last iteration's KL regret after the slash"
    for line, one in zip(body, found, strict=True):
        for column, name in enumerate(("dpo", *METHODS), 1):
            line[column] += f" / {one[name]['kl_regret'][-1]:.2f}"
    return "\n".join(["", title, *lines([head, *body])])


def with_found(one: dict[str, Any]) -> str:
    return f"{cell(one)} ({one['found'][-1]:.2f})"
