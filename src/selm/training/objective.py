"""The optimism terms: pure functions of log-probs. Imports no torch, so that plans can ask too.

Each is added to a preference loss. All have the sign of optimism: descent on them makes the
response that they read less likely. docs/method.md has them in one notation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from selm.recipe.schema import Recipe

if TYPE_CHECKING:
    import torch

    Loss = Callable[[torch.Tensor, torch.Tensor, float, float], torch.Tensor]


def optimism_loss(
    logps_B: "torch.Tensor", ref_logps_B: "torch.Tensor", alpha: float, beta: float
) -> "torch.Tensor":
    """alpha * beta * (log pi(y|x) - log ref(y|x)), the second term of eq. 3.2 of arXiv 2405.19332.

    It lowers the likelihood of what the reference already answers, so that probability moves
    towards responses which the reference leaves unexplored.

    Args:
        logps_B: log pi(y|x), summed over the response's tokens.
        ref_logps_B: the same under the reference; constant in the policy's parameters.

    Returns:
        One loss per row, shape (B,).
    """
    return alpha * beta * (logps_B - ref_logps_B)


def xpo_loss(
    logps_B: "torch.Tensor", _ref_logps_B: "torch.Tensor", alpha: float, _beta: float
) -> "torch.Tensor":
    """alpha * log pi(y|x), the first sum in the loss of Algorithm 1 of arXiv 2405.21046.

    There is no beta in it, and no reference: that would add a constant. TRL's experimental
    XPOTrainer has the same.
    """
    return alpha * logps_B


def geb_loss(
    logps_B: "torch.Tensor", _ref_logps_B: "torch.Tensor", alpha: float, _beta: float
) -> "torch.Tensor":
    """-alpha * arctanh(1 - pi(y|x)), a bonus under KL of arXiv 2510.03269 (alpha is its kappa).

    The bonus is u * f'(u) - f(u) for a u that falls with pi; with KL's f(u) = u * log u it is u
    itself. Of the paper's choices of u, pi and 1 / pi of a whole text have no gradient in floating
    point. This one is computed in logarithms, as 1/2 * (log pi - log(2 - pi)): its derivative by
    log pi is 1 / (2 - pi), one half for a text.
    """
    return 0.5 * alpha * (logps_B - (2 - logps_B.exp()).log())


@dataclass(frozen=True)
class Term:
    """One way to be optimistic.

    Attributes:
        loss: log pi (B,), log ref (B,), alpha, beta -> one loss per row (B,).
        reads: whose log-probs these are; an explored response may be a third one of a row.
        explorer: who wrote the explored response; the initial policy is the base model.
        source: in words.
    """

    loss: "Loss"
    reads: Literal["explored", "rejected"]
    explorer: Literal["policy", "initial"]
    source: str


# The keys are the values of `training.optimism`, without `none`.
TERMS = {
    "selm": Term(
        optimism_loss, "explored", "policy", "Self-Exploring Language Models, arXiv 2405.19332"
    ),
    "xpo": Term(
        xpo_loss, "explored", "initial", "Exploratory Preference Optimization, arXiv 2405.21046"
    ),
    "geb": Term(geb_loss, "rejected", "policy", "General Exploratory Bonus, arXiv 2510.03269"),
    # The value of the policy is -beta * E[log pi - log ref] over a calibration distribution, and
    # its optimistic form subtracts alpha times that. Here the distribution is the rejected ones.
    "vpo": Term(
        optimism_loss,
        "rejected",
        "policy",
        "Value-Incentivized Preference Optimization, arXiv 2405.19320, its online form",
    ),
}


def reads_explored(recipe: Recipe, t: int) -> bool:
    """Whether the training of iteration t reads the explored responses."""
    return recipe.alpha(t) > 0 and TERMS[recipe.training.optimism].reads == "explored"


def initial_explores(recipe: Recipe, t: int) -> bool:
    """Whether the base model answers for iteration t, too; in the first one it is the policy."""
    explorer = TERMS[recipe.training.optimism].explorer if recipe.alpha(t) > 0 else "policy"
    return t > 1 and explorer == "initial"
