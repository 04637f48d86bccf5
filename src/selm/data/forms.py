"""Turns a row in any known form into a `DatasetRow`, or into the reason why it is dropped."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from selm.data.drops import Dropped
from selm.data.prompts import (
    dialogue,
    joined,
    messages,
    prompt_hash,
    prompt_of_text,
    same,
    text,
    tools,
    with_system,
    written,
)
from selm.data.schemas import DatasetRow, Message

WANTED = (
    "prompt (and chosen, rejected for pairs), as text or messages; chosen and rejected as whole "
    "dialogues; or messages, conversations or instruction in place of prompt"
)

# The columns that become the prompt and the pair; all others are kept for function rankers.
_OWN_COLUMNS = ("prompt_id", "prompt", "chosen", "rejected")

# Columns that hold a prompt if there is no column `prompt`.
_PROMPT_COLUMNS = ("prompt", "messages", "conversations", "instruction")


def lacking(columns: Iterable[str]) -> str | None:
    """What is missing in a dataset with these columns; None if nothing is."""
    found = set(columns)
    pair = found & {"chosen", "rejected"}
    if len(pair) == 1:
        return "a dataset needs both chosen and rejected, or neither"
    if not pair and not found & set(_PROMPT_COLUMNS):
        return f"wanted: {WANTED}"
    return None


def normalise(raw: dict[str, Any]) -> DatasetRow | str:
    """The row as a `DatasetRow`, or the reason why it is dropped.

    Reads UltraFeedback-binarized rows (prompt a string, chosen and rejected whole conversations),
    TRL's forms (messages or strings, with or without an explicit prompt), hh-rlhf's dialogues,
    ShareGPT's conversations and prompts alone.

    >>> normalise({"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"})["prompt"]
    [{'role': 'user', 'content': 'Hi'}]
    """
    try:
        return _row(raw)
    except Dropped as dropped:
        return str(dropped)
    except RecursionError:
        return "row_is_nested_too_deep"


def _row(raw: dict[str, Any]) -> DatasetRow:
    _refuse_media(raw)
    offered = tools(raw.get("tools"))
    asked, is_text, is_dialogue = _asked(raw)
    has_pair = "chosen" in raw or "rejected" in raw
    answers = [_answer(raw.get(which), which, asked) for which in ("chosen", "rejected")]
    prompt = _prompt(raw, asked, is_text, [answer.before for answer in answers if answer.before])
    pair: tuple[str | None, str | None] = (None, None)
    if has_pair:
        chosen, rejected = (a.text.strip() if is_dialogue else a.text for a in answers)
        if not chosen.strip() or not rejected.strip():
            raise Dropped("empty_response")
        if chosen == rejected:
            raise Dropped("chosen_is_rejected")
        pair = (chosen, rejected)
    _refuse_half_characters(prompt, pair)
    return {
        "prompt_id": _given_id(raw.get("prompt_id")) or prompt_hash(prompt, offered),
        "prompt": prompt,
        "tools": offered,
        "chosen": pair[0],
        "rejected": pair[1],
        "columns": {key: value for key, value in raw.items() if key not in _OWN_COLUMNS},
    }


def _asked(raw: dict[str, Any]) -> tuple[list[Message], bool, bool]:
    """The messages in `prompt`; whether it is one text; whether it is a dialogue as in hh-rlhf."""
    value = raw.get("prompt")
    if value is None:
        return [], False, False
    value = written(value) or value
    as_text = text(value)
    if as_text is None:
        return messages(value, "prompt"), False, False
    if not as_text.strip():
        return [], False, False
    found, is_dialogue = prompt_of_text(as_text)
    return found, not is_dialogue, is_dialogue


@dataclass(frozen=True)
class _Answer:
    """A response's text, and the conversation before it if the column holds it."""

    before: list[Message]
    text: str


def _answer(value: Any, which: str, asked: list[Message]) -> _Answer:
    if value is None:
        return _Answer([], "")
    value = written(value) or value
    as_text = text(value)
    turns = dialogue(as_text) if not asked else None
    if as_text is not None and turns is None:
        return _Answer([], as_text)
    turns = messages(value, which) if turns is None else turns
    if not turns:
        return _Answer([], "")
    last = turns[-1]
    if last["role"] != "assistant":
        raise Dropped("dialogue_does_not_end_with_assistant")
    if "tool_calls" in last:
        raise Dropped("answer_is_a_tool_call")
    if asked and len(turns) > 1 and turns[0]["role"] == "assistant" != asked[0]["role"]:
        raise Dropped("response_of_several_turns")
    return _Answer(turns[:-1], last["content"])


def _prompt(
    raw: dict[str, Any], asked: list[Message], is_text: bool, befores: list[list[Message]]
) -> list[Message]:
    """The whole prompt, including turns from the responses' columns and the system column."""
    found = asked
    if not asked and not befores:
        found = _of_other_columns(raw)
    prompts = [joined(asked, before, is_text) for before in befores] or [found]
    if any(not same(prompts[0], other) for other in prompts[1:]):
        raise Dropped("response_to_another_prompt")
    prompt = prompts[0]
    if not prompt or not prompt[-1]["content"].strip():
        given = raw.keys() & {*_PROMPT_COLUMNS, "question"}
        raise Dropped("empty_prompt" if given else "no_prompt")
    if prompt[-1]["role"] not in ("user", "tool"):
        raise Dropped("prompt_does_not_end_with_user")
    return with_system(prompt, raw.get("system"))


def _of_other_columns(raw: dict[str, Any]) -> list[Message]:
    """The prompt of a dataset without `prompt`: the turns before an answer, or Alpaca's fields."""
    for column in ("messages", "conversations"):
        if raw.get(column) is not None:
            turns = messages(raw[column], column)
            return turns[:-1] if turns and turns[-1]["role"] == "assistant" else turns
    asked = raw.get("instruction", raw.get("question"))
    if asked is None:
        return []
    found = text(asked)
    if found is None:
        raise Dropped("prompt_is_no_text")
    more = text(raw.get("input")) or ""
    return [{"role": "user", "content": f"{found}\n\n{more}" if more.strip() else found}]


def _refuse_media(raw: dict[str, Any]) -> None:
    """Drop a row with media: the policy would answer without seeing them."""
    if any(raw.get(name) for name in ("image", "images")) or any(map(_is_media, raw.values())):
        raise Dropped("row_has_image_audio_or_video")


def _is_media(value: Any) -> bool:
    """Whether a value has the form that `datasets` gives to images, audio and video."""
    if isinstance(value, list):
        return bool(value) and _is_media(value[0])
    if not isinstance(value, dict):
        return False
    return bool({"bytes", "array"} & value.keys()) and bool(
        {"path", "sampling_rate"} & value.keys()
    )


def _refuse_half_characters(prompt: list[Message], pair: tuple[str | None, str | None]) -> None:
    """Drop half of an emoji, which JSON can hold but tokenizers and our files cannot."""
    texts = [text for message in prompt for text in _texts(message)]
    try:
        "".join([*texts, *(response or "" for response in pair)]).encode()
    except UnicodeEncodeError as error:
        raise Dropped("text_with_half_a_character") from error


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _given_id(value: Any) -> str | None:
    """The dataset's own id, if it can be one."""
    if not value or not isinstance(value, str | int | float):
        return None
    found = text(value) or ""
    return found if found.isprintable() and len(found) <= 200 else None
