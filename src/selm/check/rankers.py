"""Checks the rankers of the training pairs and of the held-out answers."""

from selm.check.preflight import Preflight
from selm.ranking.kinds import label, look


def rankers(preflight: Preflight) -> str:
    """Each ranker's files fit together, a function scores a row, a hosted judge's key is set."""
    rows, _ = preflight.sample
    alone = [ranking for ranking in preflight.recipe.rankings() if not ranking.rankers]
    for ranking in alone:
        look(ranking, rows)
    return ", ".join(dict.fromkeys(map(label, alone)))
