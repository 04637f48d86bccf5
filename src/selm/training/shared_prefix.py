"""The fast path: each prompt once, no padding, the head only where a response token is scored.

All examples of a batch lie one behind the other in a single row. An example is its prompt without
the last token, then one block per response that begins with that last token, so that each position
of a block predicts one token of its response:

    prompt[:-1] | prompt[-1] chosen[:-1] | prompt[-1] rejected[:-1] | prompt[-1] explored[:-1]

Positions restart after the prompt in every block, and a block sees its prompt and itself: each
response is computed as if it stood alone behind the prompt.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, PreTrainedModel

ATTENTION = "selm_shared_prefix"
HEAD_CHUNK = 512  # positions whose logits exist at one time: 0.1 GB at a vocabulary of 49,152


@dataclass(frozen=True)
class Example:
    """Where an example lies in the row: half-open ranges of the prompt and of each block."""

    prompt: tuple[int, int]
    blocks: tuple[tuple[int, int], ...]


def lay_out(
    prompts: Sequence[list[int]], responses: Sequence[Sequence[list[int]]]
) -> tuple[list[int], list[int], list[Example]]:
    """Token ids and positions of the row, and where each example lies in it.

    >>> lay_out([[5, 6]], [[[7, 8], [9]]])
    ([5, 6, 7, 6], [0, 1, 2, 1], [Example(prompt=(0, 1), blocks=((1, 3), (3, 4)))])
    """
    ids: list[int] = []
    positions: list[int] = []
    examples = []
    for prompt, texts in zip(prompts, responses, strict=True):
        start, shared = len(ids), len(prompt) - 1
        ids += prompt[:-1]
        positions += range(shared)
        blocks = []
        for text in texts:
            blocks.append((len(ids), len(ids) + len(text)))
            ids += [prompt[-1], *text[:-1]]
            positions += range(shared, shared + len(text))
        examples.append(Example((start, start + shared), tuple(blocks)))
    return ids, positions, examples


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    examples: Sequence[Example] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over a row of `lay_out`; masked blocks are not computed. For AttentionInterface.

    Args:
        query: (1, heads, T, D); key and value may have fewer heads.
        examples: what `lay_out` returned, handed through `model(..., examples=...)`.

    Returns:
        (1, T, heads, D), and no weights.
    """
    if examples is None:
        raise ValueError(f"{ATTENTION} needs examples: it computes nothing but batches of SELM")
    longest = max(e.prompt[1] - e.prompt[0] + b[1] - b[0] for e in examples for b in e.blocks)
    if sliding_window is not None and longest > sliding_window:
        raise ValueError(f"{longest} tokens, a sliding window of {sliding_window}: use padded")
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    dtype = query.dtype
    if query.device.type == "cpu":  # there the backward is several times slower in bf16
        query, key, value = query.float(), key.float(), value.float()
    settings = {"scale": scaling, "dropout_p": dropout}
    parts = [_attend(query, key, value, example, settings) for example in examples]
    return torch.cat(parts, dim=2).transpose(1, 2).to(dtype).contiguous(), None


AttentionInterface.register(ATTENTION, attention)


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    example: Example,
    settings: dict[str, Any],
) -> torch.Tensor:
    """One example: prompt and first block are one causal square, the others look back at it."""
    (start, end), (first, *others) = example.prompt, example.blocks
    square = slice(start, first[1])
    parts = [
        scaled_dot_product_attention(
            query[:, :, square],
            key[:, :, square],
            value[:, :, square],
            is_causal=True,
            **settings,
        )
    ]
    for block in others:
        own = slice(*block)
        mask = _lower_right(block[1] - block[0], end - start, query.device)
        keys, values = (torch.cat([x[:, :, start:end], x[:, :, own]], 2) for x in (key, value))
        parts.append(
            scaled_dot_product_attention(query[:, :, own], keys, values, attn_mask=mask, **settings)
        )
    return torch.cat(parts, dim=2)


def _lower_right(block: int, prompt: int, device: torch.device) -> torch.Tensor:
    """(block, prompt + block): all of the prompt, and what is not later within the block."""
    return torch.ones(block, prompt + block, dtype=torch.bool, device=device).tril(prompt)


def prepare(model: PreTrainedModel) -> None:
    """Let `model(..., examples=, scored=, targets=)` return log-probs of targets, without logits.

    `scored` (N,): positions of the row; `targets` (N,): the token that each of them predicts. The
    result is `{"log_probs": (N,)}`, in fp32. It is part of the model's forward, so that DDP, FSDP
    and ZeRO see one. Without `scored` the forward is what it was.
    """
    plain: Callable[..., Any] = model.forward
    usual_attention = model.config._attn_implementation

    def forward(*args: Any, scored: Any = None, targets: Any = None, **kwargs: Any) -> Any:
        if scored is None:
            with _attention(model, usual_attention):
                return plain(*args, **kwargs)
        hidden = model.base_model(*args, use_cache=False, **kwargs).last_hidden_state[0]
        head = model.get_output_embeddings()
        chunks = zip(hidden[scored].split(HEAD_CHUNK), targets.split(HEAD_CHUNK), strict=True)
        log_probs = [checkpoint(_log_probs, head, *c, use_reentrant=False) for c in chunks]
        return {"log_probs": torch.cat(log_probs)}  # a dict: DDP looks for tensors in it

    model.set_attn_implementation(ATTENTION)
    model.forward = forward


@contextmanager
def _attention(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    model.config._attn_implementation = implementation
    try:
        yield
    finally:
        model.config._attn_implementation = ATTENTION


def _log_probs(head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(N, d), (N,) -> (N,). Recomputed in the backward: the logits are not kept."""
    logits = head(hidden).float()
    return logits.gather(-1, targets[:, None])[:, 0] - logits.logsumexp(-1)
