"""Turns the messages of datasets into ours; prompts and their ids.

A message is {"role", "content"}, and content is a text. With tools, a message may also have
`tool_calls`, or `name` and `tool_call_id` if it holds the result of a tool.
"""

import ast
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from selm.data.drops import Dropped
from selm.data.schemas import Message, Text, Tool

# ShareGPT's names of roles, and those that its users have added.
_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bot", "model"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function_response"), "tool"),
    "system": "system",
}
_TEXT_PARTS = {"text", "input_text", "output_text"}
_MEDIA = ("image", "audio", "video")
_TURN = re.compile(r"\n\n(Human|Assistant):")

# The start of a list of messages that was saved as text, as in CSV.
_WRITTEN = re.compile(r"""\s*\[\s*\{\s*['"](?:role|content|from|value)['"]\s*:""")


def text(value: Any) -> str | None:
    """A text or a number as text; None for anything else.

    >>> text("a"), text(7), text(True), text(None), text(float("nan"))
    ('a', '7', 'true', None, None)
    """
    if isinstance(value, str):
        return value
    finite = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return json.dumps(value) if finite else None


def as_messages(response: str | None) -> list[Text] | None:
    """A response's text in the form of the schemas."""
    return None if response is None else [{"role": "assistant", "content": response}]


def as_text(messages: Sequence[Text] | None) -> str | None:
    """The inverse of `as_messages`."""
    return None if not messages else messages[0]["content"]


def messages(value: Any, what: str) -> list[Message]:
    """One message or a list of them, in OpenAI's form or in ShareGPT's.

    >>> messages({"from": "human", "value": "Hi"}, "prompt")
    [{'role': 'user', 'content': 'Hi'}]
    """
    found = [value] if isinstance(value, dict) else value
    if isinstance(found, str):
        found = written(found)
    if not isinstance(found, list):
        raise Dropped(f"{what}_is_no_text" if found is not None else f"{what}_are_no_messages")
    if any(not isinstance(message, dict) for message in found):
        raise Dropped(f"{what}_is_no_text")
    return [_message(message) for message in found]


def written(value: Any) -> list[Any] | None:
    """The messages of which a text is the JSON or Python form; None for any other text.

    >>> written("[{'role': 'user', 'content': 'Hi'}]"), written("Hi")
    ([{'role': 'user', 'content': 'Hi'}], None)
    """
    if not isinstance(value, str) or not _WRITTEN.match(value):
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = _literal(value)
    if not isinstance(found, list):
        raise Dropped("messages_written_as_text")
    return found


def _literal(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _message(value: dict[str, Any]) -> Message:
    if isinstance(value.get("role"), str):
        role, content = value["role"], value.get("content")
        if "content" not in value and not _has_call(value):
            raise Dropped("messages_without_role_and_content")
    elif isinstance(value.get("from"), str) and "value" in value:
        if value["from"] == "function_call":
            return {"role": "assistant", "content": "", "tool_calls": _calls(value["value"])}
        role, content = _ROLES.get(value["from"], value["from"]), value["value"]
    else:
        raise Dropped("messages_without_role_and_content")
    message: Message = {"role": role, "content": _content(content)}
    if _has_call(value):
        message["tool_calls"] = _calls(value.get("tool_calls") or value["function_call"])
    for key in ("name", "tool_call_id"):
        if role == "tool" and isinstance(value.get(key), str):
            message[key] = value[key]
    return message


def _has_call(value: dict[str, Any]) -> bool:
    return bool(value.get("tool_calls") or value.get("function_call"))


def _content(value: Any) -> str:
    """The content as one text; parts of text are joined, and other parts drop the row."""
    if value is None:
        return ""
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list):
        return "".join(map(_part, value))
    found = text(value)
    if found is None:
        raise Dropped("message_content_is_no_text")
    return found


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise Dropped("message_content_is_no_text")
    kind = str(part.get("type") or "text")
    if kind in _TEXT_PARTS and isinstance(part.get("text"), str):
        return part["text"]
    if any(word in kind for word in _MEDIA):
        raise Dropped("message_has_image_audio_or_video")
    raise Dropped("message_content_is_no_text")


def _calls(value: Any) -> list[dict[str, Any]]:
    """Calls of functions with their arguments as objects, as chat templates expect them."""
    found = _parsed(value, "tool_calls_are_no_json")
    found = [found] if isinstance(found, dict) else found
    if not isinstance(found, list) or not all(isinstance(call, dict) for call in found):
        raise Dropped("tool_calls_are_no_json")
    return [_call(without_nulls(call)) for call in found]


def _call(call: dict[str, Any]) -> dict[str, Any]:
    if "function" not in call and "name" in call:
        call = {"type": "function", "function": call}
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Dropped("tool_calls_without_a_function")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        arguments = _parsed(arguments or "{}", "tool_calls_are_no_json")
    return call | {"function": function | {"arguments": arguments}}


def tools(value: Any) -> list[Tool] | None:
    """The functions that a prompt offers, as objects or as their JSON text; None if there are none.

    >>> tools('[{"type": "function", "function": {"name": "f", "strict": null}}]')
    [{'type': 'function', 'function': {'name': 'f'}}]
    """
    if isinstance(value, str) and not value.strip():
        return None
    found = _parsed(value, "tools_are_no_json")
    found = [found] if isinstance(found, dict) else found
    if not found:
        return None
    if not isinstance(found, list):
        raise Dropped("tools_are_no_json")
    found = [_parsed(tool, "tools_are_no_json") for tool in found]
    if not all(isinstance(tool, dict) and tool_name(tool) for tool in found):
        raise Dropped("tools_without_a_name")
    return [without_nulls(tool) for tool in found]


def tool_name(tool: Mapping[str, Any]) -> str:
    """The name in a tool or a call: `{"function": {"name"}}` or `{"name"}`; empty without one."""
    function = tool.get("function")
    named = function if isinstance(function, dict) else tool
    name = named.get("name")
    return name if isinstance(name, str) else ""


def _parsed(value: Any, reason: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Dropped(reason) from error


def without_nulls(value: Any) -> Any:
    """The value without null entries of its objects; Parquet adds many."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


def dialogue(value: Any) -> list[Message] | None:
    """The turns of a text as in hh-rlhf; None if it is another text.

    >>> dialogue("\\n\\nHuman: Hi\\n\\nAssistant: Hey.")
    [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hey.'}]
    """
    if not isinstance(value, str) or not value.lstrip().startswith("Human:"):
        return None
    _, *turns = _TURN.split(f"\n\n{value.lstrip()}")
    names, contents = turns[::2], turns[1::2]
    if "Assistant" not in names:
        return None
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[name], "content": content.strip()}
        for name, content in zip(names, contents, strict=True)
    ]


def prompt_of_text(value: str) -> tuple[list[Message], bool]:
    """The messages of a prompt that is a text, and whether it is a whole dialogue."""
    turns = dialogue(value)
    if turns is None or turns[-1] != {"role": "assistant", "content": ""}:
        return [{"role": "user", "content": value}], False
    return turns[:-1], True


def same(first: Sequence[Message], second: Sequence[Message]) -> bool:
    """Whether two prompts are the same except for white space."""
    return [_key(message) for message in first] == [_key(message) for message in second]


def _key(message: Message) -> dict[str, Any]:
    return message | {"content": " ".join(message["content"].split())}


def joined(
    asked: Sequence[Message], before: Sequence[Message], asked_is_text: bool
) -> list[Message]:
    """One prompt from a row's own prompt and the turns before a response.

    If one is a part of the other, the longer one is used: UltraFeedback's `prompt` is only the
    first of several turns, and a system message may be in only one of the two.

    Raises:
        Dropped: the response answers another prompt.
    """
    if not before or not asked:
        return list(before or asked)
    if asked_is_text:
        said = _key(asked[-1])["content"]
        turns = [_key(message)["content"] for message in before if message["role"] == "user"]
        if any(turn and (turn in said or said in turn) for turn in turns):
            return list(before)
        raise Dropped("response_to_another_prompt")
    if same(asked, before) or same(_without_system(asked), before):
        return list(asked)
    if same(asked, before[: len(asked)]):
        return list(before)
    if same(asked, _without_system(before)[: len(asked)]):
        return list(before)
    raise Dropped("response_to_another_prompt")


def _without_system(found: Sequence[Message]) -> Sequence[Message]:
    return found[1:] if found and found[0]["role"] == "system" else found


def with_system(prompt: list[Message], system: Any) -> list[Message]:
    """The prompt after the system message of the column, unless it has its own."""
    if system is None or prompt[0]["role"] == "system":
        return prompt
    found = text(system)
    if found is None:
        raise Dropped("system_is_no_text")
    return [{"role": "system", "content": found}, *prompt] if found.strip() else prompt


def prompt_hash(prompt: Sequence[Message], offered: Sequence[Tool] | None) -> str:
    """A hash that is equal for two rows with the same prompt and tools."""
    whole = {"prompt": prompt, "tools": offered} if offered else prompt
    return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()
