"""The stages of a run. A stage has one name: that of the artifact which it writes."""

from dataclasses import dataclass
from typing import Literal

from selm.recipe.schema import Recipe
from selm.training.objective import initial_explores

# A stage of an iteration as (name, t): ("responses", 2). The report has none: ("report", None).
Entry = tuple[str, int | None]


@dataclass(frozen=True)
class Description:
    """The properties of a stage beside its name.

    Attributes:
        script: `generate` for scripts/generate.py; logs, locks and tables have this name, too.
        keeps: which unfinished work a stopped stage keeps.
        launched: run by `accelerate launch`, in several processes.
        split: the dataset's split behind its rows, which names its file of rows.
        policy: whose responses it writes, if the script's option `--policy` says so.
    """

    script: str
    keeps: Literal["shards", "saves", "nothing"]
    launched: bool = False
    split: Literal["train", "test"] = "train"
    policy: Literal["initial"] | None = None


BENCHMARKS = "benchmarks"  # the folder, and the first word of the names of benchmarks' stages

STAGES = {
    "responses": Description("generate", keeps="shards"),
    "initial_responses": Description("generate", keeps="shards", policy="initial"),
    "preferences": Description("rank", keeps="shards"),
    "checkpoint": Description("train", keeps="saves", launched=True),
    "answers": Description("answer", keeps="shards", split="test"),
    "evaluation": Description("evaluate", keeps="shards", split="test"),
    "logps": Description("logps", keeps="shards", split="test"),  # beside the run, see `stages`
    "report": Description("report", keeps="nothing"),
}


_OF_BENCHMARKS = {
    "answers": Description("answer", keeps="shards", split="test"),
    "results": Description("benchmark", keeps="shards", split="test"),
}


def describe(stage: str) -> Description:
    """The description of any stage, those of benchmarks among them."""
    return _OF_BENCHMARKS[stage.split("/")[-1]] if benchmark_of(stage) else STAGES[stage]


def benchmark_of(stage: str) -> str | None:
    """The benchmark that a stage belongs to.

    >>> benchmark_of("benchmarks/gsm8k/results"), benchmark_of("answers")
    ('gsm8k', None)
    """
    first, *rest = stage.split("/")
    return rest[0] if first == BENCHMARKS else None


def label(stage: str, t: int | None) -> str:
    """The name of a stage's logs and lock.

    >>> label("responses", 2), label("benchmarks/gsm8k/results", 2), label("report", None)
    ('iter-2-generate', 'iter-2-benchmark-gsm8k', 'report')
    """
    of_iteration = [] if t is None else [f"iter-{t}"]
    special = [each for each in (benchmark_of(stage), describe(stage).policy) if each is not None]
    return "-".join([*of_iteration, describe(stage).script, *special])


def name(stage: str, t: int | None) -> str:
    """The artifact's folder in the run's folder: `iter-2/responses`, `report`."""
    return stage if t is None else f"iter-{t}/{stage}"


def entry_of(name: str) -> tuple[str, int]:
    """The stage and the iteration of a folder that `name` names.

    >>> entry_of("iter-2/benchmarks/gsm8k/answers")
    ('benchmarks/gsm8k/answers', 2)
    """
    iteration, _, stage = name.partition("/")
    return stage, int(iteration.removeprefix("iter-"))


def stages(recipe: Recipe) -> list[Entry]:
    """All stages of the plan in order; `logps` and benchmarks are made beside it, where asked for.

    >>> stages(a recipe with iterations [dpo, selm])
    [("answers", 0), ("evaluation", 0), ("checkpoint", 1), ("answers", 1), ("evaluation", 1),
     ("responses", 2), ("preferences", 2), ("checkpoint", 2), ("answers", 2), ("evaluation", 2),
     ("report", None)]

    With XPO's optimism, iterations after the first have ("initial_responses", t), too.
    """
    evaluated = evaluated_iterations(recipe)
    order: list[Entry] = [("answers", 0), ("evaluation", 0)]
    for t, iteration in enumerate(recipe.iterations, start=1):
        if iteration.objective != "dpo":
            initial = [("initial_responses", t)] if initial_explores(recipe, t) else []
            order += [("responses", t), *initial, ("preferences", t)]
        order.append(("checkpoint", t))
        if t in evaluated:
            order += [("answers", t), ("evaluation", t)]
    return [*order, ("report", None)]


def benchmarked_iterations(recipe: Recipe) -> list[int]:
    """The iterations whose policies `benchmarks.iterations` names; 0 is the base model."""
    last, wanted = len(recipe.iterations), recipe.benchmarks.iterations
    named = {"all": range(last + 1), "last": [last]}
    return sorted(set(named[wanted] if isinstance(wanted, str) else wanted))


def evaluated_iterations(recipe: Recipe) -> list[int]:
    """0 is the base model; without `every_iteration` only the base and the last one."""
    last = len(recipe.iterations)
    return list(range(last + 1)) if recipe.evaluation.every_iteration else [0, last]
