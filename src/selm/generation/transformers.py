"""The engine `transformers`, which runs anywhere; `transformers_engine.py` is it."""

from selm.generation.base import Engine, EngineKind
from selm.recipe.schema import Generation, Model


def _load(path: str, model: Model, generation: Generation, longest_prompt: int | None) -> Engine:
    from selm.generation.transformers_engine import TransformersEngine

    return TransformersEngine(path, model, generation)


TRANSFORMERS = EngineKind(load=_load)
