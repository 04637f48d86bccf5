"""Keys of other packages in a recipe: TRL's under `training`, vLLM's under `generation.vllm`."""

from selm.errors import UserError
from selm.recipe.names import unknown_key
from selm.recipe.schema import Generation, Recipe, Training
from selm.recipe.trl_keys import refuse_key, trl_keys, usable_keys
from selm.recipe.trl_values import check_together, trl_value
from selm.recipe.vllm_keys import VLLM_DECIDED_ELSEWHERE, vllm_keys, vllm_value


def with_foreign_keys(recipe: Recipe) -> Recipe:
    """The recipe with these keys' values in the types of their packages, or a UserError."""
    return recipe.model_copy(
        update={
            "generation": _generation(recipe.generation),
            "training": _training(recipe.training),
        }
    )


def _generation(generation: Generation) -> Generation:
    known = vllm_keys() if generation.vllm else {}
    usable = [key for key in known if key not in VLLM_DECIDED_ELSEWHERE]
    options = {}
    for key, value in generation.vllm.items():
        if known and key not in {*known, *VLLM_DECIDED_ELSEWHERE}:
            raise UserError(unknown_key(("generation", "vllm", key), usable))
        options[key] = vllm_value(key, value)
    return generation.model_copy(update={"vllm": options})


def _training(training: Training) -> Training:
    settings = {}
    for key, value in training.trl_overrides().items():
        refuse_key(key)
        if key not in trl_keys():
            names = [*Training.model_fields, *usable_keys()]
            raise UserError(unknown_key(("training", key), names))
        settings[key] = trl_value(key, value)
    return training.model_copy(update=check_together(settings))
