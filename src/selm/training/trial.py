"""Finds errors that a training would raise after hours, before it starts, with a small trial.

The trainer takes two steps of two short rows on a stand-in model of a few hundred weights, with the
recipe's own arguments, and saves. Adapter and forward are built on the model's own architecture
without weights (on the meta device). This takes seconds and leaves nothing behind.
"""

import difflib
import math
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Trainer,
    get_scheduler,
)
from transformers.integrations import get_reporting_integration_callbacks

from selm.errors import UserError
from selm.recipe.schema import Lora, Recipe
from selm.training.choice import choose
from selm.training.config import SELMConfig, training_arguments
from selm.training.examples import ROLES, TokenRow
from selm.training.forward import check_router
from selm.training.policy import lora_config
from selm.training.refusals import in_one_line
from selm.training.steps import optimizer_steps
from selm.training.trainer import SELMTrainer

STEPS = 2
MOST_SCHEDULED = 2000  # steps whose learning rate is computed; more would take seconds
UNKNOWN = 1_000_000  # steps if the number of rows is unknown: then no warm-up is too long


def try_training(
    recipe: Recipe, t: int, config: PretrainedConfig | None = None, rows: int | None = None
) -> None:
    """Build what the training of iteration t builds, small, and take two steps.

    Args:
        config: the model's; None: whatever depends on its architecture is not tried.
        rows: number of training rows for the learning-rate schedule; None: not known.

    Raises:
        UserError: one line that names the key.
    """
    model = None if config is None else in_one_line(recipe, lambda r: _architecture(r, config))
    for attempt in (
        lambda r: _try_schedule(r, t, rows),
        lambda r: _try_adapter(r, model),
        lambda r: _try_forward(r, t, model),
        lambda r: _try_steps(r, t),
    ):
        in_one_line(recipe, attempt)


def try_arguments(recipe: Recipe, t: int, rows: int | None = None) -> None:
    """The part of `try_training` that needs no trainer, for a launch with several processes."""
    in_one_line(recipe, lambda r: _try_schedule(r, t, rows))


def _arguments(recipe: Recipe, t: int, folder: str, rows: int = 4) -> SELMConfig:
    return training_arguments(recipe, t, Path(folder), 1, [5] * rows)


def _small(recipe: Recipe) -> Recipe:
    """The recipe with two steps of two rows on one process, and everything else unchanged."""
    small = {
        "global_batch_size": 2,
        "per_device_train_batch_size": 1,
        "max_steps": STEPS,
        "warmup_steps": 0.1,  # the recipe's number may exceed these few steps
        "report_to": "none",
        "disable_tqdm": True,
        "router_aux_loss_coef": None,  # the stand-in has no router; `_try_forward` checks it
    }
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=small)})


def _try_schedule(recipe: Recipe, t: int, rows: int | None) -> None:
    """Compute the learning rate of every step of the real training, and load its trackers."""
    alone: dict[str, Any] = {"num_processes": 1}
    if rows is None and recipe.training.trl_overrides().get("max_steps", -1) <= 0:
        alone["max_steps"] = UNKNOWN
    changed = recipe.model_copy(update={"training": recipe.training.model_copy(update=alone)})
    with tempfile.TemporaryDirectory() as folder:
        arguments = _arguments(changed, t, folder, rows or 4)
        get_reporting_integration_callbacks(arguments.report_to)
    steps = optimizer_steps(
        rows or 4, recipe.training.global_batch_size, changed.training.trl_overrides()
    )
    weights = [torch.nn.Parameter(torch.zeros(1))]
    optimizer = torch.optim.SGD(weights, lr=arguments.learning_rate)
    scheduler = get_scheduler(
        arguments.lr_scheduler_type,
        optimizer=optimizer,
        num_warmup_steps=arguments.get_warmup_steps(steps),
        num_training_steps=steps,
        scheduler_specific_kwargs=dict(arguments.lr_scheduler_kwargs or {}),
    )
    for _ in range(min(steps, MOST_SCHEDULED)):
        optimizer.step()
        scheduler.step()
        if not math.isfinite(float(scheduler.get_last_lr()[0])):
            raise ValueError("the learning rate becomes NaN or infinite")


def _architecture(recipe: Recipe, config: PretrainedConfig) -> PreTrainedModel:
    """The model without weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            config,
            attn_implementation=recipe.model.attn_implementation,
            trust_remote_code=recipe.model.trust_remote_code,
            dtype=getattr(torch, recipe.model.dtype),
        )


def _try_adapter(recipe: Recipe, model: PreTrainedModel | None) -> None:
    """Check that every name in `target_modules` is a module's, and let peft build the adapter."""
    lora = recipe.training.lora
    if lora is None or model is None:
        return
    check_target_modules(lora, model)
    with torch.device("meta"):
        adapted = get_peft_model(AutoModelForCausalLM.from_config(model.config), lora_config(lora))
    if isinstance(adapted.get_output_embeddings(), BaseTunerLayer):
        raise UserError(
            "training.lora.target_modules: an adapter on the head is left out of the log-probs, "
            "and so never trained; remove its name"
        )


def check_target_modules(lora: Lora, model: torch.nn.Module) -> None:
    """UserError with similar names if a name is not a module's: peft would skip it silently."""
    targets = lora.target_modules
    named = [name for name, _ in model.named_modules()]
    if isinstance(targets, str):
        if targets != "all-linear" and not any(re.fullmatch(targets, name) for name in named):
            raise UserError(
                f"training.lora.target_modules: no module matches {targets!r}; modules have names "
                f"such as {', '.join(_linear_names(model))}"
            )
        return
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in named):
            names = _linear_names(model)
            near = difflib.get_close_matches(target, names, n=3) or names
            raise UserError(
                f"training.lora.target_modules: no module is called {target!r}; "
                f"did you mean {' or '.join(near)}?"
            )


def _linear_names(model: torch.nn.Module) -> list[str]:
    """`q_proj`, `k_proj`, ...: the modules that an adapter can be added to."""
    linear = [
        name for name, m in model.named_modules() if hasattr(m, "weight") and m.weight.ndim == 2
    ]
    return sorted({name.split(".")[-1] for name in linear} - {"lm_head", "embed_tokens"})


def _try_forward(recipe: Recipe, t: int, model: PreTrainedModel | None) -> None:
    """Try what depends on the model's class: forward, checkpointing, the optimizer's modules."""
    if model is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        arguments = _arguments(_small(recipe), t, folder)
        arguments.router_aux_loss_coef = recipe.training.trl_overrides().get("router_aux_loss_coef")
        choose(arguments, model)
        check_router(arguments, model.config)
        if arguments.gradient_checkpointing and not model.supports_gradient_checkpointing:
            raise UserError(
                f"training.gradient_checkpointing: {type(model).__name__} does not support it; "
                "set it to false"
            )
        Trainer.get_optimizer_cls_and_kwargs(arguments, model)


def _try_steps(recipe: Recipe, t: int) -> None:
    """Let the trainer compute reference log-probs, take two steps and save, with a stand-in."""
    small = _small(recipe)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TENSORBOARD_LOGGING_DIR"] = folder
        trainer = SELMTrainer(
            model=_stand_in(),
            args=_arguments(small, t, folder),
            train_dataset=Dataset.from_list(_rows()),
            processing_class=_tokenizer(),
            peft_config=lora_config(_lora_of_stand_in(recipe.training.lora)),
        )
        trainer.train()
        trainer.save_model(folder)


def _stand_in() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,  # the least that FlexAttention's kernel takes
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


def _lora_of_stand_in(lora: Lora | None) -> Lora | None:
    """Module names belong to the real model; `_try_adapter` checks them."""
    if lora is None:
        return None
    return lora.model_copy(update={"target_modules": "all-linear", "load_in_4bit": False})


def _rows() -> list[TokenRow]:
    """Rows for two steps; some have a third response."""
    pair = {"prompt_ids": [2, 3], "chosen_ids": [4, 5, 1], "rejected_ids": [6, 1]}
    known = {"explored_ids": [], "explored_role": ROLES["chosen"]}
    third = {"explored_ids": [7, 1], "explored_role": ROLES["neither"]}
    return [pair | known, pair | third] * STEPS


def _tokenizer() -> PreTrainedTokenizerFast:
    words = {word: i for i, word in enumerate(["<pad>", "<end>", "Hi", "PROBE", "x", "<user>"])}
    backend = Tokenizer(models.WordLevel(words, unk_token="x"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<end>", unk_token="x"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }} {% if m.role == 'assistant' %}<end> {% endif %}"
        "{% endfor %}"
    )
    return tokenizer
