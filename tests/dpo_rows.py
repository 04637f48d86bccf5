"""Token ids as a trainer takes them, at random, and one step of TRL's trainer on the same."""

import random
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import DPOConfig, DPOTrainer

from selm.training.config import SELMConfig
from selm.training.trainer import SELMTrainer

PLAIN = {
    "report_to": "none",
    "save_strategy": "no",
    "logging_steps": 1,
    "max_grad_norm": 0.0,
    "max_steps": 1,
    "learning_rate": 0.1,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "optim": "sgd",
    "bf16": False,
    "use_cpu": True,
    "disable_tqdm": True,
    "gradient_checkpointing": False,
    "max_length": 64,
    "beta": 0.1,
}


def rows(count: int, vocabulary: int, longest: int = 14, roles: tuple[int, ...] = (0,)) -> list:
    """Prompts of 1 to 20 tokens, responses of 2 to `longest`."""
    draw = random.Random(count)

    def ids(least: int, most: int) -> list[int]:
        return [draw.randrange(5, vocabulary) for _ in range(draw.randint(least, most))]

    made = []
    for i in range(count):
        role = roles[i % len(roles)]
        row: dict[str, Any] = {"prompt_ids": ids(1, 20), "explored_role": role}
        row |= {key: ids(2, longest) for key in ("chosen_ids", "rejected_ids")}
        made.append(row | {"explored_ids": ids(2, longest) if role == 2 else []})
    return made


class Gradients(TrainerCallback):
    """Those of the last step, before the optimizer takes it."""

    def __init__(self) -> None:
        self.of: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        named = kwargs["model"].named_parameters()
        self.of = {name: p.grad.detach().clone() for name, p in named if p.grad is not None}


def trained(trainer: DPOTrainer) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Gradients and log of a trainer's last step."""
    seen = Gradients()
    trainer.add_callback(seen)
    trainer.train()
    return seen.of, [entry for entry in trainer.state.log_history if "loss" in entry][-1]


def selm(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: list,
    folder: Path,
    ref_model: PreTrainedModel | None = None,
    **settings: Any,
) -> SELMTrainer:
    return SELMTrainer(
        model=model,
        ref_model=ref_model,
        args=SELMConfig(output_dir=str(folder), **PLAIN | {"alpha": 0.0} | settings),
        train_dataset=Dataset.from_list(data),
        processing_class=tokenizer,
    )


class _Tokenised(DPOTrainer):
    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset


def trl(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: list,
    folder: Path,
    ref_model: PreTrainedModel,
    **settings: Any,
) -> DPOTrainer:
    """TRL's own, on the same ids; its reference is computed on the fly."""
    keys = ("prompt_ids", "chosen_ids", "rejected_ids")
    return _Tokenised(
        model=model,
        ref_model=ref_model,
        args=DPOConfig(output_dir=str(folder), **PLAIN | settings),
        train_dataset=Dataset.from_list([{key: row[key] for key in keys} for row in data]),
        processing_class=tokenizer,
    )
