"""The Hugging Face Hub's API, with patience for what passes by itself.

The client's own retries (`http_backoff`) repeat single transfers. What is left to us wants the
whole call again: a branch that has moved, an upload whose server went away, a limit of requests.
"""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from httpx2 import HTTPError
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from selm.errors import OutsideError
from selm.escape import one_line

API = HfApi(library_name="selm")

# Seconds before each further attempt. Beneath it the client retries single transfers by itself.
WAITS_SECONDS = (1, 2, 4, 8, 16)

# Timeouts, conflicts with another writer (409, 412), rate limits, and the server's own troubles.
PASSING_STATUS = {408, 409, 412, 425, 429, 500, 502, 503, 504}

# The client's, the network's, and what uploads make of both: LFS and Xet raise RuntimeErrors.
UNSURE_ERRORS = (HTTPError, ConnectionError, TimeoutError, LocalEntryNotFoundError, RuntimeError)

T = TypeVar("T")


def patiently(what: str, call: Callable[[], T], waits_seconds: Sequence[int] = WAITS_SECONDS) -> T:
    """Call; on what may pass by itself wait and call again, and say so. OutsideError in the end."""
    attempts = len(waits_seconds) + 1
    attempt = 0
    while True:
        attempt += 1
        try:
            return call()
        except (OfflineModeIsEnabled, RemoteEntryNotFoundError):
            raise  # these do not pass; who calls knows what they mean
        except UNSURE_ERRORS as error:
            cause = _cause(error)
            reason, status = _reason(cause), _status(cause)
            if (status is not None and status not in PASSING_STATUS) or attempt == attempts:
                tries = "" if attempt == 1 else f", after {attempt} attempts"
                raise OutsideError(f"hub: {what}: {reason}{tries}", status) from error
            wait_seconds = max(waits_seconds[attempt - 1], _asked_to_wait(cause))
        tries = f"attempt {attempt} of {attempts} failed, next in {wait_seconds} s"
        print(one_line(f"hub: {what}: {reason}; {tries}"), file=sys.stderr, flush=True)
        time.sleep(wait_seconds)


def _cause(error: BaseException) -> BaseException:
    """What happened, out of what the client wraps it in: transfer threads, files not found."""
    while isinstance(error, RuntimeError | LocalEntryNotFoundError) and error.__cause__:
        error = error.__cause__
    return error


def _status(error: BaseException) -> int | None:
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def _reason(error: BaseException) -> str:
    """On one line, without URLs: those of the storage are signed."""
    if isinstance(error, HfHubHTTPError):
        said = first_line(error.server_message or error.response.reason_phrase)
        return f"{error.response.status_code} {said}".strip()
    return f"{type(error).__name__} {first_line(error)}".strip()


def first_line(text: object) -> str:
    return (str(text).strip().splitlines() or [""])[0]


def _asked_to_wait(error: BaseException) -> int:
    """Seconds of the answer's Retry-After header, 5 minutes (the Hub's own window) at most."""
    if not isinstance(error, HfHubHTTPError):
        return 0
    seconds = error.response.headers.get("Retry-After", "")
    return min(int(seconds), 300) if seconds.isdigit() else 0


def repo_info(repo: str, repo_type: str, revision: str | None = None) -> Any:
    """Commit, files and visibility of a repository; None where there is none, or no revision."""
    try:
        return API.repo_info(repo, repo_type=repo_type, revision=revision)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return None
