"""Texts for the benches: preference pairs of real words, of lengths as chat data have them.

By default the quickstart's texts, strung together to lengths as they were measured on 500 chat
preferences (words, log-normal: prompts 30, responses 200 in the middle).
"""

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

from selm.data.forms import normalise

QUICKSTART = Path(__file__).parents[1] / "recipes/smollm2-135m-instruct/data/train.jsonl"
Row = tuple[str, tuple[str, str]]  # a prompt, and two responses


def load(files: Sequence[Path] | None, count: int) -> list[Row]:
    """All rows of the files, or `count` made ones; shuffled, always in the same way."""
    rows = read(files) if files else strung_together(count)
    random.Random(0).shuffle(rows)
    return rows


def read(files: Sequence[Path]) -> list[Row]:
    """Rows with one user turn, which every way renders alike."""
    rows = []
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            row = normalise(json.loads(line))
            if isinstance(row, dict) and row["chosen"] is not None and len(row["prompt"]) == 1:
                rows.append((row["prompt"][0]["content"], (row["chosen"], row["rejected"])))
    return rows


def strung_together(count: int) -> list[Row]:
    """The quickstart's texts in a row, cut to log-normal lengths; candidates of one prompt are of
    similar length (correlation 0.67 of the logarithms)."""
    rng = random.Random(0)
    short = read([QUICKSTART])
    streams = {
        "prompt": [prompt for prompt, _ in short],
        "response": [text for _, candidates in short for text in candidates],
    }

    def text(kind: str, middle: float, deviations: float, spread: float) -> str:
        wanted = min(2000, max(3, round(middle * math.exp(spread * deviations))))
        parts: list[str] = []
        while sum(len(part.split()) for part in parts) < wanted:
            parts.append(rng.choice(streams[kind]))
        return "\n".join(parts)

    rows = []
    for _ in range(count):
        shared = math.sqrt(0.67) * rng.gauss(0, 1)
        own = [shared + math.sqrt(0.33) * rng.gauss(0, 1) for _ in range(2)]
        first, second = (text("response", 200, deviations, 0.66) for deviations in own)
        rows.append((text("prompt", 30, rng.gauss(0, 1), 1.0), (first, second)))
    return rows
