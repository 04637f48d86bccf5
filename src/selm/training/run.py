"""What the train stage does, in the order it does it: examples, trainer, steps, checkpoint."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState, init_empty_weights
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedModel,
    ProgressCallback,
    TrainerCallback,
)
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from selm import artifacts, data
from selm.chat import load_chat
from selm.data import Row
from selm.errors import UserError
from selm.plan import Run
from selm.recipe import Lora, Recipe
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
    arguments = training_arguments(recipe, t, output_dir, _launched("WORLD_SIZE"))
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
        train_dataset=Dataset.from_list(whole_batches(examples, recipe.training.global_batch_size)),
        processing_class=load_chat(previous, recipe.model).tokenizer,
        peft_config=lora_config(recipe.training.lora),
        reference_cache=cache_of(recipe, t),
    )
    trainer.remove_callback(ProgressCallback)
    if not arguments.disable_tqdm:
        trainer.add_callback(Progress)
    return trainer


def check_can_quantise(device: str) -> None:
    """bitsandbytes computes with 4-bit weights on a CPU, but its gradients there are wrong."""
    if device != "cuda":
        raise UserError(
            "training.lora.load_in_4bit: needs an NVIDIA GPU; on a CPU set it to false, "
            "which takes 2 bytes per weight instead of 0.5"
        )


def reference_path(recipe: Recipe, t: int, under_fsdp: bool) -> str | None:
    """The model to load as the reference; None: it is the policy before its first step.

    That is also what LoRA's policy is with the adapter off. FSDP shards the policy only when the
    training starts, so there the reference is always a model of its own, freed before.
    """
    if recipe.training.reference == "initial" and t > 1:
        return recipe.model.name_or_path
    return artifacts.policy_path(recipe, t - 1) if under_fsdp else None


def tensorboard_folder(recipe: Recipe, t: int) -> Path:
    """Curves while the training goes on: `tensorboard --logdir runs/<run_name>/tensorboard`."""
    return artifacts.run_folder(recipe) / "tensorboard" / f"iter-{t}"


def whole_batches(examples: list[Row], batch: int) -> list[Row]:
    """The examples, and the first of them once more, so that every optimizer step has `batch` rows.

    Left to themselves, the libraries fill or cut the last step in ways that depend on the number
    of processes.

    >>> whole_batches(["a", "b", "c"], 2)
    ["a", "b", "c", "a"]
    """
    return examples + list(islice(cycle(examples), -len(examples) % batch))


def _launched(variable: str) -> int:
    """A number of processes as the launcher gives it; 1 where there is none.

    Not asked of accelerate: before it is told to use the CPU it counts one process there.
    """
    return int(os.environ.get(variable, "1"))


def load_policy(recipe: Recipe, path: str, sharded: bool) -> PreTrainedModel:
    """Weights to train: in fp32 under autocast, for bf16 would round small updates away.

    The recipe's dtype where that is no loss: DeepSpeed (`sharded`) keeps fp32 copies of its own,
    and below a LoRA adapter, which is in fp32 itself, nothing moves.
    """
    lora = recipe.training.lora
    own_dtype = getattr(torch, recipe.model.dtype)
    quantization = None
    if lora is not None and lora.load_in_4bit:
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=own_dtype,
        )
    model = _load(
        recipe,
        path,
        dtype=own_dtype if sharded or lora is not None else torch.float32,
        quantization_config=quantization,
    )
    if sharded:
        compute_buffers_again(model)
    return model


def _load(recipe: Recipe, path: str, **how: Any) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(
        path,
        revision=recipe.model.revision if path == recipe.model.name_or_path else None,
        attn_implementation=recipe.model.attn_implementation,
        trust_remote_code=recipe.model.trust_remote_code,
        **how,
    )


def compute_buffers_again(model: PreTrainedModel) -> None:
    """Buffers in fp32: a model built sharded (`zero3_init_flag`) has RoPE's frequencies in bf16.

    They are off by up to 0.4 % then, which a hundred tokens away turns the fastest ones by 0.4
    radians: another model than the one that generation runs.
    """
    with init_empty_weights(include_buffers=False):
        exact = type(model)(model.config)
    for name, buffer in exact.named_buffers():
        owner, _, attribute = name.rpartition(".")
        kept = model.get_submodule(owner)._buffers
        kept[attribute] = buffer.to(kept[attribute].device)


def lora_config(lora: Lora | None) -> LoraConfig | None:
    """The recipe's section `training.lora` as peft has it; None: all weights are trained."""
    if lora is None:
        return None
    settings = lora.model_dump(mode="json", exclude={"load_in_4bit"})
    return LoraConfig(task_type="CAUSAL_LM", **settings)


def train(trainer: SELMTrainer) -> None:
    """All steps, from the last complete checkpoint of an earlier attempt if there is one."""
    resume = last_complete_checkpoint(Path(trainer.args.output_dir))
    if resume is not None:
        sharded_by = {"DEEPSPEED": "DeepSpeed", "FSDP": "FSDP"}
        kind = sharded_by.get(trainer.accelerator.distributed_type, "none")
        check_resumable(resume, kind, trainer.args.world_size)
        trainer.accelerator.print(f"resuming from {resume}")
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)


def check_resumable(saved: Path, kind: str, processes: int) -> None:
    """A whole optimizer state goes on with any number of processes, a sharded one only as it was.

    Args:
        kind: what shards the optimizer in this launch: DeepSpeed, FSDP or none.

    Raises:
        UserError: this launch cannot read what that one saved.
    """
    now = (kind, processes if kind == "DeepSpeed" else 0)
    then = _sharding(saved)
    if then != now:
        raise UserError(
            f"training.accelerate_config: {saved} holds an optimizer state {_said(*then)}, this "
            f"launch has one {_said(*now)}; launch it as before, or delete {saved.parent} to begin "
            "the iteration again"
        )


def _sharding(saved: Path) -> tuple[str, int]:
    """How a checkpoint's optimizer was sharded, and over how many processes where that matters."""
    parts = len(list(saved.glob("global_step*/*_optim_states.pt")))
    if parts:
        return "DeepSpeed", parts
    return ("FSDP" if any(saved.glob("pytorch_model_fsdp*")) else "none"), 0


def _said(kind: str, processes: int) -> str:
    if kind == "none":
        return "in one piece"
    return f"sharded by {kind}" + (f" over {processes} processes" if processes else "")


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


def save_policy(trainer: SELMTrainer, recipe: Recipe, t: int, folder: Path) -> Path:
    """Policy in the recipe's dtype, tokenizer and training log; every process calls this.

    With LoRA the policy is the merged one, and the adapter lies in `adapter/` beside it.
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
        (folder / "training_args.bin").unlink(missing_ok=True)
        log = json.dumps(trainer.state.log_history, indent=1)
        artifacts.write_text(folder / "training_log.json", log + "\n")
    trainer.accelerator.wait_for_everyone()
    return folder


def _save_merged(trainer: SELMTrainer, recipe: Recipe, t: int, folder: Path) -> None:
    """The one process that calls this has the whole model on its CPU."""
    unset_hf_deepspeed_config()  # or it would be built sharded, and wait for the other processes
    for path in (folder / "adapter").iterdir():
        if not path.name.startswith("adapter_"):
            path.unlink()
    policy = merge(recipe, artifacts.policy_path(recipe, t - 1), folder / "adapter")
    policy.to(getattr(torch, recipe.model.dtype)).save_pretrained(folder)
    trainer.processing_class.save_pretrained(folder)


def merge(recipe: Recipe, base: str, adapter: Path) -> PreTrainedModel:
    """The model that base and adapter are together, in fp32.

    The base is read anew: with QLoRA the weights that were trained on are only 4 bits wide.
    """
    model = _load(recipe, base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter).merge_and_unload()


class Progress(ProgressCallback):
    """A progress bar with the loss and the reward margin instead of a dict per step."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Put two numbers beside the bar."""
        if state.is_world_process_zero and self.training_bar is not None and logs:
            short = {"loss": logs.get("loss"), "margin": logs.get("rewards/margins")}
            self.training_bar.set_postfix(
                {key: f"{float(value):.4f}" for key, value in short.items() if value is not None}
            )
