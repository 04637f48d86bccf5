"""The language model's head only where a response token is scored, without keeping its logits."""

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

CHUNK = 512  # positions whose logits exist at one time: 0.1 GB at a vocabulary of 49,152


def target_log_probs(
    head: torch.nn.Module, hidden: torch.Tensor, scored: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """log softmax(head(hidden[scored]))[targets], in fp32.

    The head is called as a module, so that adapters and the hooks of ZeRO and FSDP have their part.
    Its logits are computed again in the backward: memory is that of one chunk.

    Args:
        hidden: (T, d), every position of the row.
        scored: (N,), the positions that predict a token of a response.
        targets: (N,), that token.

    Returns:
        (N,).
    """
    chunks = zip(hidden[scored].split(CHUNK), targets.split(CHUNK), strict=True)
    return torch.cat(
        [checkpoint(_log_probs, head, *chunk, use_reentrant=False) for chunk in chunks]
    )


def _log_probs(head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """In torch's fused form: fewer passes over the logits than gather and logsumexp take."""
    return -cross_entropy(head(hidden).float(), targets, reduction="none")
