"""The tables of a comparison's page: those of its report.md."""

from typing import Any

from selm.compare import tables as of
from selm.compare.metrics import Metrics
from selm.compare.page import HOW
from selm.compare.settings import Comparison
from selm.viewer.tables import text_table


def tables(comparison: Comparison, metrics: Metrics) -> list[dict[str, Any]]:
    """Those that have rows, in the order of report.md."""
    every = (
        ("settings", "Settings", f"Intervals: {HOW}", of.settings(metrics)),
        ("differences", "Differences between settings", of.OF_DIFFERENCES, of.differences(metrics)),
        ("win-rates", "Win rates", of.OF_WIN_RATES, of.win_rates(metrics)),
        ("alpha", "Reward against alpha", "", of.alphas(metrics)),
        ("runs", "Runs", "", of.runs(metrics)),
        ("versions", "Versions", "", of.versions(comparison)),
    )
    return [
        text_table(ident, title, found.header, found.rows, note, found.left)
        for ident, title, note, found in every
        if found.rows
    ]
