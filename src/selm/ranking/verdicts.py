"""Reads the verdicts of a judge from its answers and saves each at once."""

import json
import re
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from tqdm import tqdm

from selm.escape import one_line

if TYPE_CHECKING:  # it imports what speaks HTTP
    from selm.ranking.endpoint import Answer

# The winner: the candidate shown first or second, or neither, with the reason.
Outcome = Literal["first", "second", "tie", "refusal", "unparsable", "too_long"]

MOST_TOKENS = 2**31  # of one question; a larger number cannot be right
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


class VerdictLog(Mapping[str, Verdict]):
    """Verdicts by key, in a folder of JSONL files; each file has one process that writes it."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._found: dict[str, Verdict] = {}
        self._lock = threading.Lock()
        self._path = None if folder is None else folder / f"verdicts-{uuid.uuid4().hex}.jsonl"
        if folder is not None:
            for path in sorted(folder.glob("verdicts-*.jsonl")):
                self._found |= _read_log(path)

    def __getitem__(self, key: str) -> Verdict:
        return self._found[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def add(self, key: str, verdict: Verdict) -> None:
        """Save a verdict; it is in the file when this returns."""
        line = json.dumps({"key": key, **asdict(verdict)}) + "\n"
        with self._lock:
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(line)
            self._found[key] = verdict


def _read_log(path: Path) -> dict[str, Verdict]:
    """Read a file's verdicts; skips damaged lines, such as the last one after a kill."""
    found, damaged = {}, 0
    for line in path.read_bytes().split(b"\n"):
        entry = _entry(line)
        if entry is not None:
            found[entry[0]] = entry[1]
        else:
            damaged += bool(line)
    if damaged:
        _say_damaged(path, damaged)
    return found


def _entry(line: bytes) -> tuple[str, Verdict] | None:
    """Key and verdict of a line, or None if it is damaged."""
    try:
        entry = json.loads(line)
        verdict = Verdict(**{name: entry[name] for name in _FIELDS})
        key = entry["key"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    counts = (verdict.prompt_tokens, verdict.completion_tokens)
    are_counts = all(type(count) is int and 0 <= count < MOST_TOKENS for count in counts)
    are_texts = isinstance(key, str) and isinstance(verdict.answer, str)
    is_known = isinstance(verdict.outcome, str) and verdict.outcome in get_args(Outcome)
    return (key, verdict) if are_counts and are_texts and is_known else None


@cache  # a stage reads the files several times
def _say_damaged(path: Path, count: int) -> None:
    lines = "1 line is" if count == 1 else f"{count} lines are"
    tqdm.write(one_line(f"{path}: {lines} damaged; the judge is asked again when needed"))


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


def parse_outcome(text: str) -> Outcome | None:
    """The last verdict in a text, or None. Text between <think> tags is ignored.

    >>> parse_outcome('A is short. {"winner": "B"}'), parse_outcome("[[A]]"), parse_outcome("Both?")
    ('second', 'first', None)
    """
    text = _THOUGHT.sub("", text)[-_READ:].strip()
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
