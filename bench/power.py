"""How many held-out prompts and seeds it takes to tell two settings apart.

    python bench/power.py runs/a-seed1 runs/a-seed2 runs/a-seed3 --other runs/b-seed1 runs/b-seed2
    python bench/power.py --spread 0.02 0.2 0.3 0.05

Finished runs of one setting, which differ in their seed, say how rewards vary; those of a second
setting also say how the difference varies over prompts. The noise is drawn anew from normal
distributions with these standard deviations, and `selm.compare.seeds.difference` decides.

The table shows how often its 95 % interval excludes zero. For a true difference of zero, which
is the first column, that is a mistake, and it should happen in 5 of 100 cases.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet

from selm.compare.seeds import difference


@dataclass(frozen=True)
class Spread:
    """Standard deviations of rewards.

    Attributes:
        seed: of a setting's mean over all prompts, between seeds.
        prompt: between prompts; the same in both settings, so that it cancels.
        interaction: what is left of one seed's reward of one prompt.
        gain: of the difference between the two settings, between prompts.
    """

    seed: float
    prompt: float
    interaction: float
    gain: float = 0.0


def components(values_SP: np.ndarray) -> tuple[float, float, float]:
    """Variances of seeds, of prompts and of what is left, by analysis of variance.

    Unbiased, but that negative estimates become zero. Of one setting, two seeds or more.
    """
    seeds, prompts = values_SP.shape
    of_seeds, of_prompts = values_SP.mean(1), values_SP.mean(0)
    rest = values_SP - of_seeds[:, None] - of_prompts + values_SP.mean()
    interaction = (rest**2).sum() / ((seeds - 1) * (prompts - 1))
    seed = of_seeds.var(ddof=1) - interaction / prompts
    prompt = of_prompts.var(ddof=1) - interaction / seeds
    return max(seed, 0.0), max(prompt, 0.0), interaction


def measured(a_SP: np.ndarray, b_SP: np.ndarray | None = None) -> Spread:
    """The spread of one setting's runs, or the mean of two settings' with that of their gain."""
    of_settings = [components(values) for values in (a_SP, b_SP) if values is not None]
    seed, prompt, interaction = np.sqrt(np.mean(of_settings, axis=0)).tolist()
    if b_SP is None:
        return Spread(seed, prompt, interaction)
    noise = of_settings[0][2] / len(a_SP) + of_settings[1][2] / len(b_SP)
    gain = (a_SP.mean(0) - b_SP.mean(0)).var(ddof=1) - noise
    return Spread(seed, prompt, interaction, float(np.sqrt(max(gain, 0.0))))


def pair_of_settings(
    spread: Spread, seeds: int, prompts: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rewards of two settings without a difference in the mean, each of shape (seeds, prompts)."""
    of_prompts = generator.normal(0, spread.prompt, prompts)
    gains = generator.normal(0, spread.gain, prompts)
    a_SP, b_SP = (
        generator.normal(0, spread.seed, (seeds, 1))
        + generator.normal(0, spread.interaction, (seeds, prompts))
        for _ in range(2)
    )
    return a_SP + of_prompts + gains, b_SP + of_prompts


def power(
    spread: Spread, seeds: int, prompts: int, gains: Sequence[float], repeats: int
) -> list[float]:
    """How often the test sees each true difference; for zero, how often it sees one by mistake.

    A true difference only shifts the interval, so all of them share the same noise.
    """
    generator = np.random.default_rng(0)
    intervals = []
    for _ in range(repeats):
        a_SP, b_SP = pair_of_settings(spread, seeds, prompts, generator)
        intervals.append(difference(a_SP, b_SP, paired_seeds=True).ci95)
    low, high = np.array(intervals, dtype=float).T  # no interval (None) is nan and sees nothing
    return [float(np.mean((low + gain > 0) | (high + gain < 0))) for gain in gains]


def rewards(runs: Sequence[Path], t: int | None) -> list[dict[str, float]]:
    """Prompt id -> reward after iteration t, or after the last one, of each run."""
    found = []
    for run in runs:
        files = {
            int(file.parts[-3].removeprefix("iter-")): file
            for file in run.glob("iter-*/evaluation/test.parquet")
        }
        if not files or t not in (None, *files):
            sys.exit(f"power.py: {run}: no such evaluation; name a finished run and --iteration")
        columns = pyarrow.parquet.read_table(files[max(files) if t is None else t]).to_pydict()
        found.append(dict(zip(columns["prompt_id"], columns["reward"], strict=True)))
    return found


def spread_of(runs: Sequence[Path], other: Sequence[Path], t: int | None) -> Spread:
    """What finished runs say about the spread, on the prompts that all of them evaluated."""
    settings = [rewards(each, t) for each in (runs, other) if each]
    common = sorted(set.intersection(*(set(run) for setting in settings for run in setting)))
    if min(len(common), *map(len, settings)) < 2:
        sys.exit("power.py: a spread takes two runs of each setting, with two prompts in common")
    return measured(*(np.array([[run[p] for p in common] for run in each]) for each in settings))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="*", help="finished runs of one setting")
    parser.add_argument("--other", type=Path, nargs="+", default=[], help="runs of another setting")
    parser.add_argument("--iteration", type=int, help="whose evaluation; the last by default")
    names = ("SEED", "PROMPT", "INTERACTION", "GAIN")
    parser.add_argument("--spread", type=float, nargs=4, metavar=names, help="instead of runs")
    parser.add_argument("--prompts", type=int, nargs="+", default=[120, 500, 2000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 10])
    parser.add_argument("--differences", type=float, nargs="+", default=[0.01, 0.02, 0.05])
    parser.add_argument("--repeats", type=int, default=1000)
    given = parser.parse_args()
    if bool(given.runs) == bool(given.spread):
        parser.error("name finished runs or give --spread")
    runs = (given.runs, given.other, given.iteration)
    spread = Spread(*given.spread) if given.spread else spread_of(*runs)
    print(f"{spread}; standard error of a share: {0.5 / given.repeats**0.5:.1%} at most\n")
    differences = [0.0, *given.differences]
    print("| seeds | prompts |", *(f"{gain:g} |" for gain in differences))
    print("|---|---|" + "---|" * len(differences))
    for seeds in given.seeds:
        for prompts in given.prompts:
            seen = power(spread, seeds, prompts, differences, given.repeats)
            print(f"| {seeds} | {prompts} |", *(f"{share:.0%} |" for share in seen), flush=True)


if __name__ == "__main__":
    main()
