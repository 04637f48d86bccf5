"""What the ways of `train_step.py` and `ablation.py` have in common."""

from collections.abc import Callable, Sequence
from typing import Any

from original import Batch
from trl import DPOTrainer

from selm.training.examples import TokenRow

Examples = Sequence[TokenRow]
Counts = tuple[int, int]
# From examples to gradients, or to the reference's log-probs. Returns how many tokens were
# computed, and how many of them were not padding.
Way = Callable[[Examples], Counts]


def as_in_training(trainer: Any) -> Any:
    """What Trainer.train does before the first step: above all, autocast around the forward."""
    trainer.model = trainer.accelerator.prepare_model(trainer.model)
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def step_of(trainer: DPOTrainer, examples: Examples, rows: int) -> Counts:
    """Forward and backward of the policy, `rows` rows at a time, as the trainer does it."""
    batches = _collate(trainer, examples, rows)
    for batch in batches:
        trainer.training_step(trainer.model, batch)
    trainer.model.zero_grad()
    return counts(*batches)


def padded_step_of(trainer: DPOTrainer, examples: Examples, rows: int) -> Counts:
    """The same, all rows padded to one width: chosen come first in the batch, then rejected."""
    whole = trainer.data_collator(list(examples))
    for start in range(0, len(examples), rows):
        part = list(range(start, min(start + rows, len(examples))))
        both = [*part, *(len(examples) + row for row in part)]
        batch = {
            key: values[both if len(values) > len(examples) else part]
            for key, values in whole.items()
        }
        trainer.training_step(trainer.model, batch)
    trainer.model.zero_grad()
    return counts(whole)


def reference_of(trainer: DPOTrainer, examples: Examples, rows: int) -> Counts:
    """The reference's log-probs, as the trainer computes them before its first step."""
    batches = _collate(trainer, examples, rows)
    for batch in batches:
        trainer.compute_ref_log_probs(trainer.model, trainer._prepare_inputs(batch))
    return counts(*batches)


def _collate(trainer: DPOTrainer, examples: Examples, rows: int) -> list[Batch]:
    starts = range(0, len(examples), rows)
    return [trainer.data_collator(list(examples[start : start + rows])) for start in starts]


def counts(*batches: Batch) -> Counts:
    masks = [batch["attention_mask"] for batch in batches]
    return sum(mask.numel() for mask in masks), sum(int(mask.sum()) for mask in masks)
