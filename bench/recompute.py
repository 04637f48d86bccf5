"""Recompute the numbers of a comparison from the runs' parquet files, without the code of selm.

    python bench/recompute.py runs/compare/compare.json

Reads which runs are which setting from compare.json, and all numbers from the rows of the runs'
evaluations (runs in folders, not on the Hub). Plain loops, pyarrow for the files, and numerical
integration for Student's t. Prints how many numbers were compared and the largest deviation; exits
with 1 if one is above 2e-6, for numbers that are rounded to six decimals.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet

TOLERANCE = 2e-6


class Check:
    """Counts what was compared."""

    def __init__(self):
        self.count, self.worst, self.wrong = 0, 0.0, []

    def same(self, what, found, wanted, tolerance=TOLERANCE):
        if found is None or wanted is None:
            off = 0.0 if found is wanted else math.inf
        elif isinstance(found, list):
            for a, b in zip(found, wanted, strict=True):
                self.same(what, a, b, tolerance)
            return
        else:
            off = abs(found - wanted)
        self.count += 1
        if tolerance == TOLERANCE:
            self.worst = max(self.worst, off)
        if off > tolerance:
            self.wrong.append(f"{what}: {found} instead of {wanted}")


def student(freedom, points=4_001):
    """The 0.975-quantile: the density summed by Simpson's rule, the quantile found by halving."""
    log_c = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    c = math.exp(log_c) / math.sqrt(freedom * math.pi)

    def below(t):
        x = np.linspace(0.0, t, points)
        y = c * (1 + x * x / freedom) ** (-(freedom + 1) / 2)
        return 0.5 + t / (points - 1) / 3 * (
            y[0] + y[-1] + 4 * y[1:-1:2].sum() + 2 * y[2:-1:2].sum()
        )

    low, high = 1.9, 13.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < 0.975 else (low, middle)
    return low


def seeds_part(rows, cells):
    """Variance of the seeds' mean and its wider estimate; rows: a list of values per seed."""
    seeds, prompts = len(rows), len(rows[0])
    whole = sum(map(sum, rows)) / seeds / prompts
    of_seed = [sum(row) / prompts for row in rows]
    of_prompt = [sum(row[p] for row in rows) / seeds for p in range(prompts)]
    between = prompts * sum((mean - whole) ** 2 for mean in of_seed) / (seeds - 1)
    rest = sum(
        (rows[s][p] - of_seed[s] - of_prompt[p] + whole) ** 2
        for s in range(seeds)
        for p in range(prompts)
    ) / ((seeds - 1) * (prompts - 1))
    return max(between - rest, 0) / cells, 4 * max(between - rest / 2, 0) / cells, seeds - 1


def prompts_part(values):
    prompts = len(values)
    mean = sum(values) / prompts
    variance = sum((value - mean) ** 2 for value in values) / (prompts - 1) / prompts
    return variance, variance, prompts - 1


def interval(mean, parts):
    error = math.sqrt(sum(part[0] for part in parts))
    if error == 0:
        return [mean, mean]
    freedom = sum(part[1] for part in parts) ** 2 / sum(part[1] ** 2 / part[2] for part in parts)
    half = error * student(max(freedom, min(part[2] for part in parts)))
    return [mean - half, mean + half]


def of_one(rows):
    """Mean and interval of values, a list for each seed."""
    seeds, prompts = len(rows), len(rows[0])
    of_prompt = [sum(row[p] for row in rows) / seeds for p in range(prompts)]
    mean = sum(of_prompt) / prompts
    if prompts == 1:
        return mean, None
    parts = [prompts_part(of_prompt)]
    return mean, interval(mean, parts + ([seeds_part(rows, seeds * prompts)] if seeds > 1 else []))


def of_two(rows, others, paired):
    """Mean difference and interval."""
    prompts = len(rows[0])
    if paired:
        pairs = zip(rows, others, strict=True)
        return of_one([[a - b for a, b in zip(*pair, strict=True)] for pair in pairs])
    gaps = [
        sum(row[p] for row in rows) / len(rows) - sum(row[p] for row in others) / len(others)
        for p in range(prompts)
    ]
    mean = sum(gaps) / prompts
    if prompts == 1:
        return mean, None
    parts = [prompts_part(gaps)]
    for own, other in ((rows, others), (others, rows)):
        source = own if len(own) > 1 else other
        if len(source) > 1:
            parts.append(seeds_part(source, len(own) * prompts))
    return mean, interval(mean, parts)


def won(rows, others):
    """Percent of prompts that the first wins, over all pairs of seeds."""
    points = total = 0
    for a in rows:
        for b in others:
            for x, y in zip(a, b, strict=True):
                points += 1.0 if x > y else 0.5 if x == y else 0.0
                total += 1
    return 100 * points / total


def read(found):
    """Setting -> iteration -> seed -> prompt id -> row."""
    tables = {}
    for run in found["runs"]:
        for t in run["iterations"]:
            path = Path(run["folder"], f"iter-{t}", "evaluation", "test.parquet")
            rows = {row["prompt_id"]: row for row in pyarrow.parquet.read_table(path).to_pylist()}
            tables.setdefault(run["setting"], {}).setdefault(t, {})[run["seed"]] = rows
    return tables


def main(path):
    found, check = json.loads(Path(path).read_text(encoding="utf-8")), Check()
    tables = read(found)
    every = [rows for ts in tables.values() for seeds in ts.values() for rows in seeds.values()]
    common = sorted(set.intersection(*map(set, every)))
    check.same("prompts", found["prompts"], len(common))

    def values(setting, t, column="reward"):
        seeds = tables[setting][t]
        return [[float(seeds[seed][p][column]) for p in common] for seed in sorted(seeds)]

    policies, lasts = {}, {}
    for entry in found["settings"]:
        name = entry["name"]
        for step in entry["iterations"]:
            t = lasts[name] = step["iteration"]
            rows, what = values(name, t), f"{name}, iteration {t}"
            mean, ends = of_one(rows)
            check.same(f"{what}: reward", step["reward_mean"], mean)
            check.same(f"{what}: interval", step["reward_ci95"], ends)
            check.same(f"{what}: seeds", step["seeds"], len(rows))
            tokens = np.mean(values(name, t, "num_tokens"))
            check.same(f"{what}: tokens", step["response_tokens_mean"], tokens, 0.006)
            spread = float(np.std(np.mean(rows, axis=1), ddof=1)) if len(rows) > 1 else None
            check.same(f"{what}: sd", step["reward_sd_over_seeds"], spread)
            if t > 0:
                policies[what] = rows
                column = "reward_of_base" if found["pairwise"] else "reward"
                of_base = values(name, t if found["pairwise"] else 0, column)
                gain, ends = of_two(rows, of_base, True)
                check.same(f"{what}: gain", step["difference_from_base"], gain)
                check.same(f"{what}: gain's", step["difference_from_base_ci95"], ends)
            else:
                policies.setdefault("base", rows)
    for entry in found["differences"]:
        a, b = entry["a"], entry["b"]
        paired = sorted(tables[a][lasts[a]]) == sorted(tables[b][lasts[b]])
        mean, ends = of_two(values(a, lasts[a]), values(b, lasts[b]), paired)
        check.same(f"{a} - {b}", entry["mean"], mean)
        check.same(f"{a} - {b}: interval", entry["ci95"], ends)
    labels, matrix = found["win_rates"]["labels"], found["win_rates"]["matrix"]
    for i, row in enumerate(labels):
        for j, column in enumerate(labels):
            wanted = 50.0 if i == j else won(policies[row], policies[column])
            check.same(f"{row} vs. {column}", matrix[i][j], wanted, 1e-4)
    print(*check.wrong, f"{check.count} numbers, largest deviation {check.worst:.1e}", sep="\n")
    return check


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1]).wrong else 0)
