"""An OpenAI-compatible chat endpoint, asked by several threads: retries, rate limits, errors.

What passes by itself (429, 5xx, time-outs, broken answers) is tried again with growing pauses; what
does not (a wrong key, an unknown model, nobody listening) is a `UserError` at once.
"""

import os
import random
import threading
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2
from tqdm import tqdm

from selm.errors import UserError
from selm.recipe import Judge

ATTEMPTS = 8  # of one request, before a server that fails is given up; 429 does not count
LONGEST_PAUSE_SECONDS = 60.0  # between two attempts, unless the server names another time
PATIENCE_SECONDS = 600.0  # for a time that the server names, or while there are rate limits alone

_RETRIED = {408, 409, 425}  # beside 429 and 5xx
_TOO_LONG = ("context_length", "context length", "maximum model length", "too many tokens")
_FILTERED = ("content_filter", "content_policy", "content management policy")
_NO_SCHEMA = ("response_format", "json_schema", "structured", "guided", "grammar")
_NEW_LIMIT = "max_completion_tokens"  # what OpenAI's reasoning models call max_tokens


@dataclass(frozen=True)
class Answer:
    """What a model said. `finish_reason` is the endpoint's, or one of the following.

    "content_filter": refused by the endpoint. "too_long": the question exceeds the model's context.
    """

    text: str
    finish_reason: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Stopped(Exception):
    """Raised in the threads that wait, after `Endpoint.stop`."""


class Endpoint:
    """Sends one user message per request and returns the answer. Safe to use from many threads.

    Args:
        model: its name at the endpoint.
        schema: JSON schema of the wanted answer, or None; left out once the server refuses it.
        pause_seconds: before the second attempt; doubled for each further one.
    """

    def __init__(
        self,
        model: str,
        settings: Judge,
        schema: dict[str, Any] | None,
        pause_seconds: float = 1.0,
    ) -> None:
        self.model, self.settings = model, settings
        self.url = f"{settings.base_url.rstrip('/')}/chat/completions"
        self.pause_seconds = pause_seconds
        self.pace = Pace(settings.requests_per_minute)
        self.reached = False
        self.last_answer = time.monotonic()
        self._schema = schema
        self._limit_key = "max_tokens"
        self._key = _api_key(settings.api_key_env)
        self._client = httpx2.Client(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else None,
            timeout=settings.timeout_seconds,
            limits=httpx2.Limits(max_connections=settings.concurrency),
            trust_env=urlsplit(self.url).hostname not in ("localhost", "127.0.0.1", "::1"),
        )

    def stop(self) -> None:
        """Lets the threads that wait for their turn end with `Stopped`."""
        self.pace.stopped.set()

    def ask(self, message: str) -> Answer:
        """The model's answer to one user message.

        Raises:
            UserError: nobody listens, the request is refused, or the server keeps failing.
            Stopped: see `stop`.
        """
        failures = limits = 0
        started = time.monotonic()
        while True:
            self.pace.wait()
            body = self._body(message)
            found: Answer | Failure
            try:
                response = self._client.post(self.url, json=body)
            except httpx2.RequestError as error:
                found = self._unreached(error)
            else:
                self.reached = True
                found = self._read(response, body)
            if isinstance(found, Answer):
                self.last_answer = time.monotonic()
                return found
            if found.adapted:
                continue
            failures, limits = failures + (not found.is_limit), limits + found.is_limit
            self._check_patience(found, failures, started)
            self._pause(found, failures + limits)

    def _body(self, message: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": message}],
            self._limit_key: self.settings.max_tokens,
        }
        if self.settings.temperature is not None:
            body["temperature"] = self.settings.temperature
        if self._schema is not None:
            schema = {"name": "answer", "strict": True, "schema": self._schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def _unreached(self, error: httpx2.RequestError) -> "Failure":
        if isinstance(error, httpx2.ConnectError) and not self.reached:
            raise UserError(
                f"ranking.judge.base_url: nothing answers at {self.url} ({error}); "
                "start the server there, or mend the URL"
            ) from error
        return Failure(" ".join(f"{type(error).__name__} {error}".split()))

    def _read(self, response: httpx2.Response, body: dict[str, Any]) -> "Answer | Failure":
        if response.status_code == 200:
            return _answer(response) or Failure(f"no chat completion but {self._shown(response)!r}")
        message = f"{response.status_code} {self._shown(response)}".strip()
        too_long = any(word in message.lower() for word in _TOO_LONG)
        if too_long and response.status_code in (400, 413, 422):
            return Answer("", "too_long")
        if self._adapt(message.lower(), body):
            return Failure(message, adapted=True)
        if response.status_code == 429 and "insufficient_quota" not in response.text:
            return Failure(message, _retry_after(response), is_limit=True)
        if response.status_code >= 500 or response.status_code in _RETRIED:
            return Failure(message, _retry_after(response))
        return self._refused(response.status_code, message)

    def _adapt(self, message: str, body: dict[str, Any]) -> bool:
        """True if the server refused a part of the body that can be left out or renamed."""
        if "response_format" in body and any(word in message for word in _NO_SCHEMA):
            if self._schema is not None:
                self._schema = None
                tqdm.write(f"{self.url}: takes no JSON schema; verdicts are read from plain text")
            return True
        if "max_tokens" in body and _NEW_LIMIT in message:
            self._limit_key = _NEW_LIMIT
            return True
        return False

    def _refused(self, status: int, message: str) -> Answer:
        """What another attempt would not change."""
        if status in (400, 403) and any(word in message.lower() for word in _FILTERED):
            return Answer("", "content_filter")
        if status in (401, 403):
            env = self.settings.api_key_env
            hint = f"the key in {env} is not accepted" if env else "set ranking.judge.api_key_env"
        elif status == 404:
            hint = f"is there a model {self.model!r}? base_url usually ends with /v1"
        else:
            hint = "see ranking.judge"
        raise UserError(f"{self.url}: {message}; {hint}")

    def _shown(self, response: httpx2.Response) -> str:
        """The start of the server's own words, on one line, without the key."""
        text = " ".join(_error_text(response).split())
        return (text.replace(self._key, "***") if self._key else text)[:200]

    def _check_patience(self, found: "Failure", failures: int, started: float) -> None:
        silent_seconds = time.monotonic() - max(started, self.last_answer)
        pause = found.retry_after_seconds or 0.0
        if pause > PATIENCE_SECONDS:
            what = f"asks to wait {pause:.0f} seconds"
        elif found.is_limit and silent_seconds > PATIENCE_SECONDS:
            what = f"has answered nothing but rate limits for {silent_seconds:.0f} seconds"
        elif failures >= ATTEMPTS:
            what = f"failed {failures} times at one request"
        else:
            return
        raise UserError(
            f"{self.url}: {what}, the last time with: {found.message}; what was answered is kept, "
            "repeat the command to go on"
        )

    def _pause(self, found: "Failure", attempts: int) -> None:
        """A time that the server names holds for all threads, a guess for this one alone."""
        if found.retry_after_seconds is not None:
            self.pace.hold(found.retry_after_seconds)
            return
        longest = min(self.pause_seconds * 2 ** (attempts - 1), LONGEST_PAUSE_SECONDS)
        self.pace.sleep(longest * random.uniform(0.5, 1.0))  # not all threads at once


@dataclass(frozen=True)
class Failure:
    """Why an attempt gave no answer, and what is known about the next one.

    Attributes:
        is_limit: a rate limit, which does not count as an attempt.
        adapted: the next attempt can follow at once, with another body.
    """

    message: str
    retry_after_seconds: float | None = None
    is_limit: bool = False
    adapted: bool = False


class Pace:
    """When the next request may start: at most so many per minute, none before a named time."""

    def __init__(self, per_minute: int | None) -> None:
        self.interval_seconds = 60.0 / per_minute if per_minute else 0.0
        self.stopped = threading.Event()
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Returns when it is the caller's turn."""
        while True:
            with self._lock:
                now = time.monotonic()
                if now >= self._next:
                    self._next = now + self.interval_seconds
                    break
                seconds = self._next - now
            self.sleep(seconds)
        self.sleep(0.0)

    def hold(self, seconds: float) -> None:
        """Nobody's turn for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        if self.stopped.wait(seconds):
            raise Stopped


def _api_key(env: str | None) -> str | None:
    if env is None:
        return None
    key = os.environ.get(env, "").strip()
    if not key:
        raise UserError(f"ranking.judge.api_key_env: the environment variable {env} is not set")
    if not key.isascii() or not key.isprintable():
        raise UserError(f"ranking.judge.api_key_env: what {env} holds is not a key")
    return key


def _answer(response: httpx2.Response) -> Answer | None:
    """None for anything that is no chat completion."""
    try:
        content = response.json()
        choice = content["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        usage = content.get("usage") or {}
        return Answer(
            text=str(message.get("content") or message.get("refusal") or ""),
            finish_reason="content_filter" if message.get("refusal") else str(reason),
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None


def _error_text(response: httpx2.Response) -> str:
    """The message in OpenAI's form of an error, with its code in words; else the body as it is."""
    try:
        content = response.json()
    except ValueError:
        return response.text
    error = content.get("error", content) if isinstance(content, dict) else content
    if isinstance(error, dict) and "message" in error:
        code = error.get("code")
        return f"{error['message']} {code}" if isinstance(code, str) else str(error["message"])
    return str(error)


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds, from either form of the header: `Retry-After: 20` or an HTTP date."""
    value = response.headers.get("Retry-After", "").strip()
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
