"""The numbers of metrics.json: the results of a run."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from selm.data.schemas import EvaluationRow
from selm.ranking.kinds import kind_of
from selm.recipe.schema import Recipe
from selm.report import benchmarks
from selm.report.results import Results
from selm.report.statistics import bootstrap_ci95, paired_differences, win_rate
from selm.run.stages import describe

Metrics = dict[str, Any]


def metrics(recipe: Recipe, results: Results) -> Metrics:
    """What metrics.json holds; `seconds` are totals by stage, `judge` is the rewards' ranker."""
    seconds: Counter[str] = Counter()
    for (stage, _), manifest in results.manifests.items():
        seconds[describe(stage).script] += manifest["seconds"]
    ranker = recipe.held_out_ranking()
    pairwise = kind_of(ranker).pairwise
    base = results.evaluations[0]
    entries = [
        {"iteration": t, "objective": "base" if t == 0 else recipe.iteration(t).objective}
        | _measures(rows, base if t > 0 else None, pairwise)
        for t, rows in results.evaluations.items()
    ]
    of_benchmarks = benchmarks.entries(results.benchmarks, results.benchmark_rows)
    found: Metrics = {
        "run_name": recipe.run_name,
        "ranker": recipe.ranking.ranker,
        "judge": ranker.ranker,
        "model": recipe.model.name_or_path,
        "seconds": {stage: round(total, 1) for stage, total in seconds.items()},
        "iterations": entries,
    }
    return found | ({"benchmarks": of_benchmarks} if of_benchmarks else {})


def _measures(
    rows: Sequence[EvaluationRow], base: Sequence[EvaluationRow] | None, pairwise: bool
) -> Metrics:
    """One iteration's numbers; those against the base model are None for the base itself."""
    rewards = [row["reward"] for row in rows]
    found: Metrics = {
        "reward_mean": round(float(np.mean(rewards)), 6),
        "reward_ci95": bootstrap_ci95(rewards),
        "win_rate_vs_base": None,
        "paired_difference_vs_base": None,
        "paired_difference_ci95": None,
        "response_tokens_mean": round(float(np.mean([row["num_tokens"] for row in rows])), 2),
        "n": len(rows),
    }
    if base is not None:
        differences = paired_differences(rows, base, pairwise)
        wins = win_rate(rewards, [row["reward_of_base"] for row in rows])
        found["win_rate_vs_base"] = round(wins, 6)
        found["paired_difference_vs_base"] = round(float(np.mean(differences)), 6)
        found["paired_difference_ci95"] = bootstrap_ci95(differences)
    return found


def headline(metrics: Metrics) -> str:
    """One line: the base model's reward, the last iteration's, and their difference."""
    base, last = metrics["iterations"][0], metrics["iterations"][-1]
    interval = last["paired_difference_ci95"]
    interval = "" if interval is None else "95% interval [{:+.3f}, {:+.3f}], ".format(*interval)
    return (
        f"mean held-out reward {base['reward_mean']:.3f} (base) -> {last['reward_mean']:.3f} "
        f"(iteration {last['iteration']}), paired difference "
        f"{last['paired_difference_vs_base']:+.3f}, {interval}n = {last['n']}"
    )
