"""Puts prompts and responses into templates for LLMs."""

import json
import re
from collections.abc import Mapping
from typing import Any

from selm.ranking.base import Prompt


def filled(template: str, values: Mapping[str, str]) -> str:
    """The template with values in place of the names in braces, whatever the values contain.

    >>> filled("{a} | {b} {} {c}", {"a": "{b}", "b": "{a}"})
    '{b} | {a} {} {c}'
    """
    names = re.compile("|".join(f"{{{re.escape(name)}}}" for name in values))
    return names.sub(lambda found: values[found.group()[1:-1]], template)


def conversation(prompt: Prompt) -> str:
    """The text of a single user turn; several turns have their roles."""
    if len(prompt) == 1:
        return _words(prompt[0])
    return "\n\n".join(f"{message['role']}: {_words(message)}" for message in prompt)


def _words(message: Mapping[str, Any]) -> str:
    """A message's content, and the calls of tools in it as JSON."""
    calls = [json.dumps(call, ensure_ascii=False) for call in message.get("tool_calls") or []]
    return "\n".join(filter(None, [message["content"], *calls]))
