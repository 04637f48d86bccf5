"""Reads an endpoint's error, in the forms and words of many servers.

OpenAI, vLLM, SGLang, llama.cpp, Ollama, TGI, LM Studio, Anthropic, Gemini, Mistral, Groq, Together,
Cohere, DeepSeek, Bedrock and others say the same things in other words, codes and places.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Keys of an error's JSON, for people and for programs.
_WORDS = (
    *("error", "errors", "message", "error_message", "msg", "detail", "details", "description"),
    *("reason", "loc", "metadata", "raw"),
)
_CODES = ("code", "type", "error_type", "error_code", "status", "param", "name")
_DEEPEST = 8
_MOST_WORDS = 10_000  # characters of an error that are read

_TOO_LONG_CODES = {
    *("context_length_exceeded", "exceed_context_size_error", "context_window_exceeded"),
    *("contextwindowexceedederror", "request_too_large", "string_above_max_length"),
    *("model_max_prompt_tokens_exceeded", "model_context_window_exceeded", "prompt_too_long"),
    *("input_too_long", "context_length_error", "payload_too_large", "request_entity_too_large"),
}
# What can be too long, and the words for that: servers' errors contain both.
_QUESTION = re.compile(
    r"token|\b(prompt|inputs?|context|messages?|conversation|query|question|sequence|payload|"
    r"text|request)\b|body (is )?too|context_|content length|inputtoolong|contextwindow"
)
_TOO_MUCH = re.compile(
    r"exceed|surpass|too ?(long|large|many|big)|(long|larg|great)er than|(more|less|fewer) than"
    r"|at most|maxim|max\b|max[ _](model|seq|input|num|position)|limit|>|<=|reduce|shorten|truncat"
    r"|capacity|window|context (length|size)|overflow|range of input length|at least 1, got -"
)
_IN_A_CRASH = re.compile(r"context (length|size|window)|token|prompt|input length")  # 5xx: no less
# Of the answer, which the recipe limits: of all pairs alike, so the recipe must be corrected.
_OF_ANSWER = re.compile(
    r"max(_completion|_new|_output)?_tokens['\"`]?( value)?( is| must| should| cannot| can't|:|,)"
    r"|completion tokens|output tokens"
)
_OF_QUESTION = re.compile(r"context|got -|\b(prompts?|inputs?|messages?|request)\b|\bsum\b")
_OF_FORM = re.compile(r"input should|input validation error|unexpected token|invalid json")
_OF_RATE = re.compile(
    r"rate[ _-]?limit|requests? limit|too many requests|quota|\b[tr]pm\b"
    r"|per[ _-](second|min|minute|hour|day)"
)
_LARGE_FOR_RATE = re.compile(r"request too large|request is too large")

_FILTERED = re.compile(
    r"content[ _-]?(filter|policy|management|moderation)|moderation|data_?inspection"
    r"|safety (system|filter|polic)|responsible ?ai|prohibited_content|flagged"
)
_NO_SCHEMA = re.compile(
    r"response[ _]?format|json[ _]?(schema|mode|object)|structured|guided|grammar|output_format"
)
_UNSUPPORTED = re.compile(
    r"not (be )?(support|permit|allow|accept|recogni|available)|unsupported|unrecogni|unknown"
    r"|extra|unexpected|deprecat|no longer|unavailable|invalid (param|arg)|not (accept|take)"
)
_REFUSED = re.compile(rf"{_UNSUPPORTED.pattern}|invalid|fail|compil|must|only|\bno\b|not valid")
# OpenAI's word for a reasoning model that was cut off before it said anything.
_UNFINISHED = re.compile(r"could not finish the message")
_OUT_OF_CREDIT = re.compile(
    r"insufficient_quota|billing|credit balance|insufficient (balance|fund|credit)"
)


@dataclass(frozen=True)
class ServerError:
    """An error read.

    Attributes:
        status: of HTTP, or the one that the body names where HTTP's is 200.
        words: for people; the whole body if no words are found in it.
        codes: for programs, in lower case: code, type, parameter and so on.
    """

    status: int
    words: str
    codes: frozenset[str]

    @property
    def all(self) -> str:
        return f"{self.words} {' '.join(sorted(self.codes))}".lower()

    @property
    def is_too_long(self) -> bool:
        """Whether the question exceeds the model's context or another limit of a request."""
        if self.status == 413 or self.codes & _TOO_LONG_CODES:
            return True
        words = self.words.lower()
        if self.status == 429:  # too large for the limit per minute, also in the next minute
            return bool(_LARGE_FOR_RATE.search(words))
        if self.is_unfinished or self.status not in (400, 422, 500) or _OF_RATE.search(words):
            return False
        if self.status == 500 and ("memory" in words or not _IN_A_CRASH.search(words)):
            return False
        words = _OF_FORM.sub("", words)
        if _NO_SCHEMA.search(words) and "token" not in words and "context" not in words:
            return False
        if _OF_ANSWER.search(words) and not _OF_QUESTION.search(words):
            return False
        return bool(_QUESTION.search(words) and _TOO_MUCH.search(words))

    @property
    def is_filtered(self) -> bool:
        return self.status in (400, 403, 422, 451) and bool(_FILTERED.search(self.all))

    @property
    def is_about_body(self) -> bool:
        """It refuses what was sent; whatever else passes, or has nothing to do with the request."""
        return self.status in (400, 415, 422)

    @property
    def is_about_schema(self) -> bool:
        words = self.all
        return bool(self.is_about_body and _NO_SCHEMA.search(words) and _REFUSED.search(words))

    @property
    def is_about_logprobs(self) -> bool:
        """Whether it refuses a request because of the log-probs that it asks for."""
        return self.status in (400, 403, 415, 422, 501) and "logprob" in self.all

    @property
    def is_unfinished(self) -> bool:
        """Whether the model used up its tokens, of which it has too few, without an answer."""
        return self.is_about_body and bool(_UNFINISHED.search(self.words.lower()))

    @property
    def is_out_of_credit(self) -> bool:
        return self.status == 402 or bool(_OUT_OF_CREDIT.search(self.all))

    def refuses(self, parameter: str) -> bool:
        """Whether it says that it does not know this parameter of the request."""
        words = self.all
        return self.is_about_body and parameter in words and bool(_UNSUPPORTED.search(words))


def read(status: int, body: str) -> ServerError:
    """An error's words and codes; a body that is not JSON counts as words."""
    content = parsed(body)
    words = list(dict.fromkeys(_found(content, _WORDS)))
    codes = list(dict.fromkeys(_found(content, _CODES)))
    if status == 200:
        status = next((int(code) for code in codes if re.fullmatch("[45][0-9]{2}", code)), status)
    shown = [*words, *_own_code(content)] if words else [body]
    return ServerError(
        status, " ".join(shown)[:_MOST_WORDS], frozenset(code.lower() for code in codes)
    )


def parsed(body: str) -> Any:
    """The JSON of a body; None if it is not JSON, or nested deeper than Python reads."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _found(content: Any, wanted: tuple[str, ...], depth: int = 0, key: str = "") -> Iterator[str]:
    """The texts and numbers under the wanted keys, at any place where errors have them."""
    if depth > _DEEPEST:
        return
    if isinstance(content, dict):
        for name, value in content.items():
            if name in wanted or isinstance(value, dict | list):
                yield from _found(value, wanted, depth + 1, name)
    elif isinstance(content, list):
        for value in content:
            yield from _found(value, wanted, depth + 1, key)
    elif key in wanted and isinstance(content, str | int) and not isinstance(content, bool):
        yield str(content)


def _own_code(content: Any) -> list[str]:
    """OpenAI's `error.code` if it is a word, which users can search for."""
    error = content.get("error") if isinstance(content, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return [code] if isinstance(code, str) else []
