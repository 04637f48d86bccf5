"""Reads the verdicts of a judge from its answers, and those that are kept."""

import json
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from selm.ranking.kept import KeptLog, are_counts

if TYPE_CHECKING:  # it imports what speaks HTTP
    from selm.ranking.completion import Answer

# The winner: the candidate shown first or second, or neither, with the reason.
Outcome = Literal["first", "second", "tie", "refusal", "unparsable", "too_long"]

_WINNERS: dict[str, Outcome] = {"a": "first", "b": "second", "tie": "tie", "c": "tie"}
KEPT = 1000  # characters of an answer
_READ = 20_000  # characters at an answer's end in which the verdict is looked for
_MARKS = " \t\n*_`\"'()[].:"
_THOUGHT = re.compile(r"<think>.*?(</think>|$)", re.DOTALL)
_REFUSAL = re.compile(
    r"\W*(i'?m sorry|i am sorry|sorry|i can'?t|i cannot|i'?m (not able|unable)|as an ai)\b", re.I
)


@dataclass(frozen=True)
class Verdict:
    """The outcome of one answer of the judge; `answer` is the start of its text."""

    outcome: Outcome
    prompt_tokens: int
    completion_tokens: int
    answer: str


_FIELDS = [field.name for field in fields(Verdict)]


class VerdictLog(KeptLog[Verdict]):
    """The verdicts that a judge has given."""

    prefix = "verdicts"

    @staticmethod
    def entry(fields: dict[str, Any]) -> Verdict:
        """See `KeptLog`."""
        verdict = Verdict(**{name: fields[name] for name in _FIELDS})
        is_known = isinstance(verdict.outcome, str) and verdict.outcome in get_args(Outcome)
        counts = are_counts(verdict.prompt_tokens, verdict.completion_tokens)
        if not (is_known and counts and isinstance(verdict.answer, str)):
            raise ValueError("damaged")
        return verdict


def read_verdict(answer: "Answer") -> Verdict:
    """The verdict in an answer's text: JSON, or else the plain forms that models write."""
    outcome: Outcome | None
    if answer.finish_reason == "too_long":
        outcome = "too_long"
    elif answer.finish_reason == "content_filter":
        outcome = "refusal"
    else:
        outcome = parse_outcome(answer.text)
        if outcome is None:
            outcome = "refusal" if _REFUSAL.match(answer.text) else "unparsable"
    return Verdict(outcome, answer.prompt_tokens, answer.completion_tokens, answer.text[:KEPT])


def without_thoughts(text: str) -> str:
    """The text without what stands between <think> tags, or after one that is never closed.

    >>> without_thoughts("<think>A or B?</think>A")
    'A'
    """
    return _THOUGHT.sub("", text)


def parse_outcome(text: str) -> Outcome | None:
    """The last verdict in a text, or None. Text between <think> tags is ignored.

    >>> parse_outcome('A is short. {"winner": "B"}'), parse_outcome("[[A]]"), parse_outcome("Both?")
    ('second', 'first', None)
    """
    text = without_thoughts(text)[-_READ:].strip()
    for readings in (_json_winners(text), re.findall(r"\[\[([^\[\]]{0,40})\]\]", text), [text]):
        known = [outcome for outcome in map(_outcome, readings) if outcome is not None]
        if known:
            return known[-1]
    return None


def _outcome(reading: str) -> Outcome | None:
    """The outcome of a word, within what models write: **A**, "Answer A", `Winner: A`, (A)."""
    word = re.sub(r"^(winner\s*[:=]|answer\b|response\b)", "", reading.strip(_MARKS).lower())
    return _WINNERS.get(word.strip(_MARKS))


def _json_winners(text: str) -> list[str]:
    """The value of "winner" in each JSON object that the text contains."""
    decoder = json.JSONDecoder()
    found = []
    for start in re.finditer(r"\{", text):
        try:
            value, _ = decoder.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            continue  # a brace that does not start JSON
        if isinstance(value, dict) and isinstance(value.get("winner"), str):
            found.append(value["winner"].strip())
    return found
