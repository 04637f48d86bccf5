"""AlpacaEval 2's win rates: as judged, and as they would be were all answers equally long.

Judges prefer long answers. Dubois et al. (2024, arXiv 2404.04475) therefore fit, for each model,

    P(the model's answer wins) = sigmoid(w1 tanh(d / sd(d)) + w2 difficulty + w3)
    d = characters of the baseline's answer - characters of the model's

to the judge's preferences. The length-controlled win rate is the mean of P at d = 0. The fit is
that of the package alpaca-eval 0.6.6, whose results `tests/golden/` holds. A preference lies in
[1, 2]: 1 is a win of the baseline, 2 one of the model, 1.5 a tie. Rates are in percent.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from selm.errors import UserError
from selm.escape import one_line

Array = npt.NDArray[np.float64]

FOLDS, SEED = 5, 123
GAMED_WEIGHT = 0.2 / 2  # of a row; there are two gamed baselines


class Annotation(NamedTuple):
    """What the judge said of one instruction, and the characters of both answers."""

    instruction: str
    preference: float
    baseline_length: int
    length: int


class Observation(NamedTuple):
    """What the fit sees of one annotation."""

    preference: float
    scaled_difference: float
    difficulty: float


class Weights(NamedTuple):
    """w1, w2 and w3 of the formula."""

    length: float
    difficulty: float
    model: float


class WinRate(NamedTuple):
    """In percent, with the standard error of the mean: NaN if there is one preference only."""

    win_rate: float
    standard_error: float


class LengthControlled(NamedTuple):
    """As `WinRate`; regularised if gamed baselines had a part in the fit."""

    win_rate: float
    standard_error: float
    weights: Weights
    regularised: bool


def win_rate(preferences_N: Sequence[float] | Array) -> WinRate:
    """The mean preference."""
    shares = np.asarray(preferences_N, dtype=float) - 1
    error = shares.std(ddof=1) / np.sqrt(len(shares)) if len(shares) > 1 else np.nan
    return WinRate(100 * float(shares.mean()), 100 * float(error))


def length_controlled(
    annotations: Sequence[Annotation],
    difficulties: Mapping[str, float],
    gamed: Sequence[Observation] = (),
) -> LengthControlled:
    """The length-controlled win rate over the instructions that are annotated.

    Args:
        annotations: in the benchmark's order, on which the folds, and slightly the fit, depend.
        difficulties: of these instructions, and of any others.
        gamed: annotations of the two gamed baselines: the baseline's own model, told to be brief or
            verbose. They can differ from the baseline in length alone, so P has no w3 there.

    Raises:
        UserError: for fewer annotations than folds, an instruction without a difficulty, and a
            preference outside [1, 2].
    """
    _check(annotations, difficulties)
    own = [
        Observation(row.preference, scaled, difficulties[row.instruction])
        for row, scaled in zip(annotations, scaled_differences(annotations), strict=True)
    ]
    if all(row.preference == 1.5 and row.scaled_difference == 0 for row in own):
        weights = Weights(0.0, 0.0, 0.0)  # the baseline against itself
    else:
        weights = _fit(own, gamed)
    found = at_equal_lengths(weights, [row.difficulty for row in own])
    return LengthControlled(*found, weights, regularised=bool(gamed))


def scaled_differences(annotations: Sequence[Annotation]) -> Array:
    """d / sd(d); zeros if d is the same everywhere, for then nothing can be learnt from it.

    >>> scaled_differences([Annotation("", 1.5, 3, length) for length in (0, 1, 2)])
    array([3., 2., 1.])
    """
    differences = np.array([row.baseline_length - row.length for row in annotations], dtype=float)
    deviation = differences.std(ddof=1)
    return differences / deviation if deviation else np.zeros_like(differences)


def at_equal_lengths(weights: Weights, difficulties_N: Sequence[float]) -> WinRate:
    """The win rate that the formula gives if both answers are equally long."""
    logits = weights.difficulty * np.asarray(difficulties_N, dtype=float) + weights.model
    return win_rate(1 + np.exp(-np.logaddexp(0, -logits)))


def reference_table(
    rows: Sequence[Mapping[str, Any]], instructions: Sequence[str]
) -> tuple[dict[str, float], list[Observation]]:
    """Difficulties and gamed baselines from the rows of `df_gamed.csv` in `tatsu-lab/alpaca_eval`.

    An instruction is its place in the dataset there, a preference lies in [0, 1], and differences
    of length are already scaled, each baseline's by its own deviation.

    Args:
        instructions: the whole dataset's, in its order.

    Raises:
        UserError: if the dataset is shorter than the table.
    """
    places = [int(row["index"]) for row in rows]
    if (count := 1 + max(places)) > len(instructions):
        raise UserError(f"the table has {count} instructions, the dataset {len(instructions)}")
    columns = ("preference", "std_delta_len", "instruction_difficulty")
    gamed = [Observation(*(float(row[column]) for column in columns)) for row in rows]
    difficulties = {instructions[n]: row.difficulty for n, row in zip(places, gamed, strict=True)}
    return difficulties, [row._replace(preference=row.preference + 1) for row in gamed]


def check_installed() -> None:
    """UserError without scikit-learn, before a judge is asked for hours."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        fix = "pip install 'selm[benchmarks]'"
        raise UserError(f"length-controlled win rates need scikit-learn: {fix}") from error


def _check(annotations: Sequence[Annotation], difficulties: Mapping[str, float]) -> None:
    if len(annotations) < FOLDS:
        count = len(annotations)
        raise UserError(f"a length-controlled win rate needs {FOLDS} annotations, here are {count}")
    for row in annotations:
        name = one_line(row.instruction, most=80)
        if row.instruction not in difficulties:
            raise UserError(f"there is no difficulty for the instruction {name!r}")
        if not 1 <= row.preference <= 2:
            raise UserError(f"the preference {row.preference} for {name!r} is not in [1, 2]")


def _fit(own: Sequence[Observation], gamed: Sequence[Observation]) -> Weights:
    """By logistic regression with an L1 penalty, whose strength cross-validation chooses.

    scikit-learn takes hard labels only: each annotation is two rows of one fold, won and lost,
    weighted by how far it is either.
    """
    check_installed()
    from sklearn import exceptions, linear_model, model_selection

    rows = [*gamed, *own]
    features = np.array(
        [(np.tanh(r.scaled_difference), r.difficulty, n >= len(gamed)) for n, r in enumerate(rows)]
    )
    won = np.array([row.preference - 1 for row in rows])
    if min(np.count_nonzero(won), np.count_nonzero(1 - won)) < FOLDS:
        # liblinear leaves out rows of no weight; a fold must not lose all rows of a label so
        won = np.clip(won, 1e-15, 1 - 1e-15)
    weights = np.array([GAMED_WEIGHT] * len(gamed) + [1.0] * len(own))

    features, labels = np.concatenate([features] * 2), np.repeat([1, 0], len(rows))
    folds = model_selection.GroupKFold(FOLDS).split(features, labels, [*range(len(rows))] * 2)
    model = linear_model.LogisticRegressionCV(
        cv=list(folds),
        scoring=_log_likelihood,
        solver="liblinear",
        l1_ratios=[1.0],
        fit_intercept=False,
        random_state=SEED,
        use_legacy_attributes=False,
    )
    with warnings.catch_warnings():  # it may stop before it converges, as the package's fit does
        warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
        both = np.concatenate([won, 1 - won]) * np.tile(weights, 2)
        model.fit(features, labels, sample_weight=both)
    return Weights(*model.coef_[0].tolist())


def _log_likelihood(model: Any, features: Array, labels: Array, sample_weight: Array) -> float:
    """A fold's score: divided by the number of its rows, not by their weight."""
    logits = model.decision_function(features)
    losses = np.logaddexp(0, np.where(labels == 1, -logits, logits))
    return -float(np.mean(sample_weight * losses))
