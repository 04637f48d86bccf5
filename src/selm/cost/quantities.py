"""The quantities of an estimate, and what the estimates of all stages share."""

import math
from dataclasses import dataclass, field

from selm.data.counting import portion, train_rows
from selm.model.shape import Shape, shape_of
from selm.recipe.schema import Recipe

GB = 1e9
DISK_BYTES_PER_SECOND = 1e9
BYTES_PER_TOKEN_OF_TEXT = 5


@dataclass(frozen=True)
class Memory:
    """Peak bytes of one process, on its GPU if it has one."""

    weights: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    activations: float = 0.0
    cache: float = 0.0
    other: float = 0.0

    @property
    def total(self) -> float:
        return sum(vars(self).values())


@dataclass(frozen=True)
class Cost:
    """Estimate of one stage.

    disk_bytes: the size of its artifact. scratch_bytes: further disk space while it runs.
    """

    rows: int = 0
    tokens: float = 0.0
    memory: Memory = field(default_factory=Memory)
    disk_bytes: float = 0.0
    scratch_bytes: float = 0.0
    seconds: float = 0.0


def model_shape(recipe: Recipe) -> Shape:
    """The base model's shape, which is known: callers check with `estimate.unknown`."""
    shape = shape_of(recipe.model.name_or_path, recipe.model.revision)
    assert shape is not None
    return shape


def portion_rows(recipe: Recipe, t: int) -> int:
    """Rows of iteration t."""
    return len(portion(train_rows(recipe) or 0, t, len(recipe.iterations)))


def text_bytes(recipe: Recipe, rows: int, response_tokens: float) -> float:
    """Disk space of rows with a prompt and three responses: chosen, rejected and the policy's."""
    return BYTES_PER_TOKEN_OF_TEXT * rows * (recipe.estimate.prompt_tokens + 3 * response_tokens)


def longest_of(mean: float, n: float) -> float:
    """Expected length of the longest of n texts: 1 + ln(n) / 2 means.

    For an exponential distribution it would be about 1 + ln(n); lengths of texts vary less.

    >>> longest_of(100, 1)
    100.0
    """
    return mean * (1 + math.log(max(n, 1)) / 2)
