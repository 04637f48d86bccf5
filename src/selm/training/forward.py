"""How log-probs are computed, on a fast path or as in TRL.

A batch of B rows holds 2B + E sequences, E <= B: all chosen, all rejected, and the explored
responses that are neither. They go through the model in one forward, on one of two paths: `padded`
is TRL's computation; `shared` computes each prompt once and has no padding. `choice.py` decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from transformers import PretrainedConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference

from selm.errors import UserError
from selm.training.config import SELMConfig
from selm.training.examples import ROLES, TokenRow
from selm.training.layout import lay_out

Batch = dict[str, Any]

# Metrics of TRL that cannot be computed from log-probs.
METRICS_OF_LOGITS = ("entropy", "logits/chosen", "logits/rejected", "mean_token_accuracy")

# The keys of a batch that TRL reads to compute the loss of the pair.
PAIR_KEYS = ("input_ids", "attention_mask", "completion_mask")


@dataclass
class SELMCollator(DataCollatorForPreference):
    """Examples to tensors. Sequences are in the order chosen (B), rejected (B), explored (E).

    Padded: one (prompt, response) per sequence, as in TRL. Shared: the row of `layout`, and for
    TRL's losses the responses without prompts, padded after one empty column. Both also have
    `explored_role` (B,) and, once precomputed, the reference's log-probs, (B,) each.
    """

    shared: bool = False

    def torch_call(self, examples: Sequence[TokenRow]) -> Batch:
        """Rows of `examples.tokenize` in, tensors out."""
        batch = self._shared(examples) if self.shared else self._pad(in_order(examples))
        batch["explored_role"] = torch.tensor([e["explored_role"] for e in examples])
        for key in ("ref_chosen_logps", "ref_rejected_logps", "ref_explored_logps"):
            if key in examples[0]:
                batch[key] = torch.tensor([e[key] for e in examples])
        return batch

    def _shared(self, examples: Sequence[TokenRow]) -> Batch:
        responses = [[e["chosen_ids"], e["rejected_ids"]] for e in examples]
        for of_example, e in zip(responses, examples, strict=True):
            of_example += [e["explored_ids"]] if _has_third(e) else []
        row, positions, layout = lay_out([e["prompt_ids"] for e in examples], responses)
        blocks = [e.blocks[which] for which in range(3) for e in layout if len(e.blocks) > which]
        batch = self._pad([([self.pad_token_id], ids) for _, ids in in_order(examples)])
        return batch | {
            # TRL counts these as the tokens of a batch
            "attention_mask": torch.ones(1, len(row), dtype=torch.long),
            "row_ids": torch.tensor([row]),
            "row_positions": torch.tensor([positions]),
            "scored": torch.cat([torch.arange(*block) for block in blocks]),
            "layout": layout,
        }

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


def _has_third(example: TokenRow) -> bool:
    """Whether the explored response is neither the chosen nor the rejected one."""
    return example["explored_role"] == ROLES["neither"]


def in_order(examples: Sequence[TokenRow]) -> list[tuple[list[int], list[int]]]:
    """(prompt, response) of every sequence of a batch."""
    return [
        *((e["prompt_ids"], e["chosen_ids"]) for e in examples),
        *((e["prompt_ids"], e["rejected_ids"]) for e in examples),
        *((e["prompt_ids"], e["explored_ids"]) for e in examples if _has_third(e)),
    ]


def forward(model: torch.nn.Module, batch: Batch, router: bool = False) -> Any:
    """One forward of all 2B + E sequences.

    Args:
        router: for a mixture of experts: also compute its load-balancing loss, over all sequences.

    Returns:
        `log_probs` (2B + E, S - 1) of response tokens, and 0 elsewhere; S is the width of
        `completion_mask`. The padded path also returns the other outputs of TRL's fused head.
    """
    responses = batch["completion_mask"] == 1
    if "layout" not in batch:
        labels = batch["input_ids"].masked_fill(~responses, -100)
        return model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            labels=labels,
            use_cache=False,
            fused_lm_head=True,
            **({"output_router_logits": True} if router else {}),
        )
    output = model(
        input_ids=batch["row_ids"],
        position_ids=batch["row_positions"],
        examples=batch["layout"],
        scored=batch["scored"],
        targets=batch["input_ids"][responses],
    )
    place = responses[:, 1:]
    log_probs = torch.zeros(place.shape, device=place.device)
    return SimpleNamespace(log_probs=log_probs.masked_scatter(place, output["log_probs"]))


def pair_part(batch: Batch, output: Any) -> tuple[Batch, Any]:
    """The first 2B sequences of a batch and of its output, from which DPO's loss is computed.

    Fields that were not computed are zeros; the trainer removes the metrics that TRL makes of them.
    """
    count = 2 * len(batch["explored_role"])
    pair = {key: batch[key][:count] for key in PAIR_KEYS}
    pair |= {key: batch[key] for key in ("ref_chosen_logps", "ref_rejected_logps")}
    tensors = {
        key: value[:count]
        for key, value in vars(output).items()
        if isinstance(value, torch.Tensor) and value.dim() == 2
    }
    zeros = torch.zeros_like(tensors["log_probs"])
    nothing = dict.fromkeys(("entropy", "mean_logits"), zeros) | {"is_top1": zeros.bool()}
    aux_loss = getattr(output, "aux_loss", None)
    return pair, SimpleNamespace(**nothing | tensors, aux_loss=aux_loss)


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


def check_router(arguments: SELMConfig, config: PretrainedConfig) -> None:
    """Refuse before the reference pass what TRL would refuse, or fail on, after it."""
    text = config.get_text_config()
    coefficient = arguments.router_aux_loss_coef
    if coefficient is None:
        coefficient = getattr(text, "router_aux_loss_coef", 0.0)
    if not coefficient:
        return
    if not hasattr(text, "output_router_logits"):
        if arguments.router_aux_loss_coef:
            raise UserError(
                f"training.router_aux_loss_coef: a model of type {text.model_type} returns no "
                "router logits, so it has no such loss; remove the key"
            )
        return
    if not hasattr(text, "num_experts"):
        raise UserError(
            f"training.router_aux_loss_coef: TRL cannot compute this loss for a model of "
            f"type {text.model_type}; set it to 0 to train without it"
        )
