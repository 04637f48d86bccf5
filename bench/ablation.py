"""Each of the five ideas of docs/performance.md taken away from a trainer, one at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from original import explored_ids
from ways import Counts, Examples, Way, reference_of, step_of

from selm.training.examples import ROLES, TokenRow
from selm.training.forward import Batch, SELMCollator, in_order
from selm.training.head import ScoringHead
from selm.training.layout import Example, lay_out
from selm.training.trainer import SELMTrainer


def explored_again(trainer: SELMTrainer, rows: int) -> Way:
    """Without 1: the explored response is a third sequence in every row."""

    def as_third(example: TokenRow) -> TokenRow:
        third = {"explored_ids": explored_ids(example), "explored_role": ROLES["neither"]}
        return example | third

    return lambda examples: step_of(trainer, [as_third(example) for example in examples], rows)


def prompt_again(trainer: SELMTrainer, rows: int) -> Way:
    """Without 2: every response has its prompt before it."""
    trainer.data_collator = PromptPerResponse(trainer.data_collator.pad_token_id, shared=True)
    return lambda examples: step_of(trainer, examples, rows)


@dataclass
class PromptPerResponse(SELMCollator):
    """A row of examples with one response each."""

    def _shared(self, examples: Sequence[TokenRow]) -> Batch:
        pairs = in_order(examples)
        row, positions, layout = lay_out([p for p, _ in pairs], [[r] for _, r in pairs])
        return super()._shared(examples) | {
            "attention_mask": torch.ones(1, len(row), dtype=torch.long),
            "row_ids": torch.tensor([row]),
            "row_positions": torch.tensor([positions]),
            "scored": torch.cat([torch.arange(*e.blocks[0]) for e in layout]),
            "layout": layout,
        }


def head_everywhere(trainer: SELMTrainer, rows: int) -> Way:
    """Without 3: logits of every token, and their log-softmax, kept for the backward."""

    def log_probs(head: Any, hidden: Any, scored: Any, targets: Any) -> torch.Tensor:
        return torch.nn.Linear.forward(head, hidden).float().log_softmax(-1)[scored, targets]

    def way(examples: Examples) -> Counts:
        with patch.object(ScoringHead, "forward", log_probs):
            return step_of(trainer, examples, rows)

    return way


def padding(trainer: SELMTrainer, rows: int) -> Way:
    """Without 4: every example is as long as the step's longest."""
    trainer.data_collator = collator = Padded(trainer.data_collator.pad_token_id, shared=True)

    def way(examples: Examples) -> Counts:
        layout = collator([*examples])["layout"]
        collator.longest = max(map(length, layout))
        return step_of(trainer, examples, rows)

    return way


def length(example: Example) -> int:
    return example.blocks[-1][1] - example.prompt[0]


@dataclass
class Padded(SELMCollator):
    """What is missing to the longest stands at the row's end, as examples of padding."""

    longest: int = 0

    def _shared(self, examples: Sequence[TokenRow]) -> Batch:
        batch = super()._shared(examples)
        layout, positions = list(batch["layout"]), batch["row_positions"][0].tolist()
        end = len(positions)
        for missing in [self.longest - length(example) for example in layout]:
            if missing > 0:
                layout.append(Example((end, end), ((end, end + missing),)))
                positions += range(missing)
                end += missing
        more = (0, end - batch["row_ids"].shape[1])
        return batch | {
            "attention_mask": torch.nn.functional.pad(batch["attention_mask"], more),
            "row_ids": torch.nn.functional.pad(batch["row_ids"], more, value=self.pad_token_id),
            "row_positions": torch.tensor([positions]),
            "layout": layout,
        }


def reference_again(trainer: SELMTrainer, rows: int) -> Way:
    """Without 5: the reference computes its log-probs at every step."""

    def way(examples: Examples) -> Counts:
        reference_of(trainer, examples, rows)
        return step_of(trainer, examples, rows)

    return way


ABLATIONS: dict[str, Callable[[SELMTrainer, int], Way]] = {
    "without 1, explored computed again": explored_again,
    "without 2, prompt with each response": prompt_again,
    "without 3, head at every token": head_everywhere,
    "without 4, padded to the longest": padding,
    "without 5, reference at every step": reference_again,
}
