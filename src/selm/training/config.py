"""SELMConfig: TRL's DPOConfig plus the optimism coefficient; and the recipe as a SELMConfig."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from trl import DPOConfig

from selm.errors import UserError
from selm.recipe.roles import ARGUMENT, keys_with
from selm.recipe.schema import Recipe, Training
from selm.training.batch import gradient_accumulation_steps, rows_per_process
from selm.training.objective import TERMS, Term
from selm.training.order import micro_batches_for
from selm.training.steps import SAVE_STEPS, untrained, warmup_steps
from selm.training.zero import sum_in_fp32


@dataclass
class SELMConfig(DPOConfig):
    """Arguments of `SELMTrainer`; the defaults are the paper's.

    alpha: weight of the optimism term; 0 is plain DPO. What it multiplies depends on the term:
        SELM's alpha times beta is XPO's.
    optimism: the term, one of `selm.training.objective.TERMS`, or `none`, which is alpha = 0.
    forward: how log-probs are computed; `shared` is fast, `padded` is TRL's way, `auto` chooses.
    rows_per_step: rows of a step on one process. They are split into `gradient_accumulation_steps`
        micro-batches of similar numbers of tokens. None: each micro-batch has
        `per_device_train_batch_size` rows.
    """

    alpha: float = field(default=0.001, metadata={"help": "Weight of the optimism term."})
    optimism: str = field(
        default="selm", metadata={"help": "The optimism term: selm, xpo, geb, vpo or none."}
    )
    forward: str = field(default="auto", metadata={"help": "auto, shared or padded."})
    rows_per_step: int | None = field(
        default=None, metadata={"help": "Rows of a step that is split by numbers of tokens."}
    )
    beta: float = field(default=0.01, metadata={"help": "DPO's beta: the KL penalty's strength."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Below 1: a share of all steps."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning rate schedule."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the portion."})
    precompute_ref_log_probs: bool = field(
        default=True, metadata={"help": "Always: no second model in memory."}
    )
    report_to: str | list[str] | None = field(
        default="tensorboard", metadata={"help": "Trackers: tensorboard, wandb, trackio, none."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Under DDP: true for mixtures of experts only."}
    )
    save_total_limit: int | None = field(
        default=1, metadata={"help": "Checkpoints to resume from."}
    )
    save_steps: float = field(
        default=SAVE_STEPS, metadata={"help": "Below 1: a share of all steps."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.deepspeed_plugin is not None:
            sum_in_fp32(self.deepspeed_plugin.deepspeed_config)
        if self.alpha < 0:
            raise ValueError(f"alpha must not be negative, got {self.alpha}")
        if self.optimism == "none":
            self.alpha = 0.0
        elif self.optimism not in TERMS:
            names = ", ".join(TERMS)
            raise ValueError(f"optimism must be {names} or none, got {self.optimism}")
        if not self.precompute_ref_log_probs:
            raise ValueError("SELM precomputes reference log-probs: precompute_ref_log_probs=True")
        if self.ld_alpha is not None:
            raise ValueError("ld_alpha compares two lengths; SELM scores three responses: unset it")

    @property
    def term(self) -> Term | None:
        """The optimism term; None if its weight is 0."""
        return TERMS[self.optimism] if self.alpha > 0 else None

    @property
    def reads_explored(self) -> bool:
        """Whether a row needs the log-probs of its explored response."""
        return self.term is not None and self.term.reads == "explored"

    @property
    def n_gpu(self) -> int:
        """At most 1: a process trains on one GPU, its first, however many it sees.

        The Trainer would wrap the model in `nn.DataParallel`, which TRL refuses.
        """
        return min(super().n_gpu, 1)

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """As in the parent, but a share of the steps leaves at least one step to train."""
        return warmup_steps(num_training_steps, self.warmup_steps)


def training_arguments(
    recipe: Recipe, t: int, output_dir: Path, world_size: int, lengths: Sequence[int]
) -> SELMConfig:
    """The recipe's training section for iteration t; any world size has the same global batch.

    Args:
        lengths: one per row, in tokens. They decide the number of micro-batches if the recipe
            limits micro-batches by tokens.
    """
    own = recipe.training.model_dump(include=keys_with(ARGUMENT, Training))
    why = untrained(
        len(lengths), recipe.training.global_batch_size, recipe.training.trl_overrides()
    )
    if lengths and why is not None:
        raise UserError(why)
    return SELMConfig(
        output_dir=str(output_dir),
        run_name=f"{recipe.run_name}-iter-{t}",
        seed=recipe.seed + t,  # another order of rows in each iteration
        learning_rate=recipe.iteration(t).learning_rate,
        alpha=recipe.alpha(t),
        use_cpu=not torch.cuda.is_available(),  # transformers asks for it before it takes bf16
        bf16=recipe.model.dtype == "bfloat16",
        fp16=recipe.model.dtype == "float16",
        **_micro_batches(recipe, t, world_size, lengths),
        **own,
        **recipe.training.trl_overrides(),
    )


def _micro_batches(
    recipe: Recipe, t: int, world_size: int, lengths: Sequence[int]
) -> dict[str, int]:
    """How a step is split into micro-batches: by rows or by tokens."""
    training, rows = recipe.training, rows_per_process(recipe, world_size)
    if training.tokens_per_micro_batch is None:
        return {
            "per_device_train_batch_size": training.per_device_train_batch_size,
            "gradient_accumulation_steps": gradient_accumulation_steps(recipe, world_size),
        }
    epochs = math.ceil(training.trl_overrides().get("num_train_epochs") or 1)
    seeds = range(recipe.seed + t, recipe.seed + t + epochs)
    number = micro_batches_for(training.tokens_per_micro_batch, lengths, rows, world_size, seeds)
    return {
        "rows_per_step": rows,
        "gradient_accumulation_steps": number,
        "per_device_train_batch_size": math.ceil(rows / number),  # for the reference pass
    }
