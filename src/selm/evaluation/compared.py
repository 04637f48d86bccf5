"""What pairs of answers and the preferences for them come to: win rates, rows, counts."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selm.data.drops import Drops, in_words, row_name
from selm.data.schemas import BenchmarkRow
from selm.errors import UserError
from selm.escape import one_line
from selm.evaluation.alpaca_data import TABLE, Reference
from selm.evaluation.annotator import Pair, Preference
from selm.evaluation.base import Measure
from selm.evaluation.length_control import FOLDS, Annotation, length_controlled, win_rate
from selm.ranking.kinds import label
from selm.recipe.schema import Recipe

_SHOWN = {True: "policy", False: "other", None: None}


@dataclass(frozen=True)
class Judged:
    """A pair and the preference for one of it, which is known."""

    pair: Pair
    preference: float
    found: Preference

    @property
    def annotation(self) -> Annotation:
        lengths = len(self.pair.other), len(self.pair.output)
        return Annotation(self.pair.text, self.preference, *lengths)

    def row(self, part: str) -> BenchmarkRow:
        details = {
            "length": len(self.pair.output),
            "baseline_length": len(self.pair.other),
            "preference": self.preference,
            "source": self.found.source,
            "shown_first": _SHOWN[self.found.policy_first],
            "said": self.found.said,
        }
        score = self.preference - 1
        text = json.dumps(details)
        return {"prompt_id": self.pair.prompt_id, "part": part, "score": score, "details": text}


@dataclass(frozen=True)
class Compared:
    """Pairs, and the preferences for them.

    Attributes:
        opponent: who wrote the other answers, for messages.
    """

    pairs: Sequence[Pair]
    preferences: Sequence[Preference]
    opponent: str

    @property
    def judged(self) -> list[Judged]:
        """The pairs whose preference is known."""
        both = zip(self.pairs, self.preferences, strict=True)
        return [Judged(pair, each.value, each) for pair, each in both if each.value is not None]

    @property
    def dropped(self) -> Drops:
        """Reason -> pairs without a preference."""
        drops = Drops()
        for pair, each in zip(self.pairs, self.preferences, strict=True):
            if each.value is None:
                named = {"prompt_id": pair.prompt_id, "prompt": list(pair.prompt)}
                drops.add(each.reason, row_name(named))
        return drops

    def rows(self, part: str = "") -> list[BenchmarkRow]:
        return [each.row(part) for each in self.judged]

    @property
    def is_length_controlled(self) -> bool:
        return len(self.judged) >= FOLDS

    def measures(self, reference: Reference) -> dict[str, Measure]:
        """Win rates in percent: length-controlled if there are enough pairs, and as judged.

        Without difficulties the formula gives all prompts one win rate at equal lengths. Its
        standard error is then unknown, and the win rate as judged comes first.
        """
        annotations = [each.annotation for each in self.judged]
        as_judged = {"win_rate": measure(*win_rate([row.preference for row in annotations]))}
        if not self.is_length_controlled:
            return as_judged
        known = reference.difficulties or {row.instruction: 0.0 for row in annotations}
        found = length_controlled(annotations, known, reference.gamed)
        if not reference.difficulties:
            return as_judged | {"lc_win_rate": measure(found.win_rate, math.nan)}
        return {"lc_win_rate": measure(found.win_rate, found.standard_error)} | as_judged

    def notes(self, reference: Reference) -> list[str]:
        """What a reader of the measures must know, a sentence each."""
        if not self.is_length_controlled:
            return [
                f"There is no length-controlled win rate against {self.opponent}: it needs {FOLDS} "
                f"preferences, and there are {len(self.judged)}."
            ]
        if not reference.gamed:
            return [f"lc_win_rate is not regularised: it was fitted without {TABLE}."]
        return []

    def facts(self) -> dict[str, Any]:
        """How the preferences came about; `first_wins` is the mean share of the one shown first."""
        found = [each.found for each in self.judged]
        shown = [each for each in self.judged if each.found.policy_first is not None]
        shares = [
            each.preference - 1 if each.found.policy_first else 2 - each.preference
            for each in shown
        ]
        first = sum(bool(each.found.policy_first) for each in shown)
        tokens = sum(each.tokens for each in self.preferences)
        return {
            **Counter(each.source for each in found),
            **({"judge_tokens": tokens} if tokens else {}),
            "ties": sum(each.preference == 1.5 for each in self.judged),
            **({"policy_first": first, "other_first": len(shown) - first} if shown else {}),
            **({"first_wins": round(sum(shares) / len(shares), 4)} if shown else {}),
        }


def measure(value: float, standard_error: float) -> Measure:
    """A mean; its standard error is NaN if it is one of a single value."""
    return {
        "value": value,
        "standard_error": None if math.isnan(standard_error) else standard_error,
    }


def mean_length(texts: Sequence[str]) -> Measure:
    """In characters."""
    import numpy as np

    lengths = np.array([len(text) for text in texts], dtype=float)
    error = lengths.std(ddof=1) / math.sqrt(len(lengths)) if len(lengths) > 1 else math.nan
    return measure(float(lengths.mean()), float(error))


def check_some(compared: Compared, recipe: Recipe) -> None:
    """UserError if there is no preference at all."""
    if not compared.pairs:
        raise UserError(f"no prompt has an answer of both the policy and {compared.opponent}")
    if not compared.judged:
        judge, said = recipe.benchmark_judge(), compared.preferences[0].said
        raise UserError(
            one_line(
                f"{judge.section}: {label(judge)} has no preference for any answer "
                f"({in_words(compared.dropped)}){f'; it said {said!r}' if said else ''}"
            )
        )
