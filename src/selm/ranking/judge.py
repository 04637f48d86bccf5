"""An LLM as judge: each pair of candidates is shown in both orders, and one of them wins or none.

Every verdict is kept on disk as soon as it is there, under a hash of all that the model was asked:
what was answered once is not asked again, whatever happens to the run.
"""

import hashlib
import json
import re
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args

from tqdm import tqdm

from selm.errors import UserError
from selm.escape import one_line
from selm.ranking.base import Columns, Matrix, Prompt
from selm.ranking.endpoint import MOST_TOKENS, Answer, Endpoint, Stopped
from selm.recipe.rules import TEMPLATE_FIELDS, read_template
from selm.recipe.schema import Ranking

# Who won: the candidate shown first, the one shown second, or nobody, and why nobody.
Outcome = Literal["first", "second", "tie", "refusal", "unparsable", "too_long"]

_WORTH: dict[Outcome, float] = {"first": 1.0, "second": -1.0}  # to the first; all others are ties
_WINNERS: dict[str, Outcome] = {"a": "first", "b": "second", "tie": "tie", "c": "tie"}
_SCHEMA = {
    "type": "object",
    "properties": {"winner": {"type": "string", "enum": ["A", "B", "tie"]}},
    "required": ["winner"],
    "additionalProperties": False,
}
_PLACEHOLDER = re.compile("|".join(f"{{{name}}}" for name in TEMPLATE_FIELDS))
_KEPT = 1000  # characters of an answer
_SHOWN = 120
_READ = 20_000  # characters at an answer's end in which the verdict is looked for
_MARKS = " \t\n*_`\"'()[].:"
_THOUGHT = re.compile(r"<think>.*?(</think>|$)", re.DOTALL)
_REFUSAL = re.compile(
    r"\W*(i'?m sorry|i am sorry|sorry|i can'?t|i cannot|i'?m (not able|unable)|as an ai)\b", re.I
)


@dataclass(frozen=True)
class Verdict:
    """One answer of the judge, read; `answer` is the start of what it said."""

    outcome: Outcome
    prompt_tokens: int
    completion_tokens: int
    answer: str


_FIELDS = [field.name for field in fields(Verdict)]


class JudgeRanker:
    """Asks for every pair of different candidates of a prompt, in both orders.

    Args:
        verdicts: folder in which they are kept; None keeps them in memory.
        pause_seconds: before a failed request is sent again; doubled for each further attempt.
    """

    pairwise = True
    tie = 0.5

    def __init__(self, ranking: Ranking, verdicts: Path | None, pause_seconds: float = 1.0) -> None:
        self.model = ranking.name_or_path or ""
        self.settings = ranking.judge
        self.template = read_template("ranking.judge.template", ranking.judge.template)
        self.verdicts = VerdictLog(verdicts)
        self.pause_seconds = pause_seconds
        self._endpoint: Endpoint | None = None

    def score(
        self,
        prompt_ids: Sequence[str],
        prompts: Sequence[Prompt],
        candidates: Sequence[list[str]],
        columns: Sequence[Columns] | None = None,
    ) -> list[list[float]]:
        """See `Ranker`: a candidate's mean share of wins over the others, in [0, 1].

        Raises:
            UserError: the endpoint refuses to answer, or keeps failing.
        """
        return [win_shares(matrix) for matrix in self.compare(prompt_ids, prompts, candidates)]

    def compare(
        self,
        prompt_ids: Sequence[str],
        prompts: Sequence[Prompt],
        candidates: Sequence[list[str]],
        columns: Sequence[Columns] | None = None,
    ) -> list[Matrix]:
        """See `PairwiseRanker`: 1 if i won when shown before j, -1 if j did, else 0.

        Identical candidates, the diagonal among them, have 0 without being asked about.
        """
        pools = [
            (_conversation(prompt), texts)
            for prompt, texts in zip(prompts, candidates, strict=True)
        ]
        questions, prompt_of = {}, {}
        for prompt_id, (conversation, texts) in zip(prompt_ids, pools, strict=True):
            for i, j in _ordered_pairs(texts):
                question = self._question(conversation, texts[i], texts[j])
                key = self._key(question)
                questions[key] = question
                prompt_of.setdefault(key, prompt_id)
        new = {key: q for key, q in questions.items() if key not in self.verdicts}
        self._ask(new)
        self._say_ties({key: prompt_of[key] for key in new})
        return [self._matrix(conversation, texts) for conversation, texts in pools]

    def facts(
        self, prompts: Sequence[Prompt], candidates: Sequence[list[str]]
    ) -> dict[str, int | float]:
        """What verdicts on these pools came to; all of them are known to be there.

        Returns:
            counts of verdicts, ties, refusals and so on; tokens; and two measures of position bias.
            `flip_rate`: share of pairs in which the winner is the one shown first, or the one shown
            second, in both orders. `first_wins`: share of wins of the one shown first.
        """
        used: dict[str, Verdict] = {}
        flips: list[bool] = []
        for prompt, texts in zip(prompts, candidates, strict=True):
            conversation = _conversation(prompt)
            for i, j in combinations(range(len(texts)), 2):
                if texts[i] != texts[j]:
                    keys = [
                        self._key(self._question(conversation, texts[a], texts[b]))
                        for a, b in ((i, j), (j, i))
                    ]
                    both = [self.verdicts[key] for key in keys]
                    used |= dict(zip(keys, both, strict=True))
                    flips += _flips(both[0].outcome, both[1].outcome)
        return _summary(list(used.values()), flips)

    def _question(self, conversation: str, first: str, second: str) -> str:
        return fill(self.template, (conversation, first, second))

    def _key(self, question: str) -> str:
        """A hash of everything that decides the answer; the question holds template and texts."""
        settings = self.settings
        how = [settings.temperature, settings.max_tokens, settings.json_schema]
        asked = [self.model, *how, question]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    def _matrix(self, conversation: str, texts: Sequence[str]) -> Matrix:
        matrix = [[0.0] * len(texts) for _ in texts]
        for i, j in _ordered_pairs(texts):
            key = self._key(self._question(conversation, texts[i], texts[j]))
            matrix[i][j] = _WORTH.get(self.verdicts[key].outcome, 0.0)
        return matrix

    def _say_ties(self, prompt_of: Mapping[str, str]) -> None:
        """A line for each reason why nobody won, with the first prompt of these."""
        for outcome in ("too_long", "refusal", "unparsable"):
            keys = [key for key in prompt_of if self.verdicts[key].outcome == outcome]
            if keys:
                said = self.verdicts[keys[0]].answer[:_SHOWN]
                line = (
                    f"{self.model}: {len(keys)} of {len(prompt_of)} verdicts are ties, {outcome}; "
                    f"the first is of the prompt {prompt_of[keys[0]]}: {said!r}"
                )
                tqdm.write(one_line(line))

    def _ask(self, questions: Mapping[str, str]) -> None:
        """Ask all questions at once, `concurrency` at a time. The first error ends it.

        Answers that are under way by then are waited for and kept.
        """
        if not questions:
            return
        if self._endpoint is None:
            schema = _SCHEMA if self.settings.json_schema else None
            self._endpoint = Endpoint(self.model, self.settings, schema, self.pause_seconds)
        endpoint = self._endpoint
        endpoint.pace.stopped.clear()

        def answer(key: str, question: str) -> None:
            try:
                answer = endpoint.ask(question)
                said = endpoint.without_key(answer.text)[:_KEPT]
                self.verdicts.add(key, replace(read_verdict(answer), answer=said))
            except UserError:
                endpoint.stop()  # here, before this thread takes the next question
                raise

        total, what = len(questions), one_line(f"asking {self.model}")
        with (
            tqdm(total=total, desc=what, unit="verdict", leave=False) as progress,
            ThreadPoolExecutor(self.settings.concurrency) as threads,
        ):
            waiting = [threads.submit(answer, *item) for item in questions.items()]
            try:
                for done in as_completed(waiting):
                    if isinstance(done.exception(), Stopped):
                        continue  # by the error of another question, which comes too
                    done.result()
                    progress.update()
            except BaseException:  # Ctrl-C too
                endpoint.stop()
                threads.shutdown(cancel_futures=True)
                raise


class VerdictLog(Mapping[str, Verdict]):
    """Verdicts by key, on disk: a folder of JSONL files, each appended to by one process alone."""

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
        """Keep a verdict. It is in the file when this returns; a kill cannot take it away."""
        line = json.dumps({"key": key, **asdict(verdict)}) + "\n"
        with self._lock:
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(line)
            self._found[key] = verdict


def _read_log(path: Path) -> dict[str, Verdict]:
    """A kill cuts the last line short, a disk may do worse: what is no verdict is asked again."""
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
    """Key and verdict of a line, or None where it holds anything else."""
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
    tqdm.write(one_line(f"{path}: {lines} no verdict; asked again where it is wanted"))


def fill(template: str, values: Sequence[str]) -> str:
    """The template with prompt, response A and response B in place, whatever they contain.

    >>> fill("{prompt} | {response_a} | {response_b} {}", ("p", "{response_b}", "{prompt}"))
    'p | {response_b} | {prompt} {}'
    """
    of = {f"{{{name}}}": value for name, value in zip(TEMPLATE_FIELDS, values, strict=True)}
    return _PLACEHOLDER.sub(lambda found: of[found.group()], template)


def read_verdict(answer: Answer) -> Verdict:
    """Who won, by the answer's text: JSON as asked for, else the plain forms that models write."""
    outcome: Outcome | None
    if answer.finish_reason == "too_long":
        outcome = "too_long"
    elif answer.finish_reason == "content_filter":
        outcome = "refusal"
    else:
        outcome = parse_outcome(answer.text)
        if outcome is None:
            outcome = "refusal" if _REFUSAL.match(answer.text) else "unparsable"
    return Verdict(outcome, answer.prompt_tokens, answer.completion_tokens, answer.text[:_KEPT])


def parse_outcome(text: str) -> Outcome | None:
    """The last verdict in a text, or None. What stands between <think> tags is not read.

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
    """From a single word, and what models put around it: **A**, "Answer A", `Winner: A`, (A)."""
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
            continue  # a brace that opens no JSON
        if isinstance(value, dict) and isinstance(value.get("winner"), str):
            found.append(value["winner"].strip())
    return found


def win_shares(matrix_N_N: Matrix) -> list[float]:
    """Each candidate's mean share of wins over the others, a tie being one half.

    >>> win_shares([[0, 1, 1], [-1, 0, 1], [-1, 1, 0]])  # 0 beats both; 1 and 2 win when first
    [1.0, 0.25, 0.25]
    """
    n = len(matrix_N_N)
    shares = []
    for i in range(n):
        margins = [matrix_N_N[i][j] - matrix_N_N[j][i] for j in range(n) if j != i]
        shares.append(
            sum((2 + margin) / 4 for margin in margins) / len(margins) if margins else 0.5
        )
    return shares


def _ordered_pairs(texts: Sequence[str]) -> list[tuple[int, int]]:
    pairs = [(i, j) for i in range(len(texts)) for j in range(len(texts))]
    return [(i, j) for i, j in pairs if texts[i] != texts[j]]


def _flips(forward: Outcome, backward: Outcome) -> list[bool]:
    """Whether the order decided; nothing for a pair that was not judged in both orders.

    >>> _flips("first", "first"), _flips("first", "second"), _flips("first", "refusal")
    ([True], [False], [])
    """
    if not {forward, backward} <= {"first", "second", "tie"}:
        return []
    return [forward == backward != "tie"]


def _summary(verdicts: Sequence[Verdict], flips: Sequence[bool]) -> dict[str, int | float]:
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    decided = outcomes["first"] + outcomes["second"]
    counts: dict[str, int | float] = {outcome: outcomes[outcome] for outcome in get_args(Outcome)}
    return {
        "verdicts": len(verdicts),
        **counts,
        "flip_rate": round(sum(flips) / len(flips), 4) if flips else 0.0,
        "first_wins": round(outcomes["first"] / decided, 4) if decided else 0.5,
        "prompt_tokens": sum(verdict.prompt_tokens for verdict in verdicts),
        "completion_tokens": sum(verdict.completion_tokens for verdict in verdicts),
    }


def _conversation(prompt: Prompt) -> str:
    """The words of a single user turn; with roles where there are more turns."""
    if len(prompt) == 1:
        return _words(prompt[0])
    return "\n\n".join(f"{message['role']}: {_words(message)}" for message in prompt)


def _words(message: Mapping[str, Any]) -> str:
    """A message's content, and the calls of tools in it as JSON."""
    calls = [json.dumps(call, ensure_ascii=False) for call in message.get("tool_calls") or []]
    return "\n".join(filter(None, [message["content"], *calls]))
