"""Reads a chat completion: the text, why it ended, tokens, and the log-probs of the first token."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from selm.ranking import server_error
from selm.ranking.base import Reply
from selm.ranking.kept import MOST_TOKENS

_LARGEST = 1e9  # a log-prob beyond that is none


@dataclass(frozen=True)
class Answer(Reply):
    """A reply, and the keys of the request that the endpoint refuses, so that it came without them.

    Of a request's "top_logprobs", a smaller number may have been sent instead.
    """

    left_out: frozenset[str] = frozenset()


def read(body: str) -> Answer | None:
    """The answer in a body; None if it is not a chat completion."""
    content = server_error.parsed(body)
    try:
        choice = content["choices"][0]
        reason = str(choice.get("finish_reason"))
        if reason.startswith("content_filter") and not choice.get("message"):
            return Answer("", "content_filter")
        message, usage = choice["message"], content.get("usage") or {}
        refusal = message.get("refusal")
        return Answer(
            text=_text(message.get("content")) or _text(refusal),
            finish_reason="content_filter" if refusal else reason,
            prompt_tokens=_count(usage.get("prompt_tokens")),
            completion_tokens=_count(usage.get("completion_tokens")),
            logprobs=_logprobs(choice.get("logprobs")),
        )
    except (KeyError, IndexError, TypeError, AttributeError):
        return None


def _text(content: Any) -> str:
    """The text of a message's content: a text, null, or a list of parts."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _count(value: Any) -> int:
    """A number of tokens; 0 if the server's value cannot be one."""
    is_count = isinstance(value, int | float) and 0 <= value < MOST_TOKENS
    return int(value) if is_count else 0


def _logprobs(found: Any) -> dict[str, float] | None:
    """Token -> log-prob of the likeliest first tokens; None if the endpoint says nothing of them.

    OpenAI's form is {"content": [{"token", "logprob", "top_logprobs": [{"token", "logprob"}]}]}.
    Some servers keep that of older completions: {"top_logprobs": [{token: logprob}]}.
    """
    likeliest: dict[str, float] = {}
    for token, logprob in _tokens(found):
        is_number = isinstance(logprob, int | float) and not isinstance(logprob, bool)
        if isinstance(token, str) and is_number and abs(logprob) < _LARGEST:
            likeliest[token] = max(float(logprob), likeliest.get(token, -math.inf))
    return likeliest or None


def _tokens(found: Any) -> Iterator[tuple[Any, Any]]:
    """The pairs of a token and its log-prob, whatever they are."""
    first = _first(found, "content") or _first(found, "top_logprobs")
    if not isinstance(first, dict):
        return
    if "token" not in first and "top_logprobs" not in first:
        yield from first.items()
        return
    others = first.get("top_logprobs")
    for each in (first, *(others if isinstance(others, list) else [])):
        if isinstance(each, dict):
            yield each.get("token"), each.get("logprob")


def _first(found: Any, key: str) -> Any:
    values = found.get(key) if isinstance(found, dict) else None
    return values[0] if isinstance(values, list) and values else None
