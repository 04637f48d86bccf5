"""One compilation by vLLM for all policies of a run.

vLLM compiles the model when it starts, which takes a minute on a GPU, and keeps the result under a
hash of its configuration (`VllmConfig.compute_hash`). The length of the longest sequence is part of
it, and so are the checkpoint's path and revision, which the compiled graph does not depend on: it
gets the weights as inputs. The other parts stay: the model's own config, dtype, vLLM's version.
"""

from copy import copy

from vllm.config import ModelConfig
from vllm.engine import arg_utils

_LEAST_TOKENS = 512


class PolicyConfig(ModelConfig):
    """A model's configuration whose hash does not say where its weights come from.

    A subclass, since vLLM's own processes of a tensor-parallel engine get it by its name.
    """

    def compute_hash(self) -> str:
        anywhere = copy(self)
        for name in ("model", "model_weights", "revision", "code_revision"):
            anywhere.__dict__[name] = ""
        return super(PolicyConfig, anywhere).compute_hash()


def share_compilations() -> None:
    """Let every engine that is made in this process have a `PolicyConfig`."""
    arg_utils.ModelConfig = PolicyConfig


def room(tokens: int, context: int) -> int:
    """`max_model_len` for sequences of so many tokens: few different ones, 512 times a power of 2.

    No longer sequence is generated because of it, and vLLM reserves memory for one sequence of this
    length only. Powers of two never cross the length from which a model scales its positions (4096
    for Phi-3), which a sequence of `tokens` does not reach.

    >>> room(300, 4096), room(1030, 4096), room(1500, 4096), room(3000, 3072)
    (512, 2048, 2048, 3072)
    """
    length = _LEAST_TOKENS
    while length < tokens:
        length *= 2
    return min(length, context)
