"""The estimate of any stage of a plan, whether it fits, and the sum of all."""

from collections.abc import Sequence

from selm.cost import evaluation, generation, ranking, training
from selm.cost.devices import device_of
from selm.cost.quantities import GB, Cost, model_shape
from selm.data.counting import train_rows
from selm.model.shape import shape_of
from selm.recipe.places import is_local_path
from selm.recipe.schema import Recipe
from selm.training.batch import num_processes

ESTIMATES = {
    "responses": generation.cost,
    "initial_responses": generation.initial_cost,
    "preferences": ranking.cost,
    "checkpoint": training.cost,
    "answers": evaluation.answering_cost,
    "evaluation": evaluation.scoring_cost,
}


def unknown(recipe: Recipe) -> str | None:
    """Why there is no estimate, and how to get one; None if nothing is missing."""
    why = unknown_size(recipe)
    if why is None and train_rows(recipe) is None:
        return "the number of rows is unknown (data.train_rows says it)"
    return why


def unknown_size(recipe: Recipe) -> str | None:
    """Why there is no estimate for the model alone; None if its size is known."""
    model = recipe.model
    if shape_of(model.name_or_path, model.revision) is not None:
        return None
    revision = "" if model.revision == "main" else f" --revision {model.revision}"
    fetch = f"`hf download {model.name_or_path} config.json{revision}`, then plan again"
    where = "it has no config.json of a dense decoder"
    hint = where if is_local_path(model.name_or_path) else fetch
    return f"the size of {model.name_or_path} is unknown ({hint})"


def stage_cost(recipe: Recipe, stage: str, t: int | None) -> Cost:
    """The estimate of one stage of the plan; call it only if `unknown` is None."""
    if t is None:  # the report
        return Cost(seconds=device_of(recipe).start_seconds)
    return ESTIMATES[stage](recipe, t)


def processes_on_a_device(recipe: Recipe, stage: str) -> int:
    """Training processes share the memory of a CPU; each GPU holds one process."""
    shared = stage == "checkpoint" and recipe.estimate.device == "cpu"
    return num_processes(recipe) if shared else 1


def peak_bytes(recipe: Recipe, stage: str, t: int | None) -> float:
    """The memory that the stage needs on one device."""
    return stage_cost(recipe, stage, t).memory.total * processes_on_a_device(recipe, stage)


def fits(recipe: Recipe, stage: str, t: int | None) -> bool:
    return peak_bytes(recipe, stage, t) <= device_of(recipe).memory_gb * GB


def run_cost(recipe: Recipe, stages: Sequence[tuple[str, int | None]]) -> Cost:
    """The estimate of the run: seconds and disk, with resume points; memory of training."""
    costs = [stage_cost(recipe, stage, t) for stage, t in stages]
    trainings = [
        stage_cost(recipe, stage, t).memory for stage, t in stages if stage == "checkpoint"
    ]
    download = 0 if is_local_path(recipe.model.name_or_path) else 2 * model_shape(recipe).parameters
    return Cost(
        memory=max(trainings, key=lambda memory: memory.total),
        disk_bytes=download + sum(each.disk_bytes for each in costs),
        scratch_bytes=max(each.scratch_bytes for each in costs),
        seconds=sum(each.seconds for each in costs),
    )
