"""An LLM as judge: it sees each pair of candidates in both orders, and names the better one.

Every verdict is saved on disk when it arrives, under a hash of everything that the model was asked.
So no question is asked twice, whatever happens to the run.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, permutations
from pathlib import Path
from typing import TYPE_CHECKING, get_args
from urllib.parse import urlsplit

from selm import progress
from selm.escape import one_line
from selm.ranking.asking import EndpointAsker, ask_all
from selm.ranking.base import Facts, Matrix, Pool, Question, Ranker, RankerKind, Said
from selm.ranking.texts import conversation, filled
from selm.ranking.verdicts import KEPT, Outcome, Verdict, VerdictLog, read_verdict
from selm.recipe.places import check_file
from selm.recipe.schema import Ranking

if TYPE_CHECKING:  # it imports what speaks HTTP
    from selm.ranking.completion import Answer
    from selm.ranking.endpoint import Endpoint

# What a template must hold, each in braces.
TEMPLATE_FIELDS = ("prompt", "response_a", "response_b")

_WORTH: dict[Outcome, float] = {"first": 1.0, "second": -1.0}  # to the first; all others are ties
_SCHEMA = {
    "type": "object",
    "properties": {"winner": {"type": "string", "enum": ["A", "B", "tie"]}},
    "required": ["winner"],
    "additionalProperties": False,
}
_SHOWN = 120


class JudgeRanker(Ranker):
    """Asks for every pair of different candidates of a prompt, in both orders.

    Args:
        verdicts: folder in which they are saved; None keeps them in memory.
        pause_seconds: before a failed request is sent again; doubled for each further attempt.
    """

    pairwise = True
    tie = 0.5

    def __init__(self, ranking: Ranking, verdicts: Path | None, pause_seconds: float = 1.0) -> None:
        self.ranking, self.settings = ranking, ranking.judge
        self.model = ranking.name_or_path or ""
        self.template = read_template(ranking)
        self.verdicts = VerdictLog(verdicts)
        self.pause_seconds = pause_seconds
        refusable = ("max_tokens", *(["json_schema"] if self.settings.json_schema else []))
        self._may_be_refused = [
            frozenset(some) for n in range(3) for some in combinations(refusable, n)
        ]
        self._endpoint: Endpoint | None = None

    def score(self, pools: Sequence[Pool]) -> list[list[float]]:
        """See `Ranker`: a candidate's mean share of wins over the others, in [0, 1].

        Raises:
            UserError: the endpoint refuses to answer, or keeps failing.
        """
        return [win_shares(matrix) for matrix in self.compare(pools)]

    def compare(self, pools: Sequence[Pool]) -> list[Matrix]:
        """`comparisons_P_N_N[p][i][j]`: 1 if i won when shown before j, -1 if j did, else 0.

        Identical candidates, and the diagonal, have 0 without a question.
        """
        asked = [self._questions(pool) for pool in pools]
        prompt_of: dict[str, str] = {}
        for pool, questions in zip(pools, asked, strict=True):
            for question in questions.values():
                prompt_of.setdefault(question, pool.prompt_id)
        new = {q: prompt_id for q, prompt_id in prompt_of.items() if self._kept(q) is None}
        self._ask(new)
        self._say_ties(new)
        matrices = [[[0.0] * len(pool.candidates) for _ in pool.candidates] for pool in pools]
        for matrix, questions in zip(matrices, asked, strict=True):
            for (i, j), question in questions.items():
                matrix[i][j] = _WORTH.get(self._verdict(question).outcome, 0.0)
        return matrices

    def facts(self, pools: Sequence[Pool]) -> Facts:
        """Counts of the verdicts on these pools, which are all known.

        Returns:
            counts of verdicts, ties, refusals and so on; tokens; and two measures of position bias.
            `flip_rate`: share of pairs in which the winner is the one shown first, or the one shown
            second, in both orders. `first_wins`: share of wins of the one shown first.
        """
        used: dict[str, Verdict] = {}
        flips: list[bool] = []
        for questions in map(self._questions, pools):
            verdicts = {(i, j): self._verdict(question) for (i, j), question in questions.items()}
            used |= {question: verdicts[cell] for cell, question in questions.items()}
            for i, j in verdicts:
                if i < j:
                    flips += _flips(verdicts[i, j].outcome, verdicts[j, i].outcome)
        return _summary(list(used.values()), flips)

    def said(self, pools: Sequence[Pool]) -> list[list[Said]]:
        """What is kept about the first two candidates of each pool, one entry per order."""
        found: list[list[Said]] = []
        for questions in map(self._questions, pools):
            kept = {(i, j): self._kept(questions[i, j]) for i, j in questions if {i, j} == {0, 1}}
            found.append(
                [
                    Said(
                        self.model,
                        i,
                        {"first": i, "second": j}.get(verdict.outcome),
                        verdict.outcome,
                        verdict.answer,
                    )
                    for (i, j), verdict in kept.items()
                    if verdict is not None
                ]
            )
        return found

    def _questions(self, pool: Pool) -> dict[tuple[int, int], str]:
        """(i, j) -> the question that shows candidate i before j, of texts that differ."""
        asked, texts = conversation(pool.prompt), pool.texts
        return {
            (i, j): fill(self.template, (asked, texts[i], texts[j]))
            for i, j in permutations(range(len(texts)), 2)
            if texts[i] != texts[j]
        }

    def _key(self, question: str, left_out: frozenset[str]) -> str:
        """A hash of everything that decides the answer; the question holds template and texts.

        Args:
            left_out: keys of `judge` that the server refused, so that it was asked without them.
        """
        how = [
            "refused" if key in left_out else getattr(self.settings, key)
            for key in ("temperature", "max_tokens", "json_schema")
        ]
        asked = [self.model, *how, question]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    def _kept(self, question: str) -> Verdict | None:
        """The verdict on it; asked without what the server refused, if it was not asked with it."""
        keys = (self._key(question, left_out) for left_out in self._may_be_refused)
        return next((self.verdicts[key] for key in keys if key in self.verdicts), None)

    def _verdict(self, question: str) -> Verdict:
        kept = self._kept(question)
        assert kept is not None, "it was asked"
        return kept

    def _say_ties(self, prompt_of: Mapping[str, str]) -> None:
        """Print a line for each cause of a tie that is not a verdict, with its first prompt."""
        for outcome in ("too_long", "refusal", "unparsable"):
            questions = [q for q in prompt_of if self._verdict(q).outcome == outcome]
            if questions:
                first = questions[0]
                line = (
                    f"{self.model}: {len(questions)} of {len(prompt_of)} verdicts are ties, "
                    f"{outcome}; the first one is for the prompt {prompt_of[first]}: "
                    f"{self._verdict(first).answer[:_SHOWN]!r}"
                )
                progress.say(one_line(line))

    def _ask(self, prompt_of: Mapping[str, str]) -> None:
        """Ask all questions; each has the id of its prompt."""
        from selm.ranking.endpoint import Endpoint

        if not prompt_of:
            return
        if self._endpoint is None:
            schema = _SCHEMA if self.settings.json_schema else None
            self._endpoint = Endpoint(self.ranking, schema, self.pause_seconds)
        endpoint, most = self._endpoint, self.settings.max_tokens

        def keep(question: Question, answer: "Answer") -> None:
            said = endpoint.without_key(answer.text)[:KEPT]
            key = self._key(question.text, answer.left_out)
            self.verdicts.add(key, replace(read_verdict(answer), answer=said))

        asked = [Question(text, prompt_id, most) for text, prompt_id in prompt_of.items()]
        ask_all(endpoint, asked, keep, "verdict")


def fill(template: str, values: Sequence[str]) -> str:
    """The template with prompt, response A and response B in place, whatever they contain.

    >>> fill("{prompt} | {response_a} | {response_b} {}", ("p", "{response_b}", "{prompt}"))
    'p | {response_b} | {prompt} {}'
    """
    return filled(template, dict(zip(TEMPLATE_FIELDS, values, strict=True)))


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


def _flips(forward: Outcome, backward: Outcome) -> list[bool]:
    """Whether the order decided; empty unless both orders have a verdict.

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


def read_template(ranking: Ranking) -> str:
    """The judge's template: text in UTF-8 with fields for the prompt and the responses."""
    key, path = "judge.template", ranking.judge.template
    check_file(f"{ranking.section}.{key}", path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ranking.error(key, f"{path} cannot be read as text in UTF-8: {error}") from error
    missing = [f"{{{name}}}" for name in TEMPLATE_FIELDS if f"{{{name}}}" not in text]
    if missing:
        raise ranking.error(key, f"{path} must contain {' and '.join(missing)}")
    return text


def _check(ranking: Ranking) -> None:
    """Its errors print no values, because a value may be a misplaced secret."""
    settings = ranking.judge
    if not ranking.name_or_path:
        raise ranking.error(
            "name_or_path", f"missing (the model's name at {ranking.section}.judge.base_url)"
        )
    url = urlsplit(settings.base_url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ranking.error("judge.base_url", "wanted a URL such as http://localhost:8000/v1")
    if "@" in url.netloc:
        raise ranking.error(
            "judge.base_url", "a URL here must not hold a user or password; see api_key_env"
        )
    if settings.api_key_env and not re.fullmatch("[A-Z_][A-Z0-9_]*", settings.api_key_env):
        raise ranking.error(
            "judge.api_key_env",
            "wanted the name of an environment variable, in "
            "capitals, such as OPENAI_API_KEY; not the key itself",
        )
    read_template(ranking)


def _look(ranking: Ranking, pools: Sequence[Pool]) -> None:
    key = ranking.judge.api_key_env
    if key and not os.environ.get(key, "").strip():
        raise ranking.error("judge.api_key_env", f"{key} is not set in this environment")


def _facts(ranking: Ranking, pools: Sequence[Pool], verdicts: Path | None) -> Facts:
    return JudgeRanker(ranking, verdicts).facts(pools)


def _said(ranking: Ranking, pools: Sequence[Pool], verdicts: Path | None) -> list[list[Said]]:
    return JudgeRanker(ranking, verdicts).said(pools)


JUDGE = RankerKind(
    load=lambda ranking, seed, verdicts: JudgeRanker(ranking, verdicts),
    pairwise=JudgeRanker.pairwise,
    keys=frozenset({"name_or_path", "judge"}),
    files=lambda ranking: {"judge.template": ranking.judge.template},
    check=_check,
    look=_look,
    facts=_facts,
    limited=True,
    asker=EndpointAsker,
    said=_said,
)
