"""The preflight: one function per check, which says what it found or raises a `UserError`.

It loads the tokenizer, the config and the first rows of the data; no weights.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig, PretrainedConfig

from selm import cost, data
from selm.artifacts import run_folder
from selm.chat import Chat, load_chat, prompt_ids_of
from selm.data import Row
from selm.drops import Drops, in_words, row_name
from selm.errors import OutsideError, UserError
from selm.plan import Run, size_text, stages, warnings
from selm.ranking import label
from selm.ranking import preflight as ranker_preflight
from selm.recipe import (
    Recipe,
    check_packages,
    num_processes,
    portion,
    rankings,
    train_rows,
)
from selm.training.examples import tokenize

SAMPLE_ROWS = 200

# Above these shares of the sample, a recipe is not what its author means.
MOST_CUT = 0.25
MOST_DROPPED = 0.1


@dataclass(frozen=True)
class Preflight:
    """What the checks look at, each part loaded when the first of them asks for it."""

    run: Run

    @property
    def recipe(self) -> Recipe:
        return self.run.recipe

    @cached_property
    def chat(self) -> Chat:
        return load_chat(self.recipe.model.name_or_path, self.recipe.model)

    @cached_property
    def config(self) -> PretrainedConfig:
        model = self.recipe.model
        try:
            return AutoConfig.from_pretrained(
                model.name_or_path,
                revision=model.revision,
                trust_remote_code=model.trust_remote_code,
            )
        except (OSError, ValueError) as error:
            raise UserError(f"model.name_or_path: {_first_line(error)}") from error

    @cached_property
    def sample(self) -> tuple[list[Row], Counter[str]]:
        return data.sample(self.recipe, "train", SAMPLE_ROWS)

    @cached_property
    def taken(self) -> tuple[list[Row], Drops]:
        """The rows of the sample that the chat template takes; stages drop the others, too."""
        rows, dropped = [], Drops()
        for row in self.sample[0]:
            ids = prompt_ids_of(self.chat, row)
            if isinstance(ids, str):
                dropped.add(ids, row_name(row))
            else:
                rows.append(row)
        if not rows:
            raise UserError(
                f"model.chat_template: it takes none of the first {sum(dropped.values())} prompts: "
                f"{in_words(dropped)}"
            )
        return rows, dropped


def results(run: Run) -> Iterator[tuple[str, bool, str]]:
    """(check, whether all is well, what was found), check by check.

    A trouble that several checks run into is told once.
    """
    preflight, told = Preflight(run), set()
    for name, check in CHECKS.items():
        try:
            found, well = check(preflight), True
        except (UserError, OutsideError) as error:
            found, well = str(error), False
        if found in told:
            found = "not checked, see above"
        told.add(found)
        yield name, well, found


def packages(preflight: Preflight) -> str:
    check_packages(preflight.recipe)
    return "all that this recipe needs are installed"


def model(preflight: Preflight) -> str:
    """The config is there, and the context holds what the recipe wants to put into it."""
    recipe, config = preflight.recipe, preflight.config.get_text_config()
    context = getattr(config, "max_position_embeddings", None)
    for key, tokens in (
        ("training.max_length", recipe.training.max_length),
        ("generation.max_tokens", recipe.generation.max_tokens + 1),
    ):
        if context is not None and tokens > context:
            raise UserError(f"{key}: {tokens} tokens, but the model's context has {context}")
    folder = Path(recipe.model.name_or_path)
    if folder.is_dir() and not [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
        raise UserError(f"model.name_or_path: {folder} has no weights (*.safetensors)")
    shape = cost.shape_of(recipe.model.name_or_path, recipe.model.revision)
    size = f"{shape.parameters / 1e9:.2f}B parameters" if shape else "size unknown"
    return f"{recipe.model.name_or_path}: {config.model_type}, {size}, context {context}"


def template(preflight: Preflight) -> str:
    """What the chat template does, as far as the recipe's author should know."""
    return preflight.chat.facts()


def tokens(preflight: Preflight) -> str:
    """On the sample: one BOS, one end-of-turn, and the same prompt in every stage."""
    rows, dropped = preflight.taken
    with tempfile.TemporaryDirectory() as folder:  # what iteration 2 reads: a saved tokenizer
        preflight.chat.tokenizer.save_pretrained(folder)
        later = load_chat(folder, preflight.recipe.model)
    for row in rows:
        _check_tokens(preflight.chat, later, row)
    chat, first = preflight.chat, rows[0]
    tools = first["tools"]
    prompt = chat.tokenizer.decode(chat.prompt_ids(first["prompt"], tools))
    answer = chat.tokenizer.decode(chat.response_ids(first["prompt"], "Yes.", tools=tools))
    return (
        f"the same in generation and training, one BOS at most and one end of turn, in {len(rows)} "
        f"rows; prompts end in {prompt[-40:]!r}, a label is {answer!r}"
        + (f"; dropped: {in_words(dropped)}" if dropped else "")
    )


def _check_tokens(chat: Chat, later: Chat, row: Row) -> None:
    messages, name, tools = row["prompt"], row["prompt_id"], row["tools"]
    prompt = chat.prompt_ids(messages, tools)
    label_ids = chat.response_ids(messages, "Yes.", tools=tools)
    bos = chat.tokenizer.bos_token_id
    if bos is not None and prompt[:2] == [bos, bos]:
        raise UserError(f"model.chat_template: the prompt {name} starts with two BOS")
    if label_ids.count(chat.end_of_turn) != 1 or label_ids[-1] != chat.end_of_turn:
        raise UserError(f"model.chat_template: a label of {name} has not one end of turn")
    if later.prompt_ids(messages, tools) != prompt:
        raise UserError(
            f"model.name_or_path: its tokenizer, saved and loaded again, gives other ids for {name}"
        )


def stop_ids(preflight: Preflight) -> str:
    """Every token that ends a response, and where each is from."""
    recipe, chat = preflight.recipe, preflight.chat
    try:
        configured = GenerationConfig.from_pretrained(
            recipe.model.name_or_path, revision=recipe.model.revision
        )
    except OSError:
        configured = None  # many base models have none
    ids = chat.stop_ids(configured)
    names = [f"{i} {token}" for i, token in zip(ids, _names(chat, ids), strict=True)]
    return f"{', '.join(names)}{'' if configured else ' (the model has no generation config)'}"


def _names(chat: Chat, ids: list[int]) -> list[str]:
    return [str(chat.tokenizer.convert_ids_to_tokens(i)) for i in ids]


def rows(preflight: Preflight) -> str:
    """Columns and splits, on the first rows; the number of rows that the recipe states."""
    found, dropped = preflight.sample
    held_out, _ = data.sample(preflight.recipe, "test", SAMPLE_ROWS)
    kind = "prompts only" if found[0]["chosen"] is None else "pairs"
    for t in range(1, len(preflight.recipe.iterations) + 1):
        data.check_objective(preflight.recipe, t, found)
    drops = f", dropped: {in_words(dropped)}" if dropped else ""
    return f"{kind}; the first {len(found)} training and {len(held_out)} test rows{drops}"


def lengths(preflight: Preflight) -> str:
    """How much of the sample `max_length` cuts or drops, and mean lengths for the estimates."""
    recipe, chat = preflight.recipe, preflight.chat
    found, _ = preflight.taken
    limit = recipe.training.max_length
    prompts = [len(chat.prompt_ids(row["prompt"], row["tools"])) for row in found]
    dropped = sum(length >= limit for length in prompts) / len(prompts)
    if dropped > MOST_DROPPED:
        raise UserError(
            f"training.max_length: {limit} tokens leave no room behind {dropped:.0%} of the "
            f"prompts (mean {fmean(prompts):.0f}); raise it"
        )
    said = f"prompts of {fmean(prompts):.0f} tokens, {dropped:.1%} too long for {limit}"
    if found[0]["chosen"] is None:
        return said + _off(recipe, "prompt_tokens", fmean(prompts))
    responses, cut = _responses(recipe, chat, found)
    if cut > MOST_CUT:
        raise UserError(
            f"training.max_length: {limit} tokens cut {cut:.0%} of the responses (mean "
            f"{fmean(responses):.0f} tokens behind prompts of {fmean(prompts):.0f}); raise it"
        )
    off = _off(recipe, "prompt_tokens", fmean(prompts))
    off += _off(recipe, "response_tokens", fmean(responses))
    return f"{said}; responses of {fmean(responses):.0f}, {cut:.1%} cut{off}"


def _responses(recipe: Recipe, chat: Chat, found: list[Row]) -> tuple[list[int], float]:
    """Whole lengths of chosen and rejected, and the share of them that `max_length` cuts."""
    pairs = [row | {w: data.as_messages(row[w]) for w in ("chosen", "rejected")} for row in found]
    whole, _ = tokenize(pairs, chat, None, with_explored=False)
    keys = ("chosen_ids", "rejected_ids")
    sequences = [(len(e["prompt_ids"]), len(e[key])) for e in whole for key in keys]
    cut = [p + r > recipe.training.max_length for p, r in sequences]
    return [length for _, length in sequences], sum(cut) / len(cut)


def _off(recipe: Recipe, key: str, measured: float) -> str:
    """A hint where the estimates take another length for granted."""
    assumed = getattr(recipe.estimate, key)
    far = abs(assumed - measured) > 0.25 * measured
    return f"; estimate.{key} is {assumed}: set it to {measured:.0f}" if far else ""


def batch(preflight: Preflight) -> str:
    """`load_recipe` has refused what has no answer."""
    return f"global batch {cost.batch_arithmetic(preflight.recipe)}"


def rankers(preflight: Preflight) -> str:
    """Each ranker's files fit together, a function scores a row, a hosted judge's key is there."""
    rows, _ = preflight.sample
    named = [(key, r) for key, r in rankings(preflight.recipe) if r.ranker != "ensemble"]
    for key, ranking in named:
        ranker_preflight.check(key, ranking, rows)
    return ", ".join(dict.fromkeys(label(ranking) for _, ranking in named))


def hub(preflight: Preflight) -> str:
    """The token may push where the recipe wants to, if it wants to."""
    recipe = preflight.recipe
    if not recipe.hub.push:
        return "nothing is pushed (hub.push)"
    from selm.hub import check_access

    check_access(recipe)
    kind = "private" if recipe.hub.private else "PUBLIC"
    return f"the token may push to {recipe.hub.namespace}; repositories are {kind}"


def disk(preflight: Preflight) -> str:
    """Free space where the run's folder is or will be."""
    recipe = preflight.recipe
    folder = run_folder(recipe).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    why = cost.unknown(recipe)
    if why is not None:
        return f"{size_text(free)} free; {why}"
    total = cost.total(recipe, stages(recipe))
    need = total.disk_bytes + total.scratch_bytes
    if need > free:
        raise UserError(
            f"output_dir: {size_text(free)} free at {there}, about {size_text(need)} are wanted; "
            "name a folder on a larger disk"
        )
    return f"{size_text(free)} free, about {size_text(need)} wanted"


def memory(preflight: Preflight) -> str:
    """The devices of this machine beside those of the estimate, and whether that fits."""
    recipe = preflight.recipe
    why = cost.unknown(recipe)
    if why is not None:
        return why
    too_large = warnings(preflight.run)
    if too_large:
        raise UserError(too_large[0].removeprefix("WARNING: "))
    wanted = recipe.estimate.device
    if wanted == "cpu":
        here, count = cost.DEVICES["cpu"].memory_gb * cost.GB, 1
    elif not torch.cuda.is_available():
        raise UserError(
            f"estimate.device: the recipe is for {num_processes(recipe)} x {wanted}, and this "
            "machine has no GPU; run it where there are some, or set estimate.device=cpu"
        )
    else:
        here = torch.cuda.get_device_properties(0).total_memory
        count = torch.cuda.device_count()
        if count < num_processes(recipe):
            raise UserError(
                f"training.num_processes: {num_processes(recipe)} processes, and this machine has "
                f"{count} GPUs; set it to {count}, or start the run on several machines"
            )
    training = [(kind, t) for kind, t in stages(recipe) if kind == "checkpoint"]
    need = max(cost.peak_bytes(recipe, kind, t) for kind, t in training)
    if need > here:
        raise UserError(
            f"estimate.memory_gb: about {size_text(need)} are wanted, this machine has "
            f"{size_text(here)}; set it to {here / cost.GB:.0f} and see what the plan proposes"
        )
    return f"about {size_text(need)} of {count} x {size_text(here)} to train"


def training(preflight: Preflight) -> str:
    """Trainer, optimizer, schedule and adapter are built, and two steps taken by a stand-in."""
    from selm.training.trial import try_training

    recipe = preflight.recipe
    total, number = train_rows(recipe), len(recipe.iterations)
    for t in range(1, number + 1):
        rows = None if total is None else len(portion(total, t, number))
        try_training(recipe, t, preflight.config, rows)
    return "two steps of a small stand-in with these settings, and a save"


CHECKS: dict[str, Callable[[Preflight], str]] = {
    "packages": packages,
    "model": model,
    "template": template,
    "data": rows,
    "tokens": tokens,
    "stop ids": stop_ids,
    "lengths": lengths,
    "batch": batch,
    "training": training,
    "rankers": rankers,
    "hub": hub,
    "disk": disk,
    "memory": memory,
}


def _first_line(error: Any) -> str:
    return str(error).strip().splitlines()[0]
