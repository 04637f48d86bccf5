"""The plan of a recipe's benchmarks: a bash script with one command per policy and group."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from selm import home
from selm.cost.benchmarks import cost, start_seconds, workload
from selm.cost.devices import device_of
from selm.cost.estimate import unknown_size
from selm.errors import UserError
from selm.ranking.kinds import kind_of, label
from selm.recipe.schema import Recipe
from selm.run.benchmarks import groups
from selm.run.plan import Run, command, comment, count_text, devices, stop_at_failure, time_text
from selm.run.stages import Entry, benchmarked_iterations


def script(run: Run, done: Mapping[Entry, str] | None = None) -> str:
    """The whole plan; UserError if the recipe names no benchmarks.

    Args:
        done: stages to leave out, and the line to print in place of each.
    """
    recipe = run.recipe
    if not recipe.benchmarks.names:
        raise UserError(f"benchmarks.names: {run.path} names none; see docs/evaluation.md")
    lines = _header(run)
    if done is None and unknown_size(recipe) is None:
        lines += ["", "# for each policy", *(_cost(recipe, n) for n in recipe.benchmarks.names)]
    for t in benchmarked_iterations(recipe):
        lines += ["", f"# iteration {t}" if t else "# the base model"]
        for names in groups(recipe.benchmarks.names):
            lines += _group(run, t, names, done)
    report = (done or {}).get(("report", None))
    lines += ["", "# tables and figures"]
    lines.append(command(run, "report", None) if report is None else shlex.join(["echo", report]))
    return "\n".join(lines) + "\n"


def group_command(run: Run, t: int, names: Sequence[str]) -> str:
    """The line that measures policy t with benchmarks of one group."""
    words = [*home.words("benchmark"), run.path, "--iteration", str(t)]
    return shlex.join([*words, "--benchmark", ",".join(names), *run.overrides])


def _group(run: Run, t: int, names: Sequence[str], done: Mapping[Entry, str] | None) -> list[str]:
    entries = {name: (f"benchmarks/{name}/results", t) for name in names}
    said = [shlex.join(["echo", done[e]]) for e in entries.values() if done and e in done]
    missing = [name for name, entry in entries.items() if not done or entry not in done]
    return [*said, *([group_command(run, t, missing)] if missing else [])]


def _cost(recipe: Recipe, name: str) -> str:
    """`# mt_bench: 80 questions, 0.1M tokens, 160 requests to the judge (0.2M tokens); 4 min`"""
    load, takes = workload(recipe, name), cost(recipe, name)
    asked = ""
    if load.requests:
        tokens = count_text(load.requests * load.request_tokens)
        asked = f", {load.requests:,} requests to the judge ({tokens} tokens)"
    return (
        f"# {name}: {load.questions:,} questions, {count_text(takes.tokens)} tokens{asked}; "
        f"{time_text(takes.seconds)}"
    )


def _header(run: Run) -> list[str]:
    recipe = run.recipe
    names, iterations = recipe.benchmarks.names, benchmarked_iterations(recipe)
    folder = Path(recipe.output_dir) / recipe.run_name
    again = [*home.run_words(), "--benchmarks", run.path, *run.overrides]
    about = (
        f"{recipe.run_name}: {', '.join(names)} of iterations "
        f"{', '.join(map(str, iterations))}; all output in {folder}/iter-*/benchmarks/"
    )
    return [
        "#!/usr/bin/env bash",
        *map(comment, (about, _judge(recipe), _estimate(recipe))),
        *stop_at_failure(again),
    ]


def _judge(recipe: Recipe) -> str:
    judge = recipe.benchmark_judge()
    where = f" at {judge.judge.base_url}" if kind_of(judge).asker is not None else ""
    return f"judge of the answers: {label(judge)}{where} ({judge.section})"


def _estimate(recipe: Recipe) -> str:
    why = unknown_size(recipe)
    if why is not None:
        return f"no estimates: {why}"
    policies = len(benchmarked_iterations(recipe))
    loads = [workload(recipe, name) for name in recipe.benchmarks.names]
    takes = [cost(recipe, name) for name in recipe.benchmarks.names]
    # By itself each loads the policy; those of a group load it once.
    once = sum(len(group) - 1 for group in groups(recipe.benchmarks.names)) * start_seconds(recipe)
    seconds = policies * (sum(each.seconds for each in takes) - once)
    requests = policies * sum(load.requests for load in loads)
    asked = policies * sum(load.requests * load.request_tokens for load in loads)
    judged = f", without {requests:,} requests to the judge ({count_text(asked)} tokens)"
    hardware = device_of(recipe)
    return (
        f"estimate: {time_text(seconds)}, "
        f"{count_text(policies * sum(each.tokens for each in takes))} tokens"
        f"{judged if requests else ''}; on {devices(recipe)} of {hardware.tflops:.3g} TFLOPS at "
        f"{hardware.mfu:.0%}, with responses of {recipe.estimate.response_tokens} tokens "
        "(estimate.*)"
    )
