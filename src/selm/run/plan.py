"""Turns a recipe into a bash script: comments, and one command per stage. Imports no torch."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selm import home
from selm.cost.devices import device_of
from selm.cost.estimate import (
    fits,
    peak_bytes,
    processes_on_a_device,
    run_cost,
    stage_cost,
    unknown,
    unknown_size,
)
from selm.cost.quantities import GB
from selm.cost.remedies import remedies
from selm.cost.training import forward_of
from selm.data.counting import portion, train_rows
from selm.recipe import extends
from selm.recipe.schema import Recipe, Training
from selm.run.stages import Entry, benchmark_of, describe, stages
from selm.training.batch import batch_arithmetic, num_processes


@dataclass(frozen=True)
class Run:
    """A recipe, its path and its overrides, as given on the command line."""

    recipe: Recipe
    path: str
    overrides: tuple[str, ...] = ()


def command(run: Run, stage: str, t: int | None) -> str:
    """The line that runs a stage of iteration t; paste it, edit it, queue it."""
    script = describe(stage).script
    if describe(stage).launched:
        training = run.recipe.training
        launcher = ["accelerate", "launch", "--config_file", training.accelerate_config]
        if training.num_processes is not None:
            launcher += ["--num_processes", str(training.num_processes)]
        # --quiet: the stage's own error is the one to read
        words = [*launcher, "--quiet", home.launched(script), run.path]
    else:
        words = [*home.words(script), run.path]
    if t is not None:
        words += ["--iteration", str(t)]
    benchmark = benchmark_of(stage)
    if benchmark is not None:
        words += ["--benchmark", benchmark]
    if describe(stage).policy is not None:
        words += ["--policy", str(describe(stage).policy)]
    return shlex.join([*words, *run.overrides])


def script(run: Run, done: Mapping[Entry, str] | None = None) -> str:
    """The whole plan as a bash script that stops at the first failure and says what to repeat.

    Args:
        done: stages to leave out, and the line to print in place of each.
    """
    return "\n".join([*_header(run), *stage_lines(run, stages(run.recipe), done)]) + "\n"


def stage_lines(
    run: Run,
    entries: Sequence[Entry],
    done: Mapping[Entry, str] | None = None,
    notes: Mapping[Entry, str] | None = None,
) -> list[str]:
    """The lines of these stages: comments, and the command of each.

    Args:
        done: stages to leave out, and the line to print in place of each.
        notes: what the comment before a command says beside its cost.
    """
    recipe, lines = run.recipe, list[str]()
    for stage, t in entries:
        if t is not None and stage in ("responses", "checkpoint"):
            first_of_iteration = recipe.iteration(t).objective == "dpo" or stage == "responses"
            if first_of_iteration:
                lines += ["", *_iteration_comments(recipe, t)]
        if (stage, t) == ("answers", 0):
            lines += ["", "# the base model on the held-out split"]
        if stage == "report":
            lines += ["", "# tables and figures"]
        said = (done or {}).get((stage, t))
        note = (notes or {}).get((stage, t), "")
        cost = ""
        if done is None and stage != "report" and unknown(recipe) is None:
            cost = _cost_text(recipe, stage, t)
        if cost or (note and said is None):
            lines.append(comment("; ".join(filter(None, (cost, note)))))
        lines.append(command(run, stage, t) if said is None else shlex.join(["echo", said]))
        if stage == "evaluation" and said is None and refreshes_report(recipe, t):
            words = [*home.words("report"), run.path, "--so-far", *run.overrides]
            lines.append(f'{shlex.join(words)} || goes_on "$?"')
    return lines


def refreshes_report(recipe: Recipe, t: int | None) -> bool:
    """Whether the report is written after the evaluation of t, to be read while the run goes on."""
    return t is not None and 0 < t < len(recipe.iterations)


def _header(run: Run) -> list[str]:
    recipe = run.recipe
    folder = Path(recipe.output_dir) / recipe.run_name
    return [
        "#!/usr/bin/env bash",
        comment(
            f"{recipe.run_name}: {len(recipe.iterations)} iterations from "
            f"{recipe.model.name_or_path} on {recipe.data.name_or_path}; all output in {folder}/"
        ),
        *map(comment, extends.described(run.path)),
        f"# {_batch_comment(recipe)}",
        *_hub_comment(recipe),
        *map(comment, (estimate(recipe), *warnings(run))),
        *stop_at_failure([*home.run_words(), run.path, *run.overrides]),
        GOES_ON,
    ]


def comment(text: str) -> str:
    """A comment on one line, whatever the names in the recipe contain."""
    return "# " + " ".join(text.split())


def stop_at_failure(again: list[str]) -> list[str]:
    """On failure, print the command that failed and `again`, which continues from there.

    An exit code above 128 comes from a signal, so there is nothing to fix.
    """
    trap = f"""stopped() {{
  echo "stopped (exit $1) at: $2" >&2
  how='fix the cause, then repeat that command or continue with'
  if [ "$1" -gt 128 ]; then how='continue with'; fi
  printf '%s: %s\\n' "$how" {shlex.quote(shlex.join(again))} >&2
  exit "$1"
}}
trap 'stopped "$?" "$BASH_COMMAND"' ERR"""
    return ["set -eE -o pipefail", trap]


# A report so far is not worth the hours until somebody sees that a run has stopped. A signal still
# stops the run: it was meant for all of it.
GOES_ON = """goes_on() {
  if [ "$1" -gt 128 ]; then stopped "$1" 'the report so far'; fi
  echo "the report so far failed (exit $1); the run goes on, and ends with a report of all" >&2
}"""


def _batch_comment(recipe: Recipe) -> str:
    training = recipe.training
    return (
        f"global batch {batch_arithmetic(recipe)}; "
        f"{_optimism(training)}, beta {training.beta:g}, reference {training.reference}"
        f"{_forward(recipe)}"
    )


def _optimism(training: Training) -> str:
    """`alpha 0.001`, with the name of the term if it is not SELM's."""
    alpha = f"alpha {training.alpha:g}"
    return alpha if training.optimism == "selm" else f"optimism {training.optimism}, {alpha}"


def _forward(recipe: Recipe) -> str:
    """`, forward shared`; nothing if the model is unknown, since it decides."""
    if unknown_size(recipe) is not None:
        return ""
    shared, why = forward_of(recipe)
    return ", forward shared" if shared else f", forward padded ({why})"


def estimate(recipe: Recipe) -> str:
    """What the whole run takes, and the assumptions behind this estimate."""
    why = unknown(recipe)
    if why is not None:
        return f"no estimates: {why}"
    total, given = run_cost(recipe, stages(recipe)), recipe.estimate
    hardware = device_of(recipe)
    disk = total.disk_bytes + total.scratch_bytes
    return (
        f"estimate: {time_text(total.seconds)}, {size_text(disk)} of disk, training takes "
        f"{size_text(total.memory.total)} of {hardware.memory_gb:.0f} GB of memory; on "
        f"{devices(recipe)} of {hardware.tflops:.3g} TFLOPS at {hardware.mfu:.0%}, with prompts "
        f"of {given.prompt_tokens} and responses of {given.response_tokens} tokens (estimate.*)"
    )


def devices(recipe: Recipe) -> str:
    device = recipe.estimate.device
    return "this CPU" if device == "cpu" else f"{num_processes(recipe)} x {device}"


def warnings(run: Run) -> list[str]:
    """One line for each stage that does not fit, with the overrides that make it fit."""
    recipe = run.recipe
    if unknown(recipe) is not None:
        return []
    largest: dict[str, Entry] = {}
    for entry in stages(recipe):
        other = largest.get(entry[0], entry)
        largest[entry[0]] = max(other, entry, key=lambda each: peak_bytes(recipe, *each))
    return [_warning(run, *entry) for entry in largest.values() if not fits(recipe, *entry)]


def _warning(run: Run, stage: str, t: int | None) -> str:
    recipe = run.recipe
    ways = [shlex.join(way) for way in remedies(run.path, run.overrides, stage, t)]
    need = size_text(peak_bytes(recipe, stage, t))
    return (
        f"WARNING: {describe(stage).script} will not fit: about {need} "
        f"where {recipe.estimate.device} has {device_of(recipe).memory_gb:.0f} GB; "
        f"this would fit: {' | '.join(ways) or 'a device with more memory (estimate.device)'}"
    )


def _cost_text(recipe: Recipe, stage: str, t: int | None) -> str:
    """`train: 15,284 rows, 14.1M tokens; 32 GB (weights 5.6, ...); disk 14 GB; 0.6 h`"""
    takes = stage_cost(recipe, stage, t)
    parts = {name: value for name, value in vars(takes.memory).items() if value >= 5e7}
    named = ", ".join(f"{name} {value / GB:.1f}" for name, value in parts.items())
    scratch = f" (+ {size_text(takes.scratch_bytes)} while it runs)" if takes.scratch_bytes else ""
    each = " per process" if processes_on_a_device(recipe, stage) > 1 else ""
    memory = f"{size_text(takes.memory.total)}{each} ({named})"
    return (
        f"{describe(stage).script}: {takes.rows:,} rows, {count_text(takes.tokens)} tokens; "
        f"{memory}; disk {size_text(takes.disk_bytes)}{scratch}; {time_text(takes.seconds)}"
    )


def size_text(size: float) -> str:
    """
    >>> [size_text(20e9), size_text(2.5e9), size_text(84e6)]
    ['20 GB', '2.5 GB', '84 MB']
    """
    if size < 1e9:
        return f"{size / 1e6:.0f} MB"
    return f"{size / 1e9:.0f} GB" if size >= 1e10 else f"{size / 1e9:.1f} GB"


def count_text(tokens: float) -> str:
    return f"{tokens / 1e6:.1f}M" if tokens >= 1e6 else f"{tokens:,.0f}"


def time_text(seconds: float) -> str:
    """
    >>> [time_text(40), time_text(600), time_text(9000)]
    ['40 s', '10 min', '2.5 h']
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _hub_comment(recipe: Recipe) -> list[str]:
    if not recipe.hub.push:
        return []
    visibility = "private" if recipe.hub.private else "PUBLIC"
    names = f"{recipe.hub.namespace}/{recipe.run_name}-*"
    return [comment(f"what is finished is pushed to the Hub as {visibility} {names}")]


def _iteration_comments(recipe: Recipe, t: int) -> list[str]:
    iteration, last = recipe.iteration(t), len(recipe.iterations)
    text = f"iteration {t} of {last}: {iteration.objective}, lr {iteration.learning_rate:g}"
    text += f", alpha {recipe.alpha(t):g}"
    total = train_rows(recipe)
    if total is None:
        return [comment(f"{text}, portion {t} of {last} of {recipe.data.train_split}")]
    rows = portion(total, t, last)
    batches = -(-len(rows) // recipe.training.global_batch_size)
    return [
        f"# {text}, rows {rows.start}..{rows.stop - 1} of {total:,} ({len(rows):,} rows, "
        f"{batches} optimizer steps)"
    ]
