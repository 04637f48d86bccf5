"""The original SELM trainer's computation, written out: what `bench/train_step.py` compares with.

As the authors' trainer of June 2024 has it: one padded forward for chosen and rejected, one for the
explored response, also where that is the chosen or the rejected one; logits at every position, and
their log-softmax; the reference on the fly, the same way.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from selm.training.examples import TokenRow

Batch = dict[str, torch.Tensor]
ROLE_KEYS = ("chosen_ids", "rejected_ids", "explored_ids")


def explored_ids(example: TokenRow) -> list[int]:
    """The explored response of a row of `examples.tokenize`, which does not repeat it."""
    return example[ROLE_KEYS[example["explored_role"]]]


def batches(examples: Sequence[TokenRow], pad: int, device: torch.device) -> tuple[Batch, Batch]:
    """Chosen and rejected, padded to the longest of them; explored, padded to theirs."""
    pair = [(e["prompt_ids"], e[key]) for key in ("chosen_ids", "rejected_ids") for e in examples]
    explored = [(e["prompt_ids"], explored_ids(e)) for e in examples]
    return _pad(pair, pad, device), _pad(explored, pad, device)


def _pad(sequences: Sequence[tuple[list[int], list[int]]], pad: int, device: torch.device) -> Batch:
    width = max(len(prompt) + len(response) for prompt, response in sequences)
    ids = [p + r + [pad] * (width - len(p) - len(r)) for p, r in sequences]
    mask = [[1] * (len(p) + len(r)) + [0] * (width - len(p) - len(r)) for p, r in sequences]
    labels = [[-100] * len(p) + r + [-100] * (width - len(p) - len(r)) for p, r in sequences]
    columns = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {key: torch.tensor(values, device=device) for key, values in columns.items()}


def pieces(pair: Batch, explored: Batch, rows: int) -> Iterator[tuple[Batch, Batch]]:
    """The batches, `rows` rows at a time and as wide as before."""
    count = len(explored["input_ids"])
    for start in range(0, count, rows):
        part = list(range(start, min(start + rows, count)))
        both = [*part, *(count + row for row in part)]
        yield (
            {key: values[both] for key, values in pair.items()},
            {key: values[part] for key, values in explored.items()},
        )


def log_probs(model: Any, batch: Batch) -> torch.Tensor:
    """(sequences,): full logits, log-softmax at every position, gather, mask, sum."""
    output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    labels = batch["labels"][:, 1:]
    scored = labels != -100
    found = output.logits[:, :-1].log_softmax(-1).gather(2, labels.clamp(min=0)[:, :, None])
    return (found[:, :, 0] * scored).sum(-1)


def all_log_probs(model: Any, pair: Batch, explored: Batch) -> torch.Tensor:
    """(3, B): chosen, rejected, explored."""
    chosen, rejected = log_probs(model, pair).chunk(2)
    return torch.stack([chosen, rejected, log_probs(model, explored)])


def loss(logps: torch.Tensor, ref_logps: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """Eq. 3.2 of arXiv 2405.19332 from (3, B) log-probs."""
    chosen, rejected, explored = logps - ref_logps
    return (-logsigmoid(beta * (chosen - rejected)) + alpha * beta * explored).mean()
