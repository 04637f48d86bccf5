"""Turns preference rows into the token ids that the trainer reads."""

from collections.abc import Iterable, Mapping
from typing import Any, NotRequired, TypedDict

from selm.data.drops import Drops, row_name
from selm.data.prompts import as_messages, as_text
from selm.data.schemas import DatasetRow, PairRow
from selm.model.chat import Chat, TemplateRefusal

# explored_role as a number: an index into (chosen, rejected, a third response).
ROLES = {"chosen": 0, "rejected": 1, "neither": 2}


class TokenRow(TypedDict):
    """A pair and the explored response as token ids.

    `explored_ids` is empty if the explored response is also the chosen or the rejected one. The
    reference's log-probs are added once they are computed.
    """

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    explored_ids: list[int]
    explored_role: int  # see ROLES
    ref_chosen_logps: NotRequired[float]
    ref_rejected_logps: NotRequired[float]
    ref_explored_logps: NotRequired[float]


def as_pair(row: DatasetRow) -> PairRow:
    """The dataset's own pair."""
    return {
        "prompt_id": row["prompt_id"],
        "prompt": row["prompt"],
        "tools": row["tools"],
        "chosen": as_messages(row["chosen"] or ""),
        "rejected": as_messages(row["rejected"] or ""),
    }


def tokenize(
    rows: Iterable[PairRow], chat: Chat, max_length: int | None, with_explored: bool
) -> tuple[list[TokenRow], Drops]:
    """Token ids of every usable row, and how many were dropped for which reason.

    Each response is truncated to `max_length - len(prompt)` tokens. A row is dropped if its prompt
    leaves no room, if the chat template refuses it, if a response has no token of its own (the
    policy reached the limit before it said anything), or if chosen and rejected are equal after
    the truncation.

    Args:
        rows: the columns of a `PreferenceRow` are needed only if with_explored.
    """
    examples: list[TokenRow] = []
    dropped = Drops()
    for row in rows:
        try:
            example = _tokenize(row, chat, max_length, with_explored)
        except TemplateRefusal as refusal:
            example = refusal.reason
        if isinstance(example, str):
            dropped.add(example, row_name(row))
        else:
            examples.append(example)
    return examples, dropped


def _tokenize(
    row: Mapping[str, Any], chat: Chat, max_length: int | None, with_explored: bool
) -> TokenRow | str:
    tools = row.get("tools")
    prompt_ids = chat.prompt_ids(row["prompt"], tools)
    room = None if max_length is None else max_length - len(prompt_ids)
    if room is not None and room <= 0:
        return "prompt_longer_than_max_length"

    def ids(text: str, which: str) -> list[int]:
        finished = row.get(f"{which}_finish_reason") != "length"
        return chat.response_ids(row["prompt"], text, finished, tools)[:room]

    chosen_ids = ids(as_text(row["chosen"]) or "", "chosen")
    rejected_ids = ids(as_text(row["rejected"]) or "", "rejected")
    if not chosen_ids or not rejected_ids:
        return "empty_response"
    if chosen_ids == rejected_ids:
        return "identical_after_truncation"
    example: TokenRow = {
        "prompt_ids": prompt_ids,
        "chosen_ids": chosen_ids,
        "rejected_ids": rejected_ids,
        "explored_ids": [],
        "explored_role": ROLES["chosen"],
    }
    if with_explored:
        role = row["explored_role"]
        if role == "neither":
            example["explored_ids"] = ids(row["explored"], "explored")
            if not example["explored_ids"]:
                return "empty_response"
        example["explored_role"] = ROLES[role]
    return example


def length(example: TokenRow) -> int:
    """Number of tokens of an example; the prompt counts once."""
    responses = (example[key] for key in ("chosen_ids", "rejected_ids", "explored_ids"))
    return len(example["prompt_ids"]) + sum(map(len, responses))
