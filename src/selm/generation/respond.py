"""Adds responses to rows with prompts, shard by shard."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from selm.data.columns import as_json
from selm.data.drops import Drops, in_words, row_name
from selm.data.prompts import as_messages
from selm.data.schemas import DatasetRow, ResponseRow
from selm.errors import UserError
from selm.generation.base import Engine, sample_seed
from selm.generation.kinds import KINDS, load_engine
from selm.model.chat import prompt_ids_of
from selm.model.probe import load_chat
from selm.recipe.schema import Recipe
from selm.run.shards import run_shards
from selm.run.workers import Work, Workers


@dataclass(frozen=True)
class Answered:
    """The rows, generated tokens, and prompts that were dropped."""

    rows: list[ResponseRow]
    tokens: int
    dropped: Drops


def respond(
    rows: Sequence[DatasetRow], policy: str, recipe: Recipe, iteration: int, folder: Path, what: str
) -> Answered:
    """Let the policy answer every prompt `num_samples` times.

    Prompts that leave no room for `max_tokens` in the model's context are dropped and counted, and
    those that the chat template refuses.

    Args:
        policy: what `from_pretrained` loads.
        iteration: part of every sample's seed.
        folder: where finished shards are kept; the policy is only loaded if one is missing.
    """
    settings = recipe.generation
    workers = Workers(settings.workers, settings.tensor_parallel_size, "generation.workers")
    wants_longest = KINDS[settings.engine].wants_longest_prompt
    longest = _longest_prompt(rows, policy, recipe) if wants_longest else None
    load = partial(_load, policy, recipe, iteration, longest)
    answered = run_shards(rows, load, ResponseRow, folder, settings.shard_size, what, workers)
    dropped = _dropped(rows, answered, policy, recipe)
    if not answered:
        raise UserError(_nothing(dropped, policy, recipe))
    return Answered(
        rows=answered,
        tokens=sum(sum(row["num_tokens"]) for row in answered),
        dropped=dropped,
    )


def _nothing(dropped: Drops, policy: str, recipe: Recipe) -> str:
    """The error if no prompt has an answer."""
    if "prompt_longer_than_context" in dropped:
        return (
            f"generation.max_tokens: {recipe.generation.max_tokens} leaves no room for any prompt "
            f"in the context of {policy} ({in_words(dropped)})"
        )
    return f"model.chat_template: that of {policy} takes no prompt ({in_words(dropped)})"


def _dropped(
    rows: Sequence[DatasetRow], answered: Sequence[ResponseRow], policy: str, recipe: Recipe
) -> Drops:
    """Why the rows without an answer have none."""
    drops = Drops()
    ids = {row["prompt_id"] for row in answered}
    without = [row for row in rows if row["prompt_id"] not in ids]
    chat = load_chat(policy, recipe.model) if without else None
    for row in without:
        found = prompt_ids_of(chat, row) if chat is not None else []
        reason = found if isinstance(found, str) else "prompt_longer_than_context"
        drops.add(reason, row_name(row))
    return drops


def _longest_prompt(rows: Sequence[DatasetRow], policy: str, recipe: Recipe) -> int:
    chat = load_chat(policy, recipe.model)
    found = [prompt_ids_of(chat, row) for row in rows]
    return max((len(ids) for ids in found if not isinstance(ids, str)), default=1)


def _load(
    policy: str, recipe: Recipe, iteration: int, longest_prompt: int | None
) -> Work[DatasetRow, ResponseRow]:
    """A worker: it loads the policy in an engine and answers the prompts of each shard."""
    engine = load_engine(policy, recipe.model, recipe.generation, longest_prompt)
    return lambda shard: _answer(shard, engine, recipe, iteration)


def _answer(
    shard: list[DatasetRow], engine: Engine, recipe: Recipe, iteration: int
) -> list[ResponseRow]:
    num_samples = recipe.generation.num_samples
    found = [prompt_ids_of(engine.chat, row) for row in shard]
    prompts = {i: ids for i, ids in enumerate(found) if not isinstance(ids, str)}
    fitting = [i for i, ids in prompts.items() if len(ids) <= engine.max_prompt_tokens]
    jobs = [(i, sample) for i in fitting for sample in range(num_samples)]
    responses = engine.generate(
        [prompts[i] for i, _ in jobs],
        [sample_seed(recipe.seed, iteration, shard[i]["prompt_id"], n) for i, n in jobs],
    )
    answered: list[ResponseRow] = []
    for place, i in enumerate(fitting):
        samples = responses[place * num_samples : (place + 1) * num_samples]
        answered.append(
            {
                "prompt_id": shard[i]["prompt_id"],
                "prompt": shard[i]["prompt"],
                "tools": shard[i].get("tools"),
                "chosen": as_messages(shard[i]["chosen"]),
                "rejected": as_messages(shard[i]["rejected"]),
                "responses": [sample.text for sample in samples],
                "finish_reasons": [sample.finish_reason for sample in samples],
                "num_tokens": [sample.num_tokens for sample in samples],
                "columns": as_json(shard[i]["columns"]),
            }
        )
    return answered
