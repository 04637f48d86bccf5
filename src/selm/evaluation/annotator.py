"""Says which of two answers to the same prompt is better: as AlpacaEval's annotator, or by scores.

The annotator is an LLM that sees both answers once. Its preference is how likely its first token
names the one or the other (`weighted_alpaca_eval_gpt4_turbo` of the package alpaca-eval); without
log-probs, or if that token is no letter, it is the letter that it writes. Which answer stands first
is drawn from the prompt's text, so that it is the same for every policy. Any other ranker scores
both answers, and the higher score wins.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from selm.data.schemas import Message
from selm.ranking.base import Asker, Candidate, Facts, Pool, Question, Reply
from selm.ranking.kinds import kind_of, naming, ranking_facts
from selm.ranking.refused import REASON
from selm.ranking.texts import conversation, filled
from selm.ranking.verdicts import Outcome, parse_outcome
from selm.recipe.schema import Recipe

TEMPLATE = Path(__file__).parent / "templates" / "alpaca_eval.txt"
TEMPLATE_TOKENS = 150  # about

LEAST_SHARE = 0.01  # of the first token's probability that letters have, or it says nothing

_SHARES: dict[Outcome, float] = {"first": 1.0, "second": 0.0, "tie": 0.5}
_NOTHING_SAID = {"too_long": "too_long_for_judge", "content_filter": "refused_by_judge"}
_UNREADABLE = "unreadable_judgement"
_AROUND = " \t\n▁Ġ*_`\"'()[].:"  # a letter in a token
_SAID = 200  # characters


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt: a policy's, and the other that it is compared with."""

    prompt_id: str
    prompt: Sequence[Message]
    output: str
    other: str
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The prompt in one text."""
        return conversation(self.prompt)


@dataclass(frozen=True)
class Preference:
    """Which answer of a pair is better.

    Attributes:
        value: in [1, 2]: 1 the other's, 2 the policy's, 1.5 neither; None if nobody knows.
        reason: why it is not known; empty if it is.
        source: "logprobs", "verdict", "scores", or "same_text" of answers that are equal.
        policy_first: whether the policy's answer was shown first; None if nothing was shown.
        said: the start of the annotator's reply.
        tokens: that it read and wrote.
    """

    value: float | None
    source: str = ""
    reason: str = ""
    policy_first: bool | None = None
    said: str = ""
    tokens: int = 0


SAME = Preference(1.5, "same_text")


def preferences(
    pairs: Sequence[Pair], recipe: Recipe, folder: Path, verdicts: Path, what: str
) -> list[Preference]:
    """The preference of the benchmarks' judge for each pair.

    Args:
        folder, verdicts, what: see `score_pools`.

    Raises:
        UserError: the judge cannot be asked, or cannot be loaded.
    """
    judge = recipe.benchmark_judge()
    make = kind_of(judge).asker
    if make is None:
        return by_scores(pairs, recipe, folder, verdicts, what)
    with naming(judge):
        return by_asking(pairs, make(judge, verdicts), judge.judge.max_tokens)


def by_asking(pairs: Sequence[Pair], asker: Asker, verdict_tokens: int) -> list[Preference]:
    """Ask for one token with log-probs; of whom that says nothing, for a verdict in words."""
    found = {n: SAME for n, pair in enumerate(pairs) if pair.output == pair.other}
    template = TEMPLATE.read_text(encoding="utf-8")
    for max_tokens, logprobs in ((1, True), (verdict_tokens, False)):
        open_ones = [n for n in range(len(pairs)) if _is_open(found.get(n))]
        questions = [
            Question(_question(template, pairs[n]), pairs[n].prompt_id, max_tokens, logprobs)
            for n in open_ones
        ]
        for n, reply in zip(open_ones, asker.ask(questions), strict=True):
            before = found[n].tokens if n in found else 0
            tokens = before + reply.prompt_tokens + reply.completion_tokens
            found[n] = replace(read(reply, shows_policy_first(pairs[n].text)), tokens=tokens)
    return [found[n] for n in range(len(pairs))]


def _is_open(found: Preference | None) -> bool:
    return found is None or found.reason == _UNREADABLE


def shows_policy_first(prompt: str) -> bool:
    """A coin that only the prompt decides."""
    coin = hashlib.sha256(f"which answer is shown first: {prompt}".encode("utf-8", "replace"))
    return coin.digest()[0] % 2 == 0


def _question(template: str, pair: Pair) -> str:
    text = pair.text
    both = (pair.output, pair.other)
    first, second = both if shows_policy_first(text) else both[::-1]
    return filled(template, {"instruction": text, "answer_a": first, "answer_b": second})


def read(reply: Reply, policy_first: bool) -> Preference:
    """The preference in a reply, if there is one."""
    said = reply.text[:_SAID]
    if reply.finish_reason in _NOTHING_SAID:
        reason = _NOTHING_SAID[reply.finish_reason]
        return Preference(None, reason=reason, policy_first=policy_first, said=said)
    share, source = share_of_first(reply.logprobs or {}), "logprobs"
    if share is None:
        outcome, source = parse_outcome(reply.text), "verdict"
        share = None if outcome is None else _SHARES.get(outcome)
    if share is None:
        return Preference(None, reason=_UNREADABLE, policy_first=policy_first, said=said)
    value = 1 + (share if policy_first else 1 - share)
    return Preference(value, source, policy_first=policy_first, said=said)


def share_of_first(logprobs: Mapping[str, float]) -> float | None:
    """p(A) / (p(A) + p(B)) of the first token, in whatever way the letters are written.

    None if the letters are unlikely: a model that thinks before it speaks says nothing by them.

    >>> share_of_first({"A": math.log(0.6), " b": math.log(0.2), "The": math.log(0.2)})
    0.75
    """
    likely = {"A": 0.0, "B": 0.0}
    for token, logprob in logprobs.items():
        letter = token.strip(_AROUND).upper()
        if letter in likely:
            likely[letter] += math.exp(min(logprob, 0.0))
    both = sum(likely.values())
    return round(likely["A"] / both, 12) if both >= LEAST_SHARE else None


def by_scores(
    pairs: Sequence[Pair], recipe: Recipe, folder: Path, verdicts: Path, what: str
) -> list[Preference]:
    """The preference of a ranker that is no LLM to ask: who has the higher score wins."""
    from selm.ranking.scoring import score_pools

    scored = score_pools(
        pools_of(pairs), recipe.benchmark_judge(), recipe.seed, folder, verdicts, what
    )
    found = []
    for row in scored:
        if not row["scores"]:
            found.append(Preference(None, reason=REASON))
            continue
        own, other = row["scores"]
        found.append(Preference(2.0 if own > other else 1.0 if own < other else 1.5, "scores"))
    return found


def ranker_facts(pairs: Sequence[Pair], recipe: Recipe, verdicts: Path) -> dict[str, Facts]:
    """See `ranking_facts`; empty for an annotator."""
    judge = recipe.benchmark_judge()
    if kind_of(judge).asker is not None:
        return {}
    return ranking_facts(judge, pools_of(pairs), verdicts)


def pools_of(pairs: Sequence[Pair]) -> list[Pool]:
    """As rankers get them: the policy's answer and the other."""
    return [
        Pool(
            pair.prompt_id,
            pair.prompt,
            [Candidate(pair.output, "policy"), Candidate(pair.other, "base")],
            pair.columns,
        )
        for pair in pairs
    ]
