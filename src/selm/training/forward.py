"""How log-probs are computed: the seam behind which they get fast.

A batch of B rows holds 2B + E sequences, E <= B: all chosen, all rejected, and the explored
responses that are neither. They go through the model in one forward.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from trl.trainer.dpo_trainer import DataCollatorForPreference

from selm.training.examples import ROLES

Batch = dict[str, torch.Tensor]

# What TRL's own computation of the pair reads from a batch.
PAIR_KEYS = ("input_ids", "attention_mask", "completion_mask")


@dataclass
class SELMCollator(DataCollatorForPreference):
    """Right-padded sequences in the order chosen (B), rejected (B), explored (E).

    Beside them `explored_role` (B,) and, once precomputed, the reference's log-probs (B,) each.
    """

    def torch_call(self, examples: list[dict[str, Any]]) -> Batch:
        """Rows of `examples.tokenize` in, tensors out."""
        third = [e for e in examples if e["explored_role"] == ROLES["neither"]]
        pairs = [(e["prompt_ids"], e["chosen_ids"]) for e in examples]
        pairs += [(e["prompt_ids"], e["rejected_ids"]) for e in examples]
        pairs += [(e["prompt_ids"], e["explored_ids"]) for e in third]
        batch = self._pad(pairs)
        batch["explored_role"] = torch.tensor([e["explored_role"] for e in examples])
        for key in ("ref_chosen_logps", "ref_rejected_logps", "ref_explored_logps"):
            if key in examples[0]:
                batch[key] = torch.tensor([e[key] for e in examples])
        return batch

    def _pad(self, sequences: Sequence[tuple[list[int], list[int]]]) -> Batch:
        """(prompt, response) pairs as input_ids, attention_mask and completion_mask."""
        width = max(len(prompt) + len(response) for prompt, response in sequences)
        multiple = self.pad_to_multiple_of or 1
        width = -(-width // multiple) * multiple
        shape = (len(sequences), width)
        input_ids = torch.full(shape, self.pad_token_id)
        attention_mask = torch.zeros(shape, dtype=torch.long)
        completion_mask = torch.zeros(shape, dtype=torch.long)
        for row, (prompt, response) in enumerate(sequences):
            end = len(prompt) + len(response)
            input_ids[row, :end] = torch.tensor(prompt + response)
            attention_mask[row, :end] = 1
            completion_mask[row, len(prompt) : end] = 1
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "completion_mask": completion_mask,
        }


def forward(model: torch.nn.Module, batch: Batch) -> Any:
    """One forward of all 2B + E sequences.

    Returns:
        TRL's output of the fused head: `log_probs` (2B + E, S - 1) and the tensors beside it.
    """
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    return model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        labels=labels,
        use_cache=False,
        fused_lm_head=True,
    )


def pair_part(batch: Batch, output: Any) -> tuple[Batch, Any]:
    """The first 2B sequences of a batch and of its output: what DPO's loss is computed from."""
    count = 2 * len(batch["explored_role"])
    pair = {key: batch[key][:count] for key in PAIR_KEYS}
    pair |= {key: batch[key] for key in ("ref_chosen_logps", "ref_rejected_logps")}
    tensors = {
        key: value[:count] if isinstance(value, torch.Tensor) and value.dim() == 2 else value
        for key, value in output.items()
    }
    missing = {"log_probs", "entropy", "mean_logits", "is_top1", "log_sum_sq_probs", "aux_loss"}
    return pair, SimpleNamespace(**dict.fromkeys(missing - tensors.keys()), **tensors)


def explored_logps(logps: torch.Tensor, explored_role: torch.Tensor) -> torch.Tensor:
    """Pick each row's explored log-prob; the chosen and the rejected one are not computed twice.

    Args:
        logps: (2B + E,), summed over response tokens.
        explored_role: (B,), see `ROLES`.

    Returns:
        (B,).

    >>> explored_logps(torch.tensor([-1., -2., -3., -4., -5.]), torch.tensor([1, 2]))
    tensor([-3., -5.])
    """
    rows = len(explored_role)
    third = explored_role == ROLES["neither"]
    place_of_third = 2 * rows + third.cumsum(0) - 1
    place_in_pair = torch.arange(rows, device=logps.device) + rows * explored_role
    return logps[torch.where(third, place_of_third, place_in_pair)]
