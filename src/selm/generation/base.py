"""The interface of engines: token ids in, responses out.

Prompts reach an engine as token ids made by `selm.model.chat`, never as text, so that engines
add no BOS and render no template.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from selm.data.schemas import FinishReason
from selm.errors import UserError
from selm.recipe.schema import Generation, Model, Recipe

if TYPE_CHECKING:  # descriptions are read where nothing heavy is imported
    from lm_eval.api.model import LM

    from selm.cost.devices import Device
    from selm.cost.quantities import Memory
    from selm.model.chat import Chat
    from selm.model.shape import Shape


@dataclass(frozen=True)
class Response:
    """A policy's answer: "stop" if it ended by itself, "length" if max_tokens truncated it."""

    text: str
    finish_reason: FinishReason
    num_tokens: int


class Engine(Protocol):
    """A loaded policy."""

    chat: "Chat"
    max_prompt_tokens: int

    def generate(
        self,
        prompts: Sequence[list[int]],
        seeds: Sequence[int],
        temperatures: Sequence[float] | None = None,
    ) -> list[Response]:
        """One response per prompt, in order. A prompt's sample depends on its seed, and in fp32 not
        on the other prompts in the call; bf16 rounds by the batch.

        Args:
            temperatures: of each prompt; None: the recipe's for all of them.
        """
        ...


@dataclass(frozen=True)
class Harness:
    """A policy as lm-eval loads it, in the same engine as everywhere else.

    Attributes:
        model: lm-eval's own model.
        tokens_at_a_time: of texts whose log-probs it reads in one call, each padded to the longest;
            None if it sees to it itself.
    """

    model: "LM"
    tokens_at_a_time: int | None = None


def _no_harness(path: str, recipe: Recipe, longest_text: int | None) -> Harness:
    raise UserError(
        f"generation.engine: lm-eval has no model for {recipe.generation.engine}; measure with "
        "generation.engine=vllm or transformers"
    )


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
        packages: packages that must be installed beside those of every run.
        otherwise: what to do if they are not installed.
        wants_longest_prompt: whether `load` gets this length, for which all prompts are tokenized
            once more.
        harness: the policy as lm-eval loads it, by its path, the recipe and the length of the
            longest text with its answer, if `wants_longest_prompt`.
    """

    load: Callable[[str, Model, Generation, int | None], Engine]
    cost: "Callable[[Recipe, Device, Shape, float, float], tuple[Memory, float]]"
    options: Mapping[str, frozenset[str]] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    otherwise: str = ""
    wants_longest_prompt: bool = False
    harness: Callable[[str, Recipe, int | None], Harness] = _no_harness


def sample_seed(seed: int, iteration: int, prompt_id: str, sample: int) -> int:
    """The seed of one sample; it differs for each prompt, iteration and sample index."""
    text = f"{seed}/{iteration}/{prompt_id}/{sample}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6])
