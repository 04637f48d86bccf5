"""A recipe becomes a bash script: comments, and one command per stage. Imports no torch."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from selm.recipe import Recipe, gradient_accumulation_steps, num_processes, portion

# Which script writes which artifact.
SCRIPTS = {
    "responses": "generate",
    "preferences": "rank",
    "checkpoint": "train",
    "evaluation": "evaluate",
    "report": "report",
}


@dataclass(frozen=True)
class Run:
    """A recipe as it was asked for: what a command line is made of."""

    recipe: Recipe
    path: str
    overrides: tuple[str, ...] = ()


def command(run: Run, kind: str, t: int | None) -> str:
    """The line that writes artifact `kind` of iteration t; paste it, edit it, queue it."""
    script = f"scripts/{SCRIPTS[kind]}.py"
    if kind == "checkpoint":
        training = run.recipe.training
        launcher = ["accelerate", "launch", "--config_file", training.accelerate_config]
        if training.num_processes is not None:
            launcher += ["--num_processes", str(training.num_processes)]
        words = [*launcher, "--quiet", script, run.path]  # the stage's own error is the one to read
    else:
        words = ["python", script, run.path]
    if t is not None:
        words += ["--iteration", str(t)]
    return shlex.join([*words, *run.overrides])


def evaluated_iterations(recipe: Recipe) -> list[int]:
    """0 is the base model; without `every_iteration` only the base and the last one."""
    last = len(recipe.iterations)
    return list(range(last + 1)) if recipe.evaluation.every_iteration else [0, last]


def stages(recipe: Recipe) -> list[tuple[str, int | None]]:
    """All stages in order, as (artifact kind, iteration).

    >>> stages(a recipe with iterations [dpo, selm])
    [("evaluation", 0), ("checkpoint", 1), ("evaluation", 1),
     ("responses", 2), ("preferences", 2), ("checkpoint", 2), ("evaluation", 2), ("report", None)]
    """
    evaluated = evaluated_iterations(recipe)
    order: list[tuple[str, int | None]] = [("evaluation", 0)]
    for t, iteration in enumerate(recipe.iterations, start=1):
        if iteration.objective != "dpo":
            order += [("responses", t), ("preferences", t)]
        order.append(("checkpoint", t))
        if t in evaluated:
            order.append(("evaluation", t))
    return [*order, ("report", None)]


def train_rows(recipe: Recipe) -> int | None:
    """Rows of the training split as far as the recipe says, after `data.limit`."""
    if recipe.data.train_rows is None:
        return None
    return min(recipe.data.train_rows, recipe.data.limit or recipe.data.train_rows)


def script(run: Run, done: Mapping[tuple[str, int | None], str] | None = None) -> str:
    """The whole plan as a bash script that stops at the first failure and says what to repeat.

    Args:
        done: stages to leave out, and what is said in their place.
    """
    recipe = run.recipe
    lines = [*_header(run)]
    for kind, t in stages(recipe):
        if t is not None and kind in ("responses", "checkpoint"):
            first_of_iteration = recipe.iteration(t).objective == "dpo" or kind == "responses"
            if first_of_iteration:
                lines += ["", *_iteration_comments(recipe, t)]
        if (kind, t) == ("evaluation", 0):
            lines += ["", "# the base model on the held-out split"]
        if kind == "report":
            lines += ["", "# tables and figures"]
        said = (done or {}).get((kind, t))
        lines.append(command(run, kind, t) if said is None else shlex.join(["echo", said]))
    return "\n".join(lines) + "\n"


def _header(run: Run) -> list[str]:
    recipe = run.recipe
    folder = Path(recipe.output_dir) / recipe.run_name
    again = shlex.join(["bash", "scripts/run.sh", run.path, *run.overrides])
    return [
        "#!/usr/bin/env bash",
        _comment(
            f"{recipe.run_name}: {len(recipe.iterations)} iterations from "
            f"{recipe.model.name_or_path} on {recipe.data.name_or_path}; all output in {folder}/"
        ),
        f"# {_batch_comment(recipe)}",
        "set -eE -o pipefail",
        _trap(again),
    ]


def _comment(text: str) -> str:
    """On one line, whatever the recipe's names hold."""
    return "# " + " ".join(text.split())


def _trap(again: str) -> str:
    """On failure: name the command that failed, and the one that goes on from there."""
    return f"""stopped() {{
  echo "stopped (exit $1) at: $2" >&2
  printf 'mend it, then repeat that command or go on with: %s\\n' {shlex.quote(again)} >&2
  exit "$1"
}}
trap 'stopped "$?" "$BASH_COMMAND"' ERR"""


def _batch_comment(recipe: Recipe) -> str:
    training, processes = recipe.training, num_processes(recipe)
    steps = gradient_accumulation_steps(recipe, processes)
    return (
        f"global batch {training.global_batch_size} = {processes} processes x "
        f"{training.per_device_train_batch_size} rows x {steps} accumulation steps; "
        f"alpha {training.alpha:g}, beta {training.beta:g}, reference {training.reference}"
    )


def _iteration_comments(recipe: Recipe, t: int) -> list[str]:
    iteration, last = recipe.iteration(t), len(recipe.iterations)
    text = f"iteration {t} of {last}: {iteration.objective}, lr {iteration.learning_rate:g}"
    text += f", alpha {recipe.alpha(t):g}"
    total = train_rows(recipe)
    if total is None:
        return [_comment(f"{text}, portion {t} of {last} of {recipe.data.train_split}")]
    rows = portion(total, t, last)
    batches = -(-len(rows) // recipe.training.global_batch_size)
    return [
        f"# {text}, rows {rows.start}..{rows.stop - 1} of {total:,} ({len(rows):,} rows, "
        f"{batches} optimizer steps)"
    ]
