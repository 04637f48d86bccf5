"""AlpacaEval in small: its files, a policy's answers, and a judge that likes length."""

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from chat_server import Reply as Sent
from chat_server import completion

from selm.data.schemas import ResponseRow
from selm.evaluation import alpaca_data
from selm.recipe.schema import Recipe

TOPICS = ("the sea", "foxes", "maps", "Paris", "rain", "bread", "trees", "the moon")


def entries(count: int) -> list[dict[str, str]]:
    """The baseline's answers have lengths from 20 to 59 characters."""
    rng = np.random.default_rng(3)
    return [
        {
            "instruction": f"Question {n} about {TOPICS[n % len(TOPICS)]}?",
            "output": "b" * int(rng.integers(20, 60)),
            "generator": "gpt4_1106_preview",
            "dataset": ("helpful_base", "koala")[n % 2],
        }
        for n in range(count)
    ]


def write(folder: Path, found: Any, table: bool = False) -> Path:
    """The folder for `benchmarks.data`; `table`: with difficulties and two gamed baselines."""
    there = folder / "alpaca_eval"
    there.mkdir(parents=True, exist_ok=True)
    text = found if isinstance(found, str) else json.dumps(found, indent=1)
    (there / alpaca_data.QUESTIONS).write_text(text, encoding="utf-8")
    if table:
        write_table(there / alpaca_data.TABLE, len(found))
    return folder


def write_table(path: Path, count: int) -> None:
    """As the Hub's: an index is a place in the dataset, the first column has no name."""
    rng = np.random.default_rng(4)
    difficulties = rng.normal(size=count)
    columns = ("", "index", "model", "preference", "std_delta_len", "instruction_difficulty")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for model, sign in (("concise", 1.0), ("verbose", -1.0)):
            for n in range(count):
                scaled = sign * rng.uniform(0.5, 2)
                preference = float(np.clip(0.5 - 0.2 * scaled + rng.normal() / 9, 0, 1))
                writer.writerow((n, n, model, preference, scaled, difficulties[n]))


def answers(recipe: Recipe, lengths: dict[int, int] | None = None) -> list[ResponseRow]:
    """A policy's answers to all instructions of the recipe: n -> characters, 40 by default."""
    known = alpaca_data.instructions(recipe)
    texts = [(lengths or {}).get(n, 40) * "p" for n in range(len(known))]
    return [
        {
            **{"prompt_id": each.prompt_id, "prompt": each.row["prompt"], "tools": None},
            **{"chosen": None, "rejected": None, "responses": [text], "num_tokens": [3]},
            **{"finish_reasons": ["stop"], "columns": json.dumps({"dataset": each.dataset})},
        }
        for each, text in zip(known, texts, strict=True)
    ]


SHOWN = re.compile(
    r"Request ===\n(.*)\n\n=== Answer A ===\n(.*)\n\n=== Answer B ===\n(.*)\n\n=== End",
    re.DOTALL,
)


def shown(body: dict[str, Any]) -> tuple[str, str, str]:
    """The instruction, and the two answers in the order in which they stand."""
    found = SHOWN.search(body["messages"][0]["content"])
    assert found is not None
    return found.group(1), found.group(2), found.group(3)


def longer_wins(body: dict[str, Any]) -> Sent:
    """p(A) = sigmoid(difference of lengths / 10), where log-probs are asked for."""
    _, a, b = shown(body)
    odds = (len(a) - len(b)) / 10
    letter = "A" if odds >= 0 else "B"
    logprobs = {"A": -math.log1p(math.exp(-odds)), " B": -math.log1p(math.exp(odds))}
    return completion(letter, logprobs if body.get("logprobs") else None)


def chance(length: int, other: int) -> float:
    """What `longer_wins` says of the policy's answer."""
    return 1 / (1 + math.exp((other - length) / 10))
