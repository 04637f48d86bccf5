"""Single-answer grading: an LLM rates an answer from 1 to 10, and its rating is read from text."""

import math
import re
from collections import defaultdict
from collections.abc import Sequence

from selm.evaluation.base import Measure
from selm.ranking.verdicts import without_thoughts

LEAST, MOST = 1, 10

_READ = 20_000  # characters at a reply's end in which the rating is looked for
_NUMBER = r"([+-]?\d+(?:\.\d+)?)(?:\s*(?:/|out of)\s*10)?"
_NO_MORE = (
    r"(?![\d%/]|[.,]\d|\s*(?:-|\u2013|to|/|out of)\s*\d)"  # as in "Rating: 1-10", "Score: 8/20"
)
_MARKS = r"[\s:=*_`(]*"
_NAMED = rf"\b(?:rating|score|grade)\b(?:\s+is)?{_MARKS}"

# The forms that judges write, the one that they are asked for first. In each the last one counts,
# because a judge may name other ratings while it explains its own.
_FORMS = (
    re.compile(rf"\[\[\s*(?:rating\s*[:=]?\s*)?{_NUMBER}\s*\]\]", re.I),
    re.compile(rf"{_NAMED}(?:\[\s*{_NUMBER}\s*\]|{_NUMBER}{_NO_MORE})", re.I),
    re.compile(rf"\[\s*{_NUMBER}\s*\][\s.*_`]*$"),
    re.compile(rf"^{_MARKS}{_NUMBER}[\s.*_`)\]]*$"),
)


def read_rating(text: str) -> float | None:
    """The rating in a judge's reply; None if there is none between 1 and 10.

    >>> read_rating("Short, but right. Rating: [[7.5]]"), read_rating("**Rating: 8/10**")
    (7.5, 8.0)
    >>> read_rating("I would say [[11]]"), read_rating("On a scale, rating 1-10, it is fine.")
    (None, None)
    """
    text = without_thoughts(text)[-_READ:].strip()
    for form in _FORMS:
        found = [match[match.lastindex or 0] for match in form.finditer(text)]
        if found:
            rating = float(found[-1])
            return rating if LEAST <= rating <= MOST else None
    return None


def mean_rating(ratings: Sequence[tuple[str, float]]) -> Measure:
    """The mean of all ratings, and its standard error over questions.

    The ratings of one question's turns are alike, so that they are not counted as independent:
    a question is a cluster, and the error is that of a ratio of sums over questions. Where all
    questions have as many ratings it is sd(means of the questions) / sqrt(questions).

    Args:
        ratings: (question's id, rating).

    >>> mean_rating([("a", 4), ("a", 6), ("b", 7), ("b", 7)])
    {'value': 6.0, 'standard_error': 1.0}
    """
    value = sum(rating for _, rating in ratings) / len(ratings)
    residuals: defaultdict[str, float] = defaultdict(float)
    for question, rating in ratings:
        residuals[question] += rating - value
    n = len(residuals)
    if n < 2:
        return {"value": value, "standard_error": None}
    spread = sum(residual**2 for residual in residuals.values()) * n / (n - 1)
    return {"value": value, "standard_error": math.sqrt(spread) / len(ratings)}
