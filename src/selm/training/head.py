"""Runs the language model's head only where a response token is scored, and keeps no logits."""

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, linear

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
        dtype = hidden.dtype
        if torch.is_autocast_enabled(hidden.device.type):
            dtype = torch.get_autocast_dtype(hidden.device.type)
        return _LogProbs.apply(hidden[scored], self.weight, self.bias, targets, dtype)


class _LogProbs(torch.autograd.Function):
    """Log-probs of given tokens, one chunk of positions after another.

    Autograd would add the chunks' gradients of the weight in the dtype of the products, which is
    bf16 also under autocast. Here their sum is fp32, so it does not depend on the chunks' number.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """(N, d), (V, d), (V,) or None, (N,); dtype of the products. Returns (N,) in fp32."""
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.dtype = dtype
        parts = zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)
        weight, bias = _to(dtype, weight, bias)
        return torch.cat([_log_probs(part.to(dtype), weight, bias, goal) for part, goal in parts])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Compute each chunk again, now with its gradients."""
        hidden, weight, bias, targets = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1:3]
        head = _to(ctx.dtype, weight, bias)
        head = [
            t if t is None else t.detach().requires_grad_(w)
            for t, w in zip(head, wanted, strict=True)
        ]
        trained = [tensor for tensor in head if tensor is not None and tensor.requires_grad]
        of_hidden, sums = [], [torch.zeros((), device=hidden.device)] * len(trained)
        chunks = (tensor.split(CHUNK) for tensor in (hidden, targets, gradient))
        for part, goal, given in zip(*chunks, strict=True):
            part = part.detach().to(ctx.dtype).requires_grad_()
            with torch.enable_grad():
                log_probs = _log_probs(part, *head, goal)
            of_part, *of_head = torch.autograd.grad(log_probs, [part, *trained], given)
            of_hidden.append(of_part.to(hidden.dtype))
            sums = [_add(*both) for both in zip(sums, of_head, strict=True)]
        done = iter(sums)
        of_weight, of_bias = (next(done) if is_wanted else None for is_wanted in wanted)
        return torch.cat(of_hidden), of_weight, of_bias, None, None


def _add(total: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    """The sum in fp32, in place but for the first chunk."""
    return total.add_(more) if total.dim() else more.float()


def _to(dtype: torch.dtype, *tensors: torch.Tensor | None) -> list[torch.Tensor | None]:
    return [None if tensor is None else tensor.to(dtype) for tensor in tensors]


def _log_probs(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
) -> torch.Tensor:
    """Torch's fused form passes over the logits fewer times than gather and logsumexp do."""
    with torch.autocast(hidden.device.type, enabled=False):
        logits = linear(hidden, weight, bias).float()
        return -cross_entropy(logits, targets, reduction="none")
