"""Answers rows that have several turns of the user, one turn after the other.

The `prompt` of such a row holds the user's turns alone, after a system message if there is one:
answer n follows turn n.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from selm.data.drops import Drops, row_name
from selm.data.schemas import DatasetRow, Message, Prompted, ResponseRow
from selm.generation.answered import (
    NO_ROOM_FOR_TURN,
    TOO_LONG,
    Answered,
    answered_rows,
    in_shards,
    longest_prompt,
    response_row,
)
from selm.generation.base import Engine, Response, sample_seed
from selm.generation.kinds import load_engine
from selm.model.chat import Chat, prompt_ids_of
from selm.model.probe import load_chat
from selm.recipe.schema import Recipe
from selm.run.workers import Work

# The policy's own answers in later prompts: encoded again, they may have more tokens than when
# they were generated, but hardly twice as many.
_AGAIN = 2


def converse(
    rows: Sequence[DatasetRow],
    policy: str,
    recipe: Recipe,
    iteration: int,
    folder: Path,
    what: str,
    temperatures: Mapping[str, float],
) -> Answered:
    """Let the policy answer every turn of every row once; each row has one answer per turn.

    Rows are dropped and counted whose prompt or answers leave no room in the model's context for
    `max_tokens` more, and those that the chat template refuses.

    Args:
        policy, folder: see `respond`.
        iteration: with the number of the turn, part of every sample's seed.
        temperatures: prompt_id -> of all answers of this row.
    """
    load = partial(_load, policy, recipe, iteration, _longest(rows, policy, recipe), temperatures)
    found = in_shards(rows, load, recipe, folder, what)
    whole = [row for row in found if len(row["responses"]) == _turns(row)]
    answers = {row["prompt_id"]: row["responses"] for row in found}
    dropped = _dropped(rows, answers, policy, recipe)
    return answered_rows(whole, dropped, policy, recipe)


def asked(row: Prompted, answers: Sequence[str]) -> list[Message]:
    """The conversation up to the user's first turn without an answer.

    >>> row = {"prompt": [{"role": "user", "content": text} for text in ("Hi", "Why?")]}
    >>> [message["content"] for message in asked(row, ["Hey."])]
    ['Hi', 'Hey.', 'Why?']
    """
    messages: list[Message] = []
    left = iter(answers)
    for message in row["prompt"]:
        messages.append(message)
        if message["role"] == "user":
            answer = next(left, None)
            if answer is None:
                break
            messages.append({"role": "assistant", "content": answer})
    return messages


def _turns(row: Prompted) -> int:
    return sum(message["role"] == "user" for message in row["prompt"])


def _longest(rows: Sequence[DatasetRow], policy: str, recipe: Recipe) -> int | None:
    """Tokens of the longest prompt of a last turn, if all answers are as long as they may be."""
    if not rows:
        return None
    most = max(map(_turns, rows))
    whole = [row | {"prompt": asked(row, [""] * (_turns(row) - 1))} for row in rows]
    found = longest_prompt(whole, policy, recipe)
    return found and found + _AGAIN * (most - 1) * recipe.generation.max_tokens


def _prompt_ids(chat: Chat, row: Prompted, answers: Sequence[str]) -> list[int] | str:
    """Tokens of the next turn's prompt, or the reason why the template refuses it."""
    return prompt_ids_of(chat, {**row, "prompt": asked(row, answers)})


def _dropped(
    rows: Sequence[DatasetRow], answers: Mapping[str, Sequence[str]], policy: str, recipe: Recipe
) -> Drops:
    """Why rows do not have all answers."""
    drops = Drops()
    chat: Chat | None = None
    for row in rows:
        has = answers.get(row["prompt_id"], [])
        if len(has) == _turns(row):
            continue
        chat = chat or load_chat(policy, recipe.model)
        found = _prompt_ids(chat, row, has)
        no_room = f"{NO_ROOM_FOR_TURN}{len(has) + 1}" if has else TOO_LONG
        drops.add(found if isinstance(found, str) else no_room, row_name(row))
    return drops


def _load(
    policy: str,
    recipe: Recipe,
    iteration: int,
    longest: int | None,
    temperatures: Mapping[str, float],
) -> Work[DatasetRow, ResponseRow]:
    """A worker: it loads the policy in an engine and answers the turns of each shard's rows."""
    engine = load_engine(policy, recipe.model, recipe.generation, longest)
    return lambda shard: _answer(shard, engine, recipe, iteration, temperatures)


def _answer(
    shard: list[DatasetRow],
    engine: Engine,
    recipe: Recipe,
    iteration: int,
    temperatures: Mapping[str, float],
) -> list[ResponseRow]:
    """Rows with their answers. One that cannot be asked its next turn has fewer answers, which
    `converse` sees, or is left out if it has none."""
    answers: list[list[Response]] = [[] for _ in shard]
    for turn in range(max(map(_turns, shard))):
        prompts: dict[int, list[int]] = {}
        for i, row in enumerate(shard):
            if len(answers[i]) == turn < _turns(row):
                ids = _prompt_ids(engine.chat, row, [answer.text for answer in answers[i]])
                if not isinstance(ids, str) and len(ids) <= engine.max_prompt_tokens:
                    prompts[i] = ids
        names = [shard[i]["prompt_id"] for i in prompts]
        responses = engine.generate(
            list(prompts.values()),
            [sample_seed(recipe.seed, iteration, name, turn) for name in names],
            [temperatures[name] for name in names],
        )
        for i, response in zip(prompts, responses, strict=True):
            answers[i].append(response)
    return [response_row(row, found) for row, found in zip(shard, answers, strict=True) if found]
