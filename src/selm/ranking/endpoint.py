"""An OpenAI-compatible chat endpoint, asked by several threads: retries, rate limits, errors.

Temporary errors (429, 5xx, time-outs, broken answers) are tried again with growing pauses; other
errors (a wrong key, an unknown model, no server) raise a `UserError` at once. The retries are ours:
a pause that the server asks for holds for all threads, and rate limits do not count as failures.
"""

import os
import random
import threading
import time
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2

from selm import progress
from selm.errors import UserError
from selm.escape import one_line, well_formed
from selm.ranking import completion, server_error
from selm.ranking.base import Question
from selm.ranking.completion import Answer
from selm.ranking.server_error import ServerError
from selm.recipe.schema import Ranking

ATTEMPTS = 8  # of one request, before a server that fails is given up; 429 does not count
LONGEST_PAUSE_SECONDS = 60.0  # between two attempts, unless the server names another time
PATIENCE_SECONDS = 600.0  # for a time that the server names, or while there are rate limits alone

_RETRIED = {408, 409, 425}  # beside 429 and 5xx

# The limit of an answer: OpenAI's reasoning models have another name, some servers accept neither.
_LIMIT_KEYS = ("max_tokens", "max_completion_tokens", None)

# How many of the first tokens' log-probs are asked for: some servers give few, some none.
TOP_LOGPROBS = (20, 5, None)

_HINTS = {
    402: "the account has no credit",
    404: "check that there is a model {model!r}; base_url usually ends with /v1",
}


class Stopped(Exception):
    """Raised in the threads that wait, after `Endpoint.stop`."""


class Endpoint:
    """Sends one user message per request and returns the answer. Safe to use from many threads.

    Args:
        ranking: the section of the recipe, whose model is asked.
        schema: JSON schema of the wanted answer, or None; left out once the server refuses it.
        pause_seconds: before the second attempt; doubled for each further one.
    """

    def __init__(
        self, ranking: Ranking, schema: dict[str, Any] | None, pause_seconds: float = 1.0
    ) -> None:
        self.ranking, self.model, self.settings = ranking, ranking.name_or_path, ranking.judge
        self.section, settings = f"{ranking.section}.judge", ranking.judge
        self.url = f"{settings.base_url.rstrip('/')}/chat/completions"
        self.pause_seconds = pause_seconds
        self.pace = Pace(settings.requests_per_minute)
        self.reached = False
        self.last_answer = time.monotonic()
        self._schema = schema
        self._with_schema = schema is not None
        self._limit_key: str | None = _LIMIT_KEYS[0]
        self._top_logprobs: int | None = TOP_LOGPROBS[0]
        self._said_no_logprobs = False
        self._key = _api_key(f"{self.section}.api_key_env", settings.api_key_env)
        self._client = self._connected()

    def _connected(self) -> httpx2.Client:
        """The HTTP client; it follows no redirects, as the key is for the recipe's host."""
        try:
            return httpx2.Client(
                headers={"Authorization": f"Bearer {self._key}"} if self._key else None,
                timeout=self.settings.timeout_seconds,
                limits=httpx2.Limits(max_connections=self.settings.concurrency),
                trust_env=urlsplit(self.url).hostname not in ("localhost", "127.0.0.1", "::1"),
                follow_redirects=False,
            )
        except (ValueError, ImportError, httpx2.InvalidURL) as error:
            raise UserError(
                f"HTTPS_PROXY, HTTP_PROXY or ALL_PROXY: the proxy cannot be used: {_line(error)}"
            ) from error

    def without_key(self, text: str) -> str:
        """The text without the key, which a model or a server may repeat."""
        return text.replace(self._key, "***") if self._key else text

    def stop(self) -> None:
        """Let the threads that wait for their turn end with `Stopped`."""
        self.pace.stopped.set()

    def ask(self, question: Question) -> Answer:
        """The model's answer to one user message.

        Raises:
            UserError: there is no server, it refuses the request, or it keeps failing.
            Stopped: see `stop`.
        """
        failures = limits = 0
        started = time.monotonic()
        while True:
            self.pace.wait()
            body = self._body(question)
            found: Answer | Failure
            try:
                response = self._client.post(self.url, json=body)
            except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, UnicodeError) as error:
                reason = _line(error)
                raise self.ranking.error("judge.base_url", f"{self.url}: {reason}") from error
            except httpx2.RequestError as error:
                found = self._unreached(error)
            else:
                self.reached = True
                found = self._read(response, body, question)
            if isinstance(found, Answer):
                self.last_answer = time.monotonic()
                said = found.text and found.finish_reason not in ("content_filter", "too_long")
                if "logprobs" in body and found.logprobs is None and said:
                    self._say_no_logprobs("does not return them")
                return replace(found, left_out=self._left_out(body, question))
            if found.adapted:
                continue
            failures, limits = failures + (not found.is_limit), limits + found.is_limit
            self._check_patience(found, failures, started)
            self._pause(found, failures + limits)

    def _body(self, question: Question) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": well_formed(question.text)}],
        }
        if self._limit_key is not None:
            body[self._limit_key] = question.max_tokens
        if question.logprobs and self._top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": self._top_logprobs}
        if self.settings.temperature is not None:
            body["temperature"] = self.settings.temperature
        if self._schema is not None:
            schema = {"name": "answer", "strict": True, "schema": self._schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def _left_out(self, body: dict[str, Any], question: Question) -> frozenset[str]:
        left_out = {
            "max_tokens": not any(key in body for key in _LIMIT_KEYS),
            "json_schema": self._with_schema and "response_format" not in body,
            "logprobs": question.logprobs and "logprobs" not in body,
            "top_logprobs": question.logprobs and body.get("top_logprobs") != TOP_LOGPROBS[0],
        }
        return frozenset(key for key, is_left_out in left_out.items() if is_left_out)

    def _unreached(self, error: httpx2.RequestError) -> "Failure":
        if isinstance(error, httpx2.ConnectError) and not self.reached:
            raise self.ranking.error(
                "judge.base_url",
                f"no server answers at {self.url} ({_line(error)}); start it, or correct the URL",
            ) from error
        return Failure(self._shown(f"{type(error).__name__} {error}"))

    def _read(
        self, response: httpx2.Response, body: dict[str, Any], question: Question
    ) -> "Answer | Failure":
        answer = completion.read(response.text) if response.status_code == 200 else None
        if answer is not None:
            return answer
        error = server_error.read(response.status_code, response.text)
        shown = self._shown(error.words)
        if "logprobs" in body and error.is_about_logprobs:
            self._ask_for_fewer_logprobs(body)
            return Failure(shown, adapted=True)
        if question.logprobs and error.is_unfinished:
            return Answer("", "length")  # one token was to have log-probs; there is no text to it
        if error.is_too_long:
            return Answer(shown, "too_long")
        if response.status_code == 200:
            return Failure(f"wanted a chat completion, got {self._shown(response.text)!r}")
        message = f"{error.status} {shown}".strip()
        if self._adapt(error, body):
            return Failure(message, adapted=True)
        if error.status == 429 and not error.is_out_of_credit:
            return Failure(message, _retry_after(response), is_limit=True)
        if error.status >= 500 or error.status in _RETRIED:
            return Failure(message, _retry_after(response))
        if error.is_filtered:
            return Answer(shown, "content_filter")
        raise UserError(f"{self.url}: {message}; {self._hint(error, response, body)}")

    def _adapt(self, error: ServerError, body: dict[str, Any]) -> bool:
        """True if the server refused a part of the body that can be left out or renamed.

        Each part is left out or renamed only once, so this ends.
        """
        if "response_format" in body and error.is_about_schema:
            if self._schema is not None:
                self._schema = None
                progress.say(
                    f"{self.url}: does not accept a JSON schema; verdicts are read from plain text"
                )
            return True
        key, new = next((k for k in _LIMIT_KEYS if k in body), None), _LIMIT_KEYS[1]
        renamed = error.is_about_body and key == "max_tokens" and new in error.words
        if key is not None and (renamed or error.refuses(key)):
            after = _LIMIT_KEYS[_LIMIT_KEYS.index(key) + 1]
            if self._limit_key == key:  # else another thread was first
                self._limit_key = after
            return True
        return False

    def _ask_for_fewer_logprobs(self, body: dict[str, Any]) -> None:
        """In the next request, unless another thread was first."""
        if self._top_logprobs == body["top_logprobs"]:
            self._top_logprobs = TOP_LOGPROBS[TOP_LOGPROBS.index(self._top_logprobs) + 1]
            if self._top_logprobs is None:
                self._say_no_logprobs("refuses them")

    def _say_no_logprobs(self, why: str) -> None:
        if not self._said_no_logprobs:
            self._said_no_logprobs = True
            progress.say(
                one_line(f"{self.url}: asked for log-probs, {why}; the text alone is read")
            )

    def _hint(self, error: ServerError, response: httpx2.Response, body: dict[str, Any]) -> str:
        """The fix for an error that another attempt would not change."""
        if error.status in (401, 403):
            env = self.settings.api_key_env
            return f"the key in {env} is not accepted" if env else f"set {self.section}.api_key_env"
        if error.status in _HINTS:
            return _HINTS[error.status].format(model=self.model)
        if 300 <= error.status < 400:
            there = self._shown(response.headers.get("Location", "")) or "elsewhere"
            return f"see {self.section}.base_url: this one redirects to {there}"
        if "temperature" in error.all and self.settings.temperature is not None:
            key = f"{self.section}.temperature"
            return f"see {key}; set {key}=null to send none"
        if "max_tokens" in error.all or "max_completion_tokens" in error.all:
            key, limit = f"{self.section}.max_tokens", self.settings.max_tokens
            return f"see {key}, which is {limit}" if limit in body.values() else f"see {key}"
        return f"see {self.section}"

    def _shown(self, text: str) -> str:
        """The start of the server's own words, on one line, without the key."""
        return one_line(" ".join(self.without_key(text).split()), most=200)

    def _check_patience(self, found: "Failure", failures: int, started: float) -> None:
        silent_seconds = time.monotonic() - max(started, self.last_answer)
        pause = found.retry_after_seconds or 0.0
        if pause > PATIENCE_SECONDS:
            what = f"asks to wait {pause:.0f} seconds"
        elif found.is_limit and silent_seconds > PATIENCE_SECONDS:
            what = f"has answered only with rate limits for {silent_seconds:.0f} seconds"
        elif failures >= ATTEMPTS:
            what = f"failed {failures} times on one request"
        else:
            return
        raise UserError(
            f"{self.url}: {what}; the last error: {found.message}; all verdicts so far are kept, "
            "repeat the command to continue"
        )

    def _pause(self, found: "Failure", attempts: int) -> None:
        """Wait; a pause that the server asks for holds for all threads, ours for this one."""
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
    """Decides when the next request may start: within the rate, and after a pause if one is set."""

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
        """Let no request start for this time."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        if self.stopped.wait(seconds):
            raise Stopped


def _api_key(key: str, env: str | None) -> str | None:
    if env is None:
        return None
    found = os.environ.get(env, "").strip()
    if not found:
        raise UserError(f"{key}: the environment variable {env} is not set")
    if not found.isascii() or not found.isprintable():
        raise UserError(f"{key}: the content of {env} is not a key")
    return found


def _line(error: Exception) -> str:
    return one_line(" ".join(str(error).split()), most=200)


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
    except (ValueError, OverflowError):
        return None
