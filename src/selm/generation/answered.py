"""What `respond` and `converse` share: rows with prompts in, rows with answers out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from selm.data.columns import as_json
from selm.data.drops import Drops, in_words
from selm.data.prompts import as_messages
from selm.data.schemas import DatasetRow, Prompted, ResponseRow
from selm.errors import UserError
from selm.generation.base import Response
from selm.generation.kinds import KINDS
from selm.model.chat import prompt_ids_of
from selm.model.probe import load_chat
from selm.recipe.schema import Recipe
from selm.run.shards import run_shards
from selm.run.workers import Load, Workers

# Reasons of dropped rows; the second one ends in the number of the turn.
TOO_LONG, NO_ROOM_FOR_TURN = "prompt_longer_than_context", "no_room_for_turn_"


@dataclass(frozen=True)
class Answered:
    """The rows, generated tokens, and prompts that were dropped."""

    rows: list[ResponseRow]
    tokens: int
    dropped: Drops


def in_shards(
    rows: Sequence[DatasetRow],
    load: Load[DatasetRow, ResponseRow],
    recipe: Recipe,
    folder: Path,
    what: str,
) -> list[ResponseRow]:
    """The answers by the recipe's workers; see `run_shards`."""
    settings = recipe.generation
    workers = Workers(settings.workers, settings.tensor_parallel_size, "generation.workers")
    return run_shards(rows, load, ResponseRow, folder, settings.shard_size, what, workers)


def longest_prompt(rows: Iterable[Prompted], policy: str, recipe: Recipe) -> int | None:
    """Tokens of the longest prompt; None if the recipe's engine does not want to know."""
    if not KINDS[recipe.generation.engine].wants_longest_prompt:
        return None
    chat = load_chat(policy, recipe.model)
    found = [prompt_ids_of(chat, row) for row in rows]
    return max((len(ids) for ids in found if not isinstance(ids, str)), default=1)


def response_row(row: DatasetRow, responses: Sequence[Response]) -> ResponseRow:
    return {
        "prompt_id": row["prompt_id"],
        "prompt": row["prompt"],
        "tools": row.get("tools"),
        "chosen": as_messages(row["chosen"]),
        "rejected": as_messages(row["rejected"]),
        "responses": [response.text for response in responses],
        "finish_reasons": [response.finish_reason for response in responses],
        "num_tokens": [response.num_tokens for response in responses],
        "columns": as_json(row["columns"]),
    }


def answered_rows(rows: list[ResponseRow], dropped: Drops, policy: str, recipe: Recipe) -> Answered:
    """Rows with answers; UserError if there are none."""
    if not rows:
        raise UserError(_nothing(dropped, policy, recipe))
    return Answered(rows, sum(sum(row["num_tokens"]) for row in rows), dropped)


def _nothing(dropped: Drops, policy: str, recipe: Recipe) -> str:
    """The error if no prompt has an answer."""
    if any(reason.startswith((TOO_LONG, NO_ROOM_FOR_TURN)) for reason in dropped):
        return (
            f"generation.max_tokens: {recipe.generation.max_tokens} leaves no room for any prompt "
            f"in the context of {policy} ({in_words(dropped)})"
        )
    return f"model.chat_template: that of {policy} takes no prompt ({in_words(dropped)})"
