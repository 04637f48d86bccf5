"""Which forward a training takes: the one rule that the trainer, the plan and the docs follow.

The setting, the model and the device that trains decide. How the training is spread out does not:
one process, DDP, ZeRO-3, FSDP2, LoRA and QLoRA take the same path. Imports no torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selm.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from selm.training.config import SELMConfig

# Model types whose shared path is tested against the padded one.
FAMILIES = ("llama", "mistral", "phi3", "qwen2", "qwen3")

# On a CPU attention goes block by block, on CUDA it is FlexAttention. Others have neither.
DEVICES = ("cpu", "cuda")

WHY_SHARED = "each prompt once, no padding"

# Whose modules are only layers: weights, norms, 4-bit weights, adapters, our head.
_LAYERS = ("torch.nn.", "bitsandbytes.", "peft.", "selm.training.head")


@dataclass(frozen=True)
class Facts:
    """What the rule needs to know of a model.

    family: `model_type` of its config.
    window: tokens of its sliding window; None: attention has no window.
    foreign: why its code may be another's than transformers'; None if it is transformers' own.
    """

    family: str
    window: int | None = None
    dropout: float = 0.0
    foreign: str | None = None


def choose(arguments: "SELMConfig", model: "PreTrainedModel") -> tuple[bool, str]:
    """Whether the trainer takes the shared path, and why.

    Raises:
        UserError: the recipe asks for `shared`, but this model cannot take that path.
    """
    return decide(
        arguments.forward,
        obstacle(
            facts_of(model),
            arguments.max_length,
            arguments.use_weighting,
            arguments.device.type,
        ),
    )


def decide(setting: str, why_not: str | None) -> tuple[bool, str]:
    """Whether `training.forward` leads to the shared path, and why.

    Args:
        why_not: what `obstacle` or the self-check found.

    >>> decide("auto", "attention is its own")
    (False, 'attention is its own')
    """
    if setting == "shared" and why_not:
        raise UserError(f"training.forward: shared does not work: {why_not}; set it to padded")
    if setting == "padded" or why_not:
        return False, why_not or "as the recipe says"
    return True, WHY_SHARED


def obstacle(model: Facts, max_length: int | None, use_weighting: bool, device: str) -> str | None:
    """Why a training cannot take the shared path; None if it can.

    Args:
        device: the type of the device that trains, not of the one where the weights lie before.
    """
    if model.foreign is not None:
        return model.foreign
    if model.family not in FAMILIES:
        return f"not tested with models of type {model.family}"
    if model.dropout:
        return (
            f"attention_dropout of {model.dropout:g} needs its own mask for each response, as in "
            "padded"
        )
    if model.window is not None and (max_length is None or max_length > model.window):
        return f"max_length {max_length} exceeds the sliding window of {model.window}"
    if use_weighting:
        return "use_weighting needs more than log-probs"
    return None if device in DEVICES else f"not tested on {device}"


def facts_of(model: "PreTrainedModel") -> Facts:
    """A class from another package may call itself llama and compute its own attention."""
    config = model.config.get_text_config()
    return Facts(
        family=config.model_type,
        window=getattr(config, "sliding_window", None),
        dropout=getattr(config, "attention_dropout", 0.0) or 0.0,
        foreign=_foreign(map(type, model.modules())),
    )


def _foreign(classes: Iterable[type]) -> str | None:
    found = next((each for each in classes if not _is_known(each.__module__)), None)
    if found is None:
        return None
    return f"{found.__name__} is not a class of transformers ({found.__module__})"


def _is_known(module: str) -> bool:
    """transformers.models, not transformers_modules, which is code from the Hub."""
    return module.startswith(("transformers.models.", "transformers.activations", *_LAYERS))
