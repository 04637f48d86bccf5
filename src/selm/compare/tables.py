"""The tables of a comparison, as text: of report.md and of report.html."""

from collections.abc import Sequence
from typing import NamedTuple

from selm.compare.metrics import Metrics
from selm.compare.settings import Comparison
from selm.report.statistics import Interval, interval_text

OF_DIFFERENCES = "After the last iteration of each, on the same prompts."
OF_WIN_RATES = "How often the reward of the row is above that of the column, in percent of prompts."


class Table(NamedTuple):
    """Cells are text; the first `left` columns are words, the others numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


def is_noise(interval: Interval | None) -> bool:
    """Whether a difference with this interval may be zero."""
    return interval is None or interval[0] <= 0 <= interval[1]


def settings(metrics: Metrics) -> Table:
    header = ["setting", "iteration", "reward", "95% interval", "sd of seeds"]
    header += ["difference from base", "95% interval", "tokens", "seeds"]
    rows = []
    for setting in metrics["settings"]:
        for found in setting["iterations"]:
            spread, gain = found["reward_sd_over_seeds"], found["difference_from_base"]
            rows.append(
                [
                    setting["name"],
                    "base" if found["iteration"] == 0 else str(found["iteration"]),
                    f"{found['reward_mean']:.3f}",
                    interval_text(found["reward_ci95"]),
                    "" if spread is None else f"{spread:.3f}",
                    "" if gain is None else f"{gain:+.3f}",
                    interval_text(found["difference_from_base_ci95"], "+"),
                    f"{found['response_tokens_mean']:.1f}",
                    str(found["seeds"]),
                ]
            )
    return Table(header, rows)


def differences(metrics: Metrics) -> Table:
    rows = [
        [
            *(entry["a"], entry["b"], f"{entry['mean']:+.3f}", interval_text(entry["ci95"], "+")),
            "no" if is_noise(entry["ci95"]) else "yes",
            str(entry["seeds"]) + (", paired" if entry["paired_seeds"] else ""),
        ]
        for entry in metrics["differences"]
    ]
    header = ["setting", "minus", "difference", "95% interval", "told apart", "seeds"]
    return Table(header, rows, left=2)


def win_rates(metrics: Metrics) -> Table:
    """Without rows if there is only one policy. Columns are numbers, for which rows have names."""
    labels, matrix = metrics["win_rates"]["labels"], metrics["win_rates"]["matrix"]
    header = ["", *(f"vs. {k}" for k in range(1, len(labels) + 1))]
    rows = [
        [f"{k}. {name}", *(f"{value:.1f}" for value in row)]
        for k, (name, row) in enumerate(zip(labels, matrix, strict=True), start=1)
    ]
    return Table(header, rows if len(labels) > 1 else [])


def alphas(metrics: Metrics) -> Table:
    """Without rows if the settings do not differ in alpha."""
    rows = [
        [
            f"{each['alpha']:g}",
            each["setting"],
            f"{each['reward_mean']:.3f}",
            interval_text(each["reward_ci95"]),
        ]
        for each in metrics.get("against_alpha", [])
    ]
    return Table(["alpha", "setting", "reward", "95% interval"], rows, left=2)


def runs(metrics: Metrics) -> Table:
    rows = [
        [
            *(run["setting"], run["folder"], str(run["seed"])),
            ", ".join(map(str, run["iterations"])),
            "; ".join(run["missing"]) or "nothing",
        ]
        for run in metrics["runs"]
    ]
    return Table(["setting", "run", "seed", "iterations", "missing"], rows, left=2)


def versions(comparison: Comparison) -> Table:
    """Each package's version, or several if runs were made with different ones."""
    found: dict[str, dict[str, None]] = {}  # dicts as sets that keep their order
    for run in comparison.runs:
        for manifest in run.manifests.values():
            commit = manifest["git_commit"] or "not a git checkout"
            for name, version in {"git commit": commit, **manifest["versions"]}.items():
                found.setdefault(name, {})[version] = None
    return Table(["what", "version"], [[k, ", ".join(v)] for k, v in found.items()], left=2)
