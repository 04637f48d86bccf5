"""The picture of bench/regret.py: regret over iterations, and the terms less DPO over alpha."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from selm.report.style import BASE, INK, NOTE, STYLE, titled

Result = Mapping[str, Any]
CASES = {  # title -> case, one per row of the picture
    "the paper's loop": "log-linear, hard; paper",
    "XPO's loop, noisy": "log-linear, hard; XPO, noisy",
}
COLOURS = {
    "selm": "#d95f0e", "expected": "#fdae6b", "xpo": "#2c7fb8", "geb": "#31a354", "vpo": "#756bb1",
}  # fmt: skip
SHADES = {"0.01": "#fdbe85", "0.1": "#fd8d3c", "1.0": "#d94701"}
NAMES = {"selm": "SELM", "expected": "SELM, expected", "xpo": "XPO", "geb": "GEB", "vpo": "VPO"}


def draw(results: Sequence[Result], output: Path) -> None:
    by_case = {result["case"]: result for result in results}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 3, figsize=(12, 7), width_ratios=[1.15, 1, 1])
        for row, (name, case) in zip(axes, CASES.items(), strict=True):
            over_iterations(row[0], by_case[case], name)
            for panel, steps in zip(row[1:], ("best", "small"), strict=True):
                over_alpha(panel, by_case[case], steps)
        axes[0][0].legend(fontsize=7.5, loc="upper right", labelspacing=0.25, borderaxespad=0)
        axes[0][1].legend(fontsize=8, loc="upper left")
        axes[0][2].legend(fontsize=8, loc="lower left")
        titled(
            figure,
            "Optimism terms in a bandit whose best response is rare",
            "log-linear bandit, the base policy answers best once in 1,000 times; "
            "bars: 95% intervals of differences paired by seed",
        )
        figure.savefig(output, bbox_inches="tight", pad_inches=0.15, facecolor="white")
        plt.close(figure)


def over_iterations(axes: Axes, result: Result, name: str) -> None:
    """DPO and SELM at DPO's best step size, between uniform data and the oracle."""
    plain = {"linewidth": 1.4, "linestyle": (0, (4, 3))}
    axes.plot(result["oracle"]["regret"], color=INK, label="oracle: the true reward", **plain)
    axes.plot(result["uniform"]["regret"], color=BASE, label="DPO on uniform responses", **plain)
    axes.plot(dpo(result, "best")["regret"], color=INK, linewidth=2, label="DPO")
    for alpha, shade in SHADES.items():
        regret = result["terms"]["best"]["selm"][alpha]["regret"]
        axes.plot(regret, color=shade, linewidth=1.6, label=f"SELM, alpha {alpha}")
    axes.set(title=f"Regret in {name}", xlabel="iteration", ylabel="share of the base policy's")
    axes.set_ylim(0, 1.05)
    axes.grid(axis="y")


def over_alpha(axes: Axes, result: Result, steps: str) -> None:
    """Every term's summed regret less DPO's with the same step size."""
    for shift, (term, colour) in enumerate(COLOURS.items()):
        found = result["terms"][steps][term]
        at = [float(alpha) * 1.12 ** (shift - 2) for alpha in found]
        values = [one["difference"] for one in found.values()]
        errors = [one["half_width"] for one in found.values()]
        axes.errorbar(
            at, values, errors, color=colour, marker="o", markersize=4, linewidth=1, elinewidth=1.4,
            label=NAMES[term] if steps == "best" else None,
        )  # fmt: skip
    axes.axhline(0, color=NOTE, linewidth=1)
    if steps == "small":
        longer = list(result["dpo"].values())[1]["difference"]
        label = "DPO with steps three times as long"
        axes.axhline(longer, color=INK, linewidth=1.4, linestyle=(0, (4, 3)), label=label)
    axes.set(
        title=f"Less DPO's, {'best' if steps == 'best' else 'smallest'} step size",
        xlabel="alpha",
        ylabel="summed regret; below 0 is better",
        xscale="log",
    )
    axes.grid(axis="y")


def dpo(result: Result, steps: str) -> Result:
    return result["dpo"][str(result["best_rate"])] if steps == "best" else result["dpo"]["0.1"]
