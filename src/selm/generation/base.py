"""What every engine is: token ids in, responses out.

Prompts reach an engine as token ids made by `selm.model.chat`, never as text, so that no engine
adds a BOS or renders a template of its own.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from selm.data.schemas import FinishReason
from selm.recipe.schema import Generation, Model, Recipe

if TYPE_CHECKING:  # descriptions are read where nothing heavy is imported
    from selm.cost.devices import Device
    from selm.cost.quantities import Memory
    from selm.model.chat import Chat
    from selm.model.shape import Shape


@dataclass(frozen=True)
class Response:
    """What a policy answered: "stop" it ended by itself, "length" it was cut at max_tokens."""

    text: str
    finish_reason: FinishReason
    num_tokens: int


class Engine(Protocol):
    """A loaded policy."""

    chat: "Chat"
    max_prompt_tokens: int

    def generate(self, prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[Response]:
        """One response per prompt, in order. A seed decides its prompt's sample and nothing else:
        the result does not depend on which other prompts are in the call."""
        ...


@dataclass(frozen=True)
class EngineKind:
    """What the rest of the code knows of an engine. Reading it imports neither torch nor vLLM.

    Attributes:
        load: the policy at a path (a checkpoint folder or the base model) in this engine, by model,
            generation and the length of the longest prompt that will come, if it is known.
        cost: estimate of the memory that it takes, and of its seconds for so many answers of so
            many tokens: by recipe, device, the model's shape, answers and tokens.
        options: keys of `generation` that only this engine reads, each a mapping of options; and
            which of those say only how the engine runs, not what it answers.
        packages: that must be installed, beside those that every run needs.
        otherwise: what to do where they are not.
        wants_longest_prompt: whether `load` is told it: every prompt is tokenised once more.
    """

    load: Callable[[str, Model, Generation, int | None], Engine]
    cost: "Callable[[Recipe, Device, Shape, float, float], tuple[Memory, float]]"
    options: Mapping[str, frozenset[str]] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    otherwise: str = ""
    wants_longest_prompt: bool = False


def sample_seed(seed: int, iteration: int, prompt_id: str, sample: int) -> int:
    """The seed of one sample: another one for each prompt, iteration and sample index."""
    text = f"{seed}/{iteration}/{prompt_id}/{sample}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6])
