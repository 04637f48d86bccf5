"""Adds responses to rows with prompts, shard by shard."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from selm.data.drops import Drops, row_name
from selm.data.schemas import DatasetRow, ResponseRow
from selm.generation.answered import (
    TOO_LONG,
    Answered,
    answered_rows,
    in_shards,
    longest_prompt,
    response_row,
)
from selm.generation.base import Engine, sample_seed
from selm.generation.kinds import load_engine
from selm.model.chat import prompt_ids_of
from selm.model.probe import load_chat
from selm.recipe.schema import Recipe
from selm.run.workers import Work


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
    load = partial(_load, policy, recipe, iteration, longest_prompt(rows, policy, recipe))
    answered = in_shards(rows, load, recipe, folder, what)
    return answered_rows(answered, _dropped(rows, answered, policy, recipe), policy, recipe)


def with_one_sample(recipe: Recipe) -> Recipe:
    """The recipe with one response to each prompt, however many the policy's are."""
    one = recipe.generation.model_copy(update={"num_samples": 1})
    return recipe.model_copy(update={"generation": one})


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
        reason = found if isinstance(found, str) else TOO_LONG
        drops.add(reason, row_name(row))
    return drops


def _load(
    policy: str, recipe: Recipe, iteration: int, longest: int | None
) -> Work[DatasetRow, ResponseRow]:
    """A worker: it loads the policy in an engine and answers the prompts of each shard."""
    engine = load_engine(policy, recipe.model, recipe.generation, longest)
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
    return [
        response_row(shard[i], responses[place * num_samples : (place + 1) * num_samples])
        for place, i in enumerate(fitting)
    ]
