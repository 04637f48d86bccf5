"""Engines: token ids in, responses out. Two kinds behind one interface.

Prompts reach an engine as token ids made by `selm.model.chat`, never as text, so that no engine
adds a BOS or renders a template of its own.
"""

import hashlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from selm.errors import UserError
from selm.model.chat import Chat
from selm.recipe.schema import Generation, Model


@dataclass(frozen=True)
class Response:
    """What a policy answered: "stop" it ended by itself, "length" it was cut at max_tokens."""

    text: str
    finish_reason: str
    num_tokens: int


class Engine(Protocol):
    """A loaded policy."""

    chat: Chat
    max_prompt_tokens: int

    def generate(self, prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[Response]:
        """One response per prompt, in order. A seed decides its prompt's sample and nothing else:
        the result does not depend on which other prompts are in the call."""
        ...


def load_engine(
    path: str, model: Model, generation: Generation, longest_prompt: int | None = None
) -> Engine:
    """The policy at `path` (a checkpoint folder or the base model) in the recipe's engine.

    Args:
        longest_prompt: in tokens, of all that will come; vLLM plans its memory for it.
    """
    return _ENGINES[generation.engine](path, model, generation, longest_prompt)


NO_VLLM = (
    "generation.engine: vllm is not installed here; run `make setup VLLM=1`, or set "
    "generation.engine=transformers"
)


def check_engine(generation: Generation) -> None:
    """UserError if the engine's package is not there; loads nothing."""
    if generation.engine == "vllm" and importlib.util.find_spec("vllm") is None:
        raise UserError(NO_VLLM)


def _transformers(
    path: str, model: Model, generation: Generation, longest_prompt: int | None
) -> Engine:
    from selm.generation.transformers import TransformersEngine

    return TransformersEngine(path, model, generation)


def _vllm(path: str, model: Model, generation: Generation, longest_prompt: int | None) -> Engine:
    from selm.generation.vllm import VllmEngine

    return VllmEngine(path, model, generation, longest_prompt)


# Imported on use: vLLM is optional, and importing either takes seconds.
_ENGINES: dict[str, Callable[[str, Model, Generation, int | None], Engine]] = {
    "transformers": _transformers,
    "vllm": _vllm,
}


def sample_seed(seed: int, iteration: int, prompt_id: str, sample: int) -> int:
    """The seed of one sample: another one for each prompt, iteration and sample index."""
    text = f"{seed}/{iteration}/{prompt_id}/{sample}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6])
