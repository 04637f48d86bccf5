"""Runs the language model's head only where a response token is scored, and keeps no logits."""

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

CHUNK = 512  # positions whose logits exist at one time: 0.1 GB at a vocabulary of 49,152


class ScoringHead(torch.nn.Linear):
    """A language model's head, with the same parameters, that can also score given tokens.

    It does so in one call as a module, so that the hooks of ZeRO and FSDP run once: all processes
    gather sharded weights together, however many chunks each of them has.
    """

    def __init__(self, head: torch.nn.Linear) -> None:
        super().__init__(head.in_features, head.out_features, device="meta")
        self.weight, self.bias = head.weight, head.bias

    def forward(
        self,
        hidden: torch.Tensor,
        scored: torch.Tensor | None = None,
        targets: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The logits of all positions; with `targets` log softmax(logits[scored])[targets] in fp32.

        The backward pass computes logits again, so memory holds those of one chunk.

        Args:
            hidden: (..., T, d); with `targets` (T, d), every position of the row.
            scored: (N,), the positions that predict a token of a response.
            targets: (N,), that token.

        Returns:
            (..., T, V); with `targets` (N,).
        """
        if scored is None or targets is None:
            return super().forward(hidden)
        chunks = zip(hidden[scored].split(CHUNK), targets.split(CHUNK), strict=True)
        done = [checkpoint(self._log_probs, *chunk, use_reentrant=False) for chunk in chunks]
        return torch.cat(done)

    def _log_probs(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Torch's fused form passes over the logits fewer times than gather and logsumexp do."""
        logits = super().forward(hidden).float()
        return -cross_entropy(logits, targets, reduction="none")
