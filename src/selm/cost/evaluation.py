"""Estimates of the evaluation: answers to the held-out split, and their scores."""

from selm.cost.generation import answers_cost
from selm.cost.quantities import Cost
from selm.cost.ranking import scores_cost
from selm.data.counting import held_out_rows
from selm.recipe.schema import Recipe


def answering_cost(recipe: Recipe, t: int) -> Cost:
    """The estimate of `scripts/answer.py`."""
    return answers_cost(recipe, held_out_rows(recipe), samples=1)


def scoring_cost(recipe: Recipe, t: int) -> Cost:
    """The estimate of `scripts/evaluate.py`; the base model's answers are not compared."""
    rows = held_out_rows(recipe)
    return scores_cost(recipe, recipe.held_out_ranking(), rows, pool=1 if t == 0 else 2)
