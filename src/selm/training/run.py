"""What the train stage does, in the order it does it: examples, trainer, steps, checkpoint."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    ProgressCallback,
    TrainerCallback,
)

from selm import artifacts, data
from selm.chat import load_chat
from selm.data import Row
from selm.errors import UserError
from selm.plan import Run
from selm.recipe import Recipe
from selm.training.config import training_arguments
from selm.training.examples import tokenize
from selm.training.reference import cache_of
from selm.training.trainer import SELMTrainer

_PAIR = ("chosen", "rejected")


def load_examples(recipe: Recipe, t: int) -> tuple[list[Row], Counter[str]]:
    """Token ids of the iteration's pairs: ranked ones, or the portion as it is for `dpo`."""
    dropped: Counter[str] = Counter()
    if recipe.iteration(t).objective == "dpo":
        rows, dropped = data.training_portion(recipe, t)
        rows = [row | {which: data.as_messages(row[which]) for which in _PAIR} for row in rows]
    else:
        rows = data.read(artifacts.folder(recipe, "preferences", t) / "train.parquet")
    chat = load_chat(artifacts.policy_path(recipe, t - 1), recipe.model)
    max_length = recipe.training.max_length
    examples, cut = tokenize(rows, chat, max_length, with_explored=recipe.alpha(t) > 0)
    if not examples:
        reasons = ", ".join(f"{count} {reason}" for reason, count in (dropped + cut).items())
        raise UserError(f"iteration {t}: no pair left to train on ({reasons or 'all were ties'})")
    return examples, dropped + cut


def num_tokens(examples: list[Row]) -> int:
    """Tokens of all responses, each computed once, with the prompt that each one repeats."""
    total = 0
    for example in examples:
        responses = [example[key] for key in ("chosen_ids", "rejected_ids", "explored_ids")]
        total += sum(len(example["prompt_ids"]) + len(ids) for ids in responses if ids)
    return total


def make_trainer(recipe: Recipe, t: int, examples: list[Row], output_dir: Path) -> SELMTrainer:
    """A trainer whose reference log-probs are computed."""
    processes = PartialState()
    if processes.device.type == "cpu":  # `accelerate launch` leaves each process one thread
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // processes.num_processes))
    arguments = training_arguments(recipe, t, output_dir, processes.num_processes)
    previous = artifacts.policy_path(recipe, t - 1)
    sharded = arguments.deepspeed_plugin is not None
    initial = recipe.training.reference == "initial" and t > 1
    trainer = SELMTrainer(
        model=load_policy(recipe, previous, sharded),
        ref_model=load_policy(recipe, recipe.model.name_or_path, sharded) if initial else None,
        args=arguments,
        train_dataset=Dataset.from_list(examples),
        processing_class=load_chat(previous, recipe.model).tokenizer,
        peft_config=_lora(recipe.training.lora),
        reference_cache=cache_of(recipe, t),
    )
    trainer.remove_callback(ProgressCallback)
    if not arguments.disable_tqdm:
        trainer.add_callback(Progress)
    return trainer


def load_policy(recipe: Recipe, path: str, sharded: bool) -> PreTrainedModel:
    """Weights to train: in fp32 under autocast, for bf16 would round small updates away.

    DeepSpeed keeps fp32 copies of its own, so there (`sharded`) the recipe's dtype is loaded.
    """
    dtype = getattr(torch, recipe.model.dtype) if sharded else torch.float32
    return AutoModelForCausalLM.from_pretrained(
        path,
        revision=recipe.model.revision if path == recipe.model.name_or_path else None,
        dtype=dtype,
        attn_implementation=recipe.model.attn_implementation,
        trust_remote_code=recipe.model.trust_remote_code,
    )


def _lora(settings: dict[str, Any] | None) -> Any:
    if settings is None:
        return None
    from peft import LoraConfig

    return LoraConfig(task_type="CAUSAL_LM", **settings)


def train(trainer: SELMTrainer) -> None:
    """All steps, from the last complete checkpoint of an earlier attempt if there is one."""
    resume = last_complete_checkpoint(Path(trainer.args.output_dir))
    if resume is not None:
        trainer.accelerator.print(f"resuming from {resume}")
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)


def share_saves(trainer: SELMTrainer, run: Run, t: int) -> None:
    """Go on from the last save on the Hub, if there is none here; push those to come.

    The last one is left out: the finished checkpoint follows it.
    """
    if trainer.is_world_process_zero():
        artifacts.pull_save(run, t, Path(trainer.args.output_dir))
    trainer.accelerator.wait_for_everyone()
    trainer.add_callback(PushSaves(lambda folder: artifacts.push_save(run, t, folder)))


class PushSaves(TrainerCallback):
    """Hands every checkpoint but the last to `push`, once all processes have written their part."""

    def __init__(self, push: Callable[[Path], None]) -> None:
        self.push = push

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer in every process."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero and state.global_step < state.max_steps:
            self.push(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The latest `checkpoint-<step>` that was written to its end; unfinished ones are skipped.

    transformers writes trainer_state.json last, so it is whole exactly if everything else is.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1]))
    return next((path for path in found if _is_json(path / "trainer_state.json")), None)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return True


def save_policy(trainer: SELMTrainer, recipe: Recipe, folder: Path) -> Path:
    """Policy in the recipe's dtype, tokenizer and training log; every process calls this."""
    if trainer.accelerator.is_main_process:
        shutil.rmtree(folder, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    if recipe.training.lora is not None:
        trainer.model = trainer.accelerator.unwrap_model(trainer.model).merge_and_unload()
    if not trainer.is_deepspeed_enabled:
        trainer.model.to(getattr(torch, recipe.model.dtype))
    trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        (folder / "training_args.bin").unlink(missing_ok=True)
        log = json.dumps(trainer.state.log_history, indent=1)
        artifacts.write_text(folder / "training_log.json", log + "\n")
    trainer.accelerator.wait_for_everyone()
    return folder


class Progress(ProgressCallback):
    """A progress bar with the loss and the reward margin instead of a dict per step."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Put two numbers beside the bar."""
        if state.is_world_process_zero and self.training_bar is not None and logs:
            short = {"loss": logs.get("loss"), "margin": logs.get("rewards/margins")}
            self.training_bar.set_postfix(
                {key: f"{float(value):.4f}" for key, value in short.items() if value is not None}
            )
