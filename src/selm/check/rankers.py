"""Who ranks and judges."""

from selm.check.preflight import Preflight
from selm.ranking import preflight as ranker_preflight
from selm.ranking.kinds import label


def rankers(preflight: Preflight) -> str:
    """Each ranker's files fit together, a function scores a row, a hosted judge's key is there."""
    rows, _ = preflight.sample
    named = [(key, r) for key, r in preflight.recipe.rankings() if r.ranker != "ensemble"]
    for key, ranking in named:
        ranker_preflight.check(key, ranking, rows)
    return ", ".join(dict.fromkeys(label(ranking) for _, ranking in named))
