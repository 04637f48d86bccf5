"""The fast path through the model: a row of `layout.py`, attention that skips masked blocks, and
the head (`head.py`) only at response tokens.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from selm.training.flex import flex
from selm.training.head import ScoringHead
from selm.training.layout import Example

ATTENTION = "selm_shared_prefix"

Part = Sequence[torch.Tensor]  # query, key and value of a stretch of the row


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

    On CUDA this is FlexAttention, elsewhere torch's own attention, one block after another.

    Args:
        query: (1, heads, T, D); key and value may have fewer heads.
        examples: what `lay_out` returned, handed through `model(..., examples=...)`.

    Returns:
        (1, T, heads, D), and no weights.
    """
    if examples is None:
        raise ValueError(f"{ATTENTION} needs examples: it computes only batches of SELM")
    longest = max(e.prompt[1] - e.prompt[0] + b[1] - b[0] for e in examples for b in e.blocks)
    if sliding_window is not None and longest > sliding_window:
        raise ValueError(
            f"{longest} tokens exceed the sliding window of {sliding_window}: use padded"
        )
    compute = flex if query.device.type == "cuda" else by_blocks
    done = compute(query, key, value, examples, scaling, dropout)
    return done.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, attention)


def by_blocks(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    examples: Sequence[Example],
    scaling: float | None,
    dropout: float,
) -> torch.Tensor:
    """Torch's attention on one block after another; (1, heads, T, D)."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    dtype = query.dtype
    if query.device.type == "cpu":  # there bf16 is no faster, or its backward much slower
        query, key, value = query.float(), key.float(), value.float()
    # split, not slices: the gradient of every slice would be a whole row, mostly of zeros
    sizes = [end - start for e in examples for start, end in (e.prompt, *e.blocks)]
    parts = zip(*(x.split(sizes, dim=2) for x in (query, key, value)), strict=True)
    settings = {"scale": scaling, "dropout_p": dropout}
    done: list[torch.Tensor] = []
    for example in examples:
        prompt, first, *others = (next(parts) for _ in range(1 + len(example.blocks)))
        done.append(
            _causal(prompt, first, settings)
        )  # one square, which also gives the attention of the prompt
        done += [_block(prompt, block, settings) for block in others]
    return torch.cat(done, dim=2).to(dtype)


def _causal(prompt: Part, block: Part, settings: dict[str, Any]) -> torch.Tensor:
    """Prompt and block as one sequence."""
    query, key, value = (torch.cat(both, dim=2) for both in zip(prompt, block, strict=True))
    return scaled_dot_product_attention(query, key, value, is_causal=True, **settings)


def _block(prompt: Part, block: Part, settings: dict[str, Any]) -> torch.Tensor:
    """A further block, after the prompt's own attention is done, in the cheaper of two ways.

    Either half of (prompt + block) squared, which computes the prompt again, or block x (prompt +
    block) with a mask.
    """
    before, length = prompt[0].shape[2], block[0].shape[2]
    if before < length:
        return _causal(prompt, block, settings)[:, :, before:]
    mask = torch.ones(length, before + length, dtype=torch.bool, device=block[0].device)
    key, value = (torch.cat([prompt[i], block[i]], dim=2) for i in (1, 2))
    mask = mask.tril(before)  # the whole prompt, and no later position of the block
    return scaled_dot_product_attention(block[0], key, value, attn_mask=mask, **settings)


def prepare(model: PreTrainedModel) -> None:
    """Let `model(..., examples=, scored=, targets=)` return log-probs of targets, without logits.

    `scored` (N,): positions of the row; `targets` (N,): the token that each of them predicts. The
    result is `{"log_probs": (N,)}`, in fp32. It is part of the model's forward, because DDP, FSDP
    and ZeRO handle the forward. Without `scored` the forward is unchanged.
    """
    plain: Callable[..., Any] = model.forward
    usual_attention = model.config._attn_implementation

    def forward(*args: Any, scored: Any = None, targets: Any = None, **kwargs: Any) -> Any:
        if scored is None:
            model.config._attn_implementation = usual_attention
            try:
                return plain(*args, **kwargs)
            finally:
                model.config._attn_implementation = ATTENTION
        hidden = model.base_model(*args, use_cache=False, **kwargs).last_hidden_state[0]
        log_probs = model.get_output_embeddings()(hidden, scored, targets)
        return {"log_probs": log_probs}  # a dict: DDP looks for tensors in it

    model.set_output_embeddings(ScoringHead(model.get_output_embeddings()))
    model.set_attn_implementation(ATTENTION)
    model.forward = forward
