"""The steps of the train stage, in order: examples, trainer, optimizer steps, checkpoint."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import ProgressCallback, TrainerCallback
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from selm import progress
from selm.data.drops import Drops, in_words
from selm.data.parquet import read_rows
from selm.data.portions import training_portion
from selm.errors import UserError
from selm.files import write_text
from selm.model import loading
from selm.model.finite import require_finite_files
from selm.model.probe import load_chat
from selm.recipe.schema import Recipe
from selm.run import artifacts
from selm.training.config import training_arguments
from selm.training.examples import TokenRow, as_pair, length, tokenize
from selm.training.objective import reads_explored
from selm.training.policy import check_can_quantise, load_policy, lora_config, merge
from selm.training.reference import cache_of
from selm.training.resume import check_resumable, last_complete_checkpoint, seal
from selm.training.trainer import SELMTrainer
from selm.training.trial import try_arguments, try_training


def load_examples(recipe: Recipe, t: int) -> tuple[list[TokenRow], Drops]:
    """Token ids of the iteration's pairs: the ranked pairs, or for `dpo` the portion as it is."""
    dropped = Drops()
    if recipe.iteration(t).objective == "dpo":
        found, dropped = training_portion(recipe, t)
        rows = [as_pair(row) for row in found]
    else:
        rows = read_rows(artifacts.folder(recipe, "preferences", t) / "train.parquet")
    chat = load_chat(artifacts.policy_path(recipe, t - 1), recipe.model)
    max_length = recipe.training.max_length
    examples, cut = tokenize(rows, chat, max_length, reads_explored(recipe, t))
    if not examples:
        reasons = in_words(dropped + cut)
        raise UserError(
            f"iteration {t}: no pair is left to train on ({reasons or 'all were ties'})"
        )
    return examples, dropped + cut


def refuse_what_fails(recipe: Recipe, t: int, rows: int) -> None:
    """UserError for a model or settings that would fail in the trainer, before weights are loaded.

    Processes wait for each other in a trainer, so with several of them only the part that needs no
    trainer is tried.
    """
    previous = artifacts.policy_path(recipe, t - 1)
    config = loading.load_config(previous, recipe.model)
    loading.check_vocabulary(previous, load_chat(previous, recipe.model).tokenizer, config)
    if _launched("WORLD_SIZE") > 1 or os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        try_arguments(recipe, t, rows)
    else:
        try_training(recipe, t, config, rows)
    note = loading.dropout_note(config)
    if note and _launched("RANK", "0") == 0:
        print(f"{previous}: {note}")


def num_tokens(examples: list[TokenRow]) -> int:
    """Tokens of all responses, each counted once together with its prompt."""
    keys = ("chosen_ids", "rejected_ids", "explored_ids")
    return sum(len(e["prompt_ids"]) + len(e[key]) for e in examples for key in keys if e[key])


def make_trainer(recipe: Recipe, t: int, examples: list[TokenRow], output_dir: Path) -> SELMTrainer:
    """A trainer whose reference log-probs are computed."""
    lengths = [length(example) for example in examples]
    arguments = training_arguments(recipe, t, output_dir, _launched("WORLD_SIZE"), lengths)
    if arguments.device.type == "cpu":  # `accelerate launch` leaves each process one thread
        cores = len(os.sched_getaffinity(0))
        torch.set_num_threads(max(1, cores // _launched("LOCAL_WORLD_SIZE")))
    if recipe.training.lora is not None and recipe.training.lora.load_in_4bit:
        check_can_quantise(arguments.device.type)
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(tensorboard_folder(recipe, t))
    sharded = arguments.deepspeed_plugin is not None
    under_fsdp = os.environ.get("ACCELERATE_USE_FSDP") == "true"
    reference = reference_path(recipe, t, under_fsdp)
    previous = artifacts.policy_path(recipe, t - 1)
    trainer = SELMTrainer(
        model=load_policy(recipe, previous, sharded),
        ref_model=None if reference is None else load_policy(recipe, reference, sharded),
        args=arguments,
        train_dataset=Dataset.from_list(examples),
        processing_class=load_chat(previous, recipe.model).tokenizer,
        peft_config=lora_config(recipe.training.lora),
        reference_cache=cache_of(recipe, t),
    )
    trainer.add_callback(NoLastSave())
    trainer.add_callback(SealSaves())
    trainer.remove_callback(ProgressCallback)
    if not arguments.disable_tqdm:
        trainer.add_callback(Progress(f"iteration {t}: training"))
    return trainer


def reference_path(recipe: Recipe, t: int, under_fsdp: bool) -> str | None:
    """The model to load as the reference; None: the policy before its first step.

    With LoRA that is the policy with the adapter switched off. FSDP shards the policy only when the
    training starts, so there the reference is always a separate model, which is freed before.
    """
    if recipe.training.reference == "initial" and t > 1:
        return recipe.model.name_or_path
    return artifacts.policy_path(recipe, t - 1) if under_fsdp else None


def tensorboard_folder(recipe: Recipe, t: int) -> Path:
    """Curves of the running training: `tensorboard --logdir runs/<run_name>/tensorboard`."""
    return artifacts.run_folder(recipe) / "tensorboard" / f"iter-{t}"


def _launched(variable: str, alone: str = "1") -> int:
    """A number from the launcher's environment, such as the rank; `alone` without a launcher.

    accelerate would count one process on a CPU until it is told to use the CPU.
    """
    return int(os.environ.get(variable, alone))


def train(trainer: SELMTrainer) -> None:
    """All steps, from the last complete checkpoint of an earlier attempt if there is one."""
    folder = Path(trainer.args.output_dir)
    found = [last_complete_checkpoint(folder) if trainer.is_world_process_zero() else None]
    resume = broadcast_object_list(found)[0]  # one process looks at the files and decides for all
    if resume is not None:
        sharded_by = {"DEEPSPEED": "DeepSpeed", "FSDP": "FSDP"}
        kind = sharded_by.get(trainer.accelerator.distributed_type, "none")
        check_resumable(resume, kind, trainer.args.world_size)
        trainer.accelerator.print(f"resuming from {resume}")
    elif trainer.is_world_process_zero():  # curves of an earlier recipe
        shutil.rmtree(os.environ["TENSORBOARD_LOGGING_DIR"], ignore_errors=True)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)


class SealSaves(TrainerCallback):
    """Writes down the hashes of each save's files after all processes have written theirs."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer in every process."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class NoLastSave(TrainerCallback):
    """After the last step the Trainer would save once more; the finished checkpoint follows it."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer in every process, after its own callback."""
        if state.global_step >= state.max_steps:
            control.should_save = False

    on_epoch_end = on_step_end


def save_policy(trainer: SELMTrainer, recipe: Recipe, t: int, folder: Path) -> Path:
    """Save the policy in the recipe's dtype, tokenizer and training log; every process calls this.

    With LoRA the policy is the merged model, and the adapter is saved in `adapter/` beside it.
    """
    if trainer.accelerator.is_main_process:
        shutil.rmtree(folder, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    if recipe.training.lora is not None:
        trainer.save_model(str(folder / "adapter"))
        if trainer.is_world_process_zero():
            _save_merged(trainer, recipe, t, folder)
    else:
        if not trainer.is_deepspeed_enabled:
            trainer.model.to(getattr(torch, recipe.model.dtype))
        trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        require_finite_files(folder)
        (folder / "training_args.bin").unlink(missing_ok=True)
        log = json.dumps(trainer.state.log_history, indent=1)
        write_text(folder / "training_log.json", log + "\n")
    trainer.accelerator.wait_for_everyone()
    return folder


def _save_merged(trainer: SELMTrainer, recipe: Recipe, t: int, folder: Path) -> None:
    """One process calls this; it holds the whole model on its CPU."""
    unset_hf_deepspeed_config()  # or the model would be sharded and wait for the others
    for path in (folder / "adapter").iterdir():
        if not path.name.startswith("adapter_"):
            path.unlink()
    policy = merge(recipe, artifacts.policy_path(recipe, t - 1), folder / "adapter")
    policy.to(getattr(torch, recipe.model.dtype)).save_pretrained(folder)
    trainer.processing_class.save_pretrained(folder)


class Progress(TrainerCallback):
    """The steps, with the loss and the reward margin instead of a dict per step."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.bar: progress.Bar | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called after a save was loaded, so its steps are counted."""
        self.bar = progress.Bar(state.max_steps, self.what, "step", done=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One optimizer step."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.done)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Put two numbers beside the count."""
        if self.bar is not None and logs:
            short = {"loss": logs.get("loss"), "margin": logs.get("rewards/margins")}
            found = {key: float(value) for key, value in short.items() if value is not None}
            self.bar.show({**self.bar.facts, **found})

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The last step is done."""
        if self.bar is not None:
            self.bar.close()
