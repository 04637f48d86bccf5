"""The optimism term of SELM: one pure function."""

import torch


def optimism_loss(
    explored_logps_B: torch.Tensor,
    ref_explored_logps_B: torch.Tensor,
    alpha: float,
    beta: float,
) -> torch.Tensor:
    """alpha * beta * (log pi(y|x) - log ref(y|x)), the second term of eq. 3.2 of arXiv 2405.19332.

    Added to a preference loss, it *lowers* the likelihood of what the reference already answers,
    so that probability moves towards responses which the reference leaves unexplored.

    Args:
        explored_logps_B: log pi(y|x), summed over the response's tokens, of y ~ ref(.|x).
        ref_explored_logps_B: the same under the reference; constant in the policy's parameters.

    Returns:
        One loss per row, shape (B,).
    """
    return alpha * beta * (explored_logps_B - ref_explored_logps_B)
