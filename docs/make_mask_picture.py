"""Draw docs/shared_prefix.png: two examples as padded sequences, as one row, and its mask.

python docs/make_mask_picture.py
"""

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from selm.report.figures import ROLES
from selm.report.style import BASE, FAINT, INK, STYLE
from selm.training.flex import positions
from selm.training.layout import Example, lay_out

OUTPUT = Path(__file__).parent / "shared_prefix.png"
# Tokens of the prompt and of each response; in the second example the explored one is in the pair.
LENGTHS = ((7, (5, 8, 4)), (4, (3, 6)))
COLOURS = {"prompt": BASE, **ROLES}
KINDS = ("prompt", "chosen", "rejected", "explored")


def main() -> None:
    prompts = [[0] * prompt for prompt, _ in LENGTHS]
    responses = [[[0] * length for length in lengths] for _, lengths in LENGTHS]
    _, _, layout = lay_out(prompts, responses)
    with plt.rc_context(STYLE):
        figure, (sequences, row, mask) = plt.subplots(
            3, 1, figsize=(6.4, 9.6), gridspec_kw={"height_ratios": [6, 1, 28]}
        )
        padded(sequences)
        shared(row, layout)
        attention(mask, layout)
        handles = [Patch(color=COLOURS[kind], label=kind) for kind in KINDS]
        handles.append(Patch(facecolor="white", edgecolor=FAINT, label="padding"))
        figure.legend(handles=handles, loc="upper center", ncols=5, bbox_to_anchor=(0.5, 0.99))
        figure.tight_layout(rect=(0, 0, 1, 0.96))
        figure.savefig(OUTPUT, bbox_inches="tight", pad_inches=0.15, facecolor="white")


def padded(axes: Axes) -> None:
    """One line per sequence, the prompt before each response, as wide as the longest."""
    width = max(prompt + max(lengths) for prompt, lengths in LENGTHS)
    roles = [
        (prompt, kind, length)
        for prompt, lengths in LENGTHS
        for kind, length in zip(KINDS[1:], lengths, strict=False)
    ]
    for y, (prompt, kind, length) in enumerate(roles):
        colours = [COLOURS["prompt"]] * prompt + [COLOURS[kind]] * length
        squares(axes, y, colours + ["white"] * (width - len(colours)))
    finish(axes, row_width(), len(roles), f"padded: {len(roles) * width} positions")


def shared(axes: Axes, layout: list[Example]) -> None:
    squares(axes, 0, colours_of(layout))
    finish(axes, row_width(), 1, f"shared: {row_width()} positions in one row")


def attention(axes: Axes, layout: list[Example]) -> None:
    """The mask, as flex.py has it: queries down, keys to the right, in the colour of the query."""
    example, block = (ids.numpy() for ids in positions(layout))
    at = np.arange(len(block))
    own_or_prompt = (block[None] == 0) | (block[None] == block[:, None])
    sees = (example[None] == example[:, None]) & own_or_prompt & (at[None] <= at[:, None])
    colours = np.array([to_rgb(colour) for colour in colours_of(layout)])
    axes.imshow(np.where(sees[:, :, None], colours[:, None], 1.0))
    axes.set_xticks(at - 0.5, minor=True)
    axes.set_yticks(at - 0.5, minor=True)
    axes.grid(which="minor")
    axes.tick_params(which="both", length=0, labelbottom=False, labelleft=False)
    axes.set_title("who sees whom: a position (down) sees its prompt and its own block (right)")
    axes.set_xlabel("white: not computed")


def colours_of(layout: list[Example]) -> list[str]:
    """One per position of the row."""
    return [
        COLOURS[kind]
        for example in layout
        for kind, (start, end) in zip(KINDS, (example.prompt, *example.blocks), strict=False)
        for _ in range(start, end)
    ]


def row_width() -> int:
    return sum(prompt - 1 + sum(lengths) for prompt, lengths in LENGTHS)


def squares(axes: Axes, y: float, colours: list[str]) -> None:
    left = np.arange(len(colours)) + 0.05
    axes.barh([y] * len(colours), 0.9, 0.86, left, color=colours, edgecolor=FAINT, linewidth=0.5)


def finish(axes: Axes, width: int, height: int, title: str) -> None:
    axes.set_xlim(0, width)
    axes.set_ylim(height - 0.4, -0.6)
    axes.set_title(title, color=INK)
    axes.axis("off")


if __name__ == "__main__":
    main()
