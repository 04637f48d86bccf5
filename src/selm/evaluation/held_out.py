"""The held-out prompts: prompts of the recipe's test split, which every policy answers."""

from dataclasses import replace
from typing import TYPE_CHECKING

from selm.evaluation.base import Answering
from selm.recipe.schema import Recipe

if TYPE_CHECKING:  # `greedy` is used where nothing heavy is imported
    from selm.generation.respond import Answered


def greedy(recipe: Recipe) -> Recipe:
    """The recipe as evaluation generates with it: one greedy response per prompt."""
    settings = {"temperature": 0.0, "top_p": 1.0, "num_samples": 1}
    return recipe.model_copy(update={"generation": recipe.generation.model_copy(update=settings)})


def answer_held_out(asked: Answering) -> "Answered":
    """The policy's greedy answers, and the prompts without one."""
    from selm.data.portions import held_out_portion
    from selm.generation.respond import respond

    rows, dropped = held_out_portion(asked.recipe)
    recipe = greedy(asked.recipe)
    answered = respond(rows, asked.policy, recipe, asked.t, asked.folder, asked.what)
    return replace(answered, dropped=dropped + answered.dropped)
