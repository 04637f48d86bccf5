"""What the ways of `train_step.py` and `ablation.py` have in common."""

from collections.abc import Callable, Sequence
from typing import Any

from original import Batch
from trl import DPOTrainer

from selm.data import Row

Examples = Sequence[Row]
Counts = tuple[int, int]
# From examples to gradients, or to the reference's log-probs. Returns how many tokens were
# computed, and how many of them were not padding.
Way = Callable[[Examples], Counts]


def as_in_training(trainer: Any) -> Any:
    """What Trainer.train does before the first step: above all, autocast around the forward."""
    trainer.model = trainer.accelerator.prepare_model(trainer.model)
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def step_of(trainer: DPOTrainer, examples: Examples) -> Counts:
    """Forward and backward of the policy, as the trainer does it."""
    batch = trainer.data_collator(list(examples))
    trainer.training_step(trainer.model, batch)
    trainer.model.zero_grad()
    return counts(batch)


def reference_of(trainer: DPOTrainer, examples: Examples) -> Counts:
    """The reference's log-probs, as the trainer computes them before its first step."""
    batch = trainer._prepare_inputs(trainer.data_collator(list(examples)))
    trainer.compute_ref_log_probs(trainer.model, batch)
    return counts(batch)


def counts(*batches: Batch) -> Counts:
    masks = [batch["attention_mask"] for batch in batches]
    return sum(mask.numel() for mask in masks), sum(int(mask.sum()) for mask in masks)
