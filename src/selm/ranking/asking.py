"""Asks an endpoint many questions at a time, and keeps what it says under a hash of the question.

`ask_all` is the loop of everything that asks an LLM. `EndpointAsker` is for those who ask in their
own words, such as benchmarks.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selm import progress
from selm.errors import UserError
from selm.escape import one_line
from selm.ranking.base import Question, Reply
from selm.ranking.kept import KeptLog, are_counts
from selm.recipe.schema import Ranking

if TYPE_CHECKING:  # they import what speaks HTTP
    from selm.ranking.completion import Answer
    from selm.ranking.endpoint import Endpoint

_FIELDS = [field.name for field in fields(Reply)]

# What an endpoint may refuse of a question, and of one that asks for log-probs.
_LIMIT = (frozenset[str](), frozenset({"max_tokens"}))
_LOGPROBS = (
    frozenset[str](),
    frozenset({"top_logprobs"}),
    frozenset({"top_logprobs", "logprobs"}),
)


class ReplyLog(KeptLog[Reply]):
    """The replies to questions in the words of those who asked."""

    prefix = "replies"

    @staticmethod
    def entry(fields: dict[str, Any]) -> Reply:
        """See `KeptLog`."""
        reply = Reply(**{name: fields[name] for name in _FIELDS})
        texts = isinstance(reply.text, str) and isinstance(reply.finish_reason, str)
        counts = are_counts(reply.prompt_tokens, reply.completion_tokens)
        if not (texts and counts and (reply.logprobs is None or _are_logprobs(reply.logprobs))):
            raise ValueError("damaged")
        return reply


def _are_logprobs(found: Any) -> bool:
    return isinstance(found, dict) and all(type(value) is float for value in found.values())


class EndpointAsker:
    """See `Asker`: questions with the model and the temperature of a judge's section.

    Args:
        replies: folder in which they are kept; None keeps them in memory.
        pause_seconds: see `Endpoint`.
    """

    def __init__(self, ranking: Ranking, replies: Path | None, pause_seconds: float = 1.0) -> None:
        self.ranking, self.settings = ranking, ranking.judge
        self.replies = ReplyLog(replies)
        self.pause_seconds = pause_seconds
        self._endpoint: Endpoint | None = None

    def ask(self, questions: Sequence[Question]) -> list[Reply]:
        """See `Asker`."""
        new = {self._key(each): each for each in questions if self._kept(each) is None}
        if new:
            endpoint = self._connected()
            ask_all(endpoint, list(new.values()), self._keep, "reply")
        replies = [self._kept(each) for each in questions]
        assert None not in replies, "all were asked"
        return [reply for reply in replies if reply is not None]

    def _connected(self) -> "Endpoint":
        from selm.ranking.endpoint import Endpoint

        if self._endpoint is None:
            self._endpoint = Endpoint(self.ranking, None, self.pause_seconds)
        return self._endpoint

    def _keep(self, question: Question, answer: "Answer") -> None:
        hidden = self._connected().without_key
        reply = Reply(
            hidden(answer.text),
            answer.finish_reason,
            answer.prompt_tokens,
            answer.completion_tokens,
            _renamed(answer.logprobs, hidden),
        )
        self.replies.add(self._key(question, answer.left_out), reply)

    def _key(self, question: Question, left_out: frozenset[str] = frozenset()) -> str:
        """A hash of everything that decides the reply.

        Args:
            left_out: what the endpoint refused, so that it was asked without.
        """
        how = {
            "model": self.ranking.name_or_path,
            "temperature": self.settings.temperature,
            "max_tokens": question.max_tokens,
            "logprobs": question.logprobs,
            "left_out": sorted(left_out),
            "text": question.text,
        }
        return hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()

    def _kept(self, question: Question) -> Reply | None:
        """The reply to it; asked without what the endpoint refused, if it was not asked with it."""
        refused = product(_LOGPROBS if question.logprobs else _LOGPROBS[:1], _LIMIT)
        keys = (self._key(question, logprobs | limit) for logprobs, limit in refused)
        return next((self.replies[key] for key in keys if key in self.replies), None)


def _renamed(
    logprobs: Mapping[str, float] | None, hidden: Callable[[str], str]
) -> dict[str, float] | None:
    if logprobs is None:
        return None
    return {hidden(token): logprob for token, logprob in logprobs.items()}


def ask_all(
    endpoint: "Endpoint",
    questions: Sequence[Question],
    keep: Callable[[Question, "Answer"], None],
    unit: str,
) -> None:
    """Ask all questions, as many at once as the recipe says. The first error ends it,

    after the answers that are already on their way have arrived and are kept.

    Args:
        keep: called with each answer when it arrives, in its thread.
        unit: what is counted in the progress bar.
    """
    from selm.ranking.endpoint import Stopped

    endpoint.pace.stopped.clear()

    def answer(question: Question) -> None:
        try:
            keep(question, endpoint.ask(question))
        except UserError:
            endpoint.stop()  # here, before this thread takes the next question
            raise

    what = one_line(f"asking {endpoint.model}")
    with (
        progress.Bar(len(questions), what, unit, inner=True) as bar,
        ThreadPoolExecutor(endpoint.settings.concurrency) as threads,
    ):
        waiting = [threads.submit(answer, question) for question in questions]
        try:
            for done in as_completed(waiting):
                if isinstance(done.exception(), Stopped):
                    continue  # because of another question's error, which follows
                done.result()
                bar.update()
        except BaseException:  # Ctrl-C too
            endpoint.stop()
            threads.shutdown(cancel_futures=True)
            raise
