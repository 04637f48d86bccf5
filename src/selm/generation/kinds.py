"""The kinds of engines: each one is a file beside this one and a line here."""

import importlib.util

from selm.errors import UserError
from selm.generation.base import Engine, EngineKind
from selm.generation.transformers import TRANSFORMERS
from selm.generation.vllm import VLLM
from selm.recipe.schema import Generation, Model

KINDS: dict[str, EngineKind] = {
    "vllm": VLLM,
    "transformers": TRANSFORMERS,
}


def load_engine(
    path: str, model: Model, generation: Generation, longest_prompt: int | None = None
) -> Engine:
    """The policy at `path` (a checkpoint folder or the base model) in the recipe's engine."""
    check_engine(generation)
    return KINDS[generation.engine].load(path, model, generation, longest_prompt)


def check_engine(generation: Generation) -> None:
    """UserError if the engine's package is not installed; loads nothing."""
    kind = KINDS[generation.engine]
    for package in kind.packages:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"generation.engine: {package} is not installed; {kind.otherwise}")
