"""Runs the language model's head only where a response token is scored, and keeps no logits."""

from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

CHUNK = 512  # positions whose logits exist at one time: 0.1 GB at a vocabulary of 49,152


def target_log_probs(
    head: torch.nn.Module, hidden: torch.Tensor, scored: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """log softmax(head(hidden[scored]))[targets], in fp32.

    The head is called as a module, so that adapters and the hooks of ZeRO and FSDP run. It is
    called once, because all processes gather sharded weights together, however many chunks each of
    them has. The backward pass computes logits again, so memory holds those of one chunk.

    Args:
        hidden: (T, d), every position of the row.
        scored: (N,), the positions that predict a token of a response.
        targets: (N,), that token.

    Returns:
        (N,).
    """
    logits_of: Callable[[torch.Tensor], torch.Tensor] = head.forward

    def log_probs(chunk: torch.Tensor, chunk_targets: torch.Tensor) -> torch.Tensor:
        """Torch's fused form passes over the logits fewer times than gather and logsumexp do."""
        return -cross_entropy(logits_of(chunk).float(), chunk_targets, reduction="none")

    def in_chunks(hidden: torch.Tensor) -> torch.Tensor:
        chunks = zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)
        return torch.cat([checkpoint(log_probs, *chunk, use_reentrant=False) for chunk in chunks])

    head.forward = in_chunks
    try:
        return head(hidden[scored])
    finally:
        head.forward = logits_of
