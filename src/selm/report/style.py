"""How all figures of the report look. An iteration has one colour in all of them."""

from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt

BASE, INK, FAINT = "#9aa0a6", "#22303c", "#d9dde1"
NOTE = "#5f6b76"
STYLE = {
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def colours(iterations: Sequence[int]) -> dict[int, Any]:
    """Iteration -> colour: grey for the base, then from light to dark."""
    later = [t for t in iterations if t > 0]
    depths = np.linspace(0.92, 0.5, max(len(later), 2))[: len(later)]  # a single one is dark
    shades = plt.get_cmap("YlGnBu")(depths[::-1])
    return {0: BASE, **dict(zip(later, shades, strict=True))}


def titled(figure: Any, title: str, subtitle: str) -> None:
    """Two lines at the top left, at fixed distances in inches from the top edge."""
    height = figure.get_size_inches()[1]
    plain = {"va": "top", "parse_math": False}  # a name with two $ is not a formula
    figure.text(0.02, 1 - 0.08 / height, title, fontsize=14, fontweight="bold", **plain)
    figure.text(0.02, 1 - 0.38 / height, subtitle, fontsize=9.5, color=NOTE, **plain)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.62 / height))
