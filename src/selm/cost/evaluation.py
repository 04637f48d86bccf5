"""What an evaluation takes: answers to the held-out split, and their scores."""

from selm.cost.devices import device_of
from selm.cost.generation import answers_cost
from selm.cost.quantities import Cost
from selm.cost.ranking import scores_cost
from selm.data.counting import held_out_rows
from selm.recipe.schema import Recipe


def cost(recipe: Recipe, t: int) -> Cost:
    """The estimate of `scripts/evaluate.py`; the base model's answers are compared with none."""
    rows = held_out_rows(recipe)
    answers = answers_cost(recipe, rows, samples=1)
    scores = scores_cost(recipe, recipe.held_out_ranking(), rows, pool=1 if t == 0 else 2)
    return Cost(
        rows=rows,
        tokens=answers.tokens + scores.tokens,
        memory=max(answers.memory, scores.memory, key=lambda memory: memory.total),
        disk_bytes=answers.disk_bytes,
        seconds=answers.seconds + scores.seconds - device_of(recipe).start_seconds,
    )
