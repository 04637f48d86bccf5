"""How the figures of a comparison look: a setting has one colour in all of them, and a label."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from selm.escape import one_line
from selm.report.style import INK

# Okabe and Ito's colours without yellow, which is too pale for a line on white. The first setting,
# to which the others are compared, is dark.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
DASHES = ("solid", (0, (4, 1.5)), (0, (1, 1)))
MARKERS = "osD"
SMALL = 9.0  # points, of names and numbers

Setting = Mapping[str, Any]  # an entry of `settings` in compare.json


@dataclass(frozen=True)
class Look:
    """Colours repeat after six settings; dashes and markers then tell them apart."""

    colour: str
    dashes: Any = "solid"
    marker: str = "o"


def looks(names: Sequence[str]) -> dict[str, Look]:
    """The look of each setting, in the order of the comparison."""
    found = {name: Look(INK) for name in names[:1]}
    for k, name in enumerate(names[1:]):
        turn = (k // len(PALETTE)) % len(DASHES)
        found[name] = Look(PALETTE[k % len(PALETTE)], DASHES[turn], MARKERS[turn])
    return found


def label(name: str, width: int = 32, lines: int = 2) -> str:
    """A name on at most `lines` lines. A longer one loses its middle: its ends tell it apart.

    >>> label("alpha 0.001, learning rate 5e-7", width=20)
    'alpha 0.001,\\nlearning rate 5e-7'
    """
    text = one_line(name)
    folded = textwrap.wrap(text, width) or [""]
    while len(folded) > lines:
        half = (len(text) - 2) // 2
        text = text[:half].rstrip("… ") + "…" + text[-half:].lstrip("… ")
        folded = textwrap.wrap(text, width)
    return "\n".join(folded)


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Heights at least `gap` apart, in the same order and as near to the wanted ones as possible.

    Isotonic regression of what each height has beyond its place in a ladder of such gaps.

    >>> spread([1.0, 0.0, 1.0], gap=0.5)
    [0.75, 0.0, 1.25]
    """
    order = np.argsort(wanted, kind="stable")
    ladder = gap * np.arange(len(order))
    blocks: list[tuple[float, int]] = []  # mean, size
    for beyond in np.asarray(wanted, dtype=float)[order] - ladder:
        mean, size = float(beyond), 1
        while blocks and blocks[-1][0] > mean:
            before, many = blocks.pop()
            mean, size = (before * many + mean * size) / (many + size), many + size
        blocks.append((mean, size))
    heights = ladder + np.repeat([mean for mean, _ in blocks], [size for _, size in blocks])
    found = dict(zip(order.tolist(), heights.tolist(), strict=True))
    return [found[k] for k in range(len(found))]


def ends(entry: Mapping[str, Any], value: str, interval: str) -> tuple[float, float]:
    """Both ends of an entry's interval; the value twice where it has none."""
    low, high = entry[interval] or (entry[value], entry[value])
    return low, high


def rows_of(axes: Axes, names: Sequence[str], values: Sequence[str]) -> None:
    """Rows from the top down: the name to the left, the numbers to the right."""
    axes.set_yticks(range(len(names)), [label(name, lines=3) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    for text in axes.get_yticklabels():
        text.set(fontsize=SMALL, parse_math=False)
    for k, value in enumerate(values):
        axes.annotate(
            value, (1, k), (8, 0), xycoords=("axes fraction", "data"), va="center",
            textcoords="offset points", fontsize=SMALL, annotation_clip=False,
        )  # fmt: skip
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)


def height_of_rows(names: Sequence[str]) -> float:
    """Inches: of the rows, and of title and axis."""
    lines = max(label(name, lines=3).count("\n") + 1 for name in names)
    return max(0.42, 0.17 * lines + 0.06) * len(names) + 1.5
