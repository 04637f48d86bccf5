"""Questions that were made up, in the schemas of the six tasks of lm-eval.

`write` makes what `benchmarks.data` names: <task>/<split>.jsonl.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

THINGS = ("apple", "river", "stone", "lamp", "horse", "cloud", "spoon", "violin", "glove", "clock")
PLACES = ("kitchen", "forest", "harbour", "school", "attic", "market", "garden", "station")
COLOURS = ("red", "green", "blue", "white")
FEELINGS = ("Joy", "Anger", "Fear", "Relief")

QUESTIONS = 12  # of each task
EXAMPLES = 30  # rows to take examples from; a task shows 25 at most


def write(folder: Path) -> Path:
    """The folder with all six tasks."""
    for task, splits in _tables().items():
        (folder / task).mkdir(parents=True, exist_ok=True)
        for split, rows in splits.items():
            lines = [json.dumps(row) + "\n" for row in rows]
            (folder / task / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def _tables() -> dict[str, dict[str, list[dict[str, Any]]]]:
    asked, shown = range(QUESTIONS), range(100, 100 + EXAMPLES)
    return {
        "gsm8k": {"test": [_sum(n) for n in asked]},
        "hellaswag": {split: [_story(n) for n in ids] for split, ids in _of(shown, "validation")},
        "arc_challenge": {split: [_science(n) for n in ids] for split, ids in _of(shown, "test")},
        "truthfulqa": {"validation": [_belief(n) for n in asked]},
        "eq_bench": {"validation": [_dialogue(n) for n in asked]},
        "openbookqa": {split: [_fact(n) for n in ids] for split, ids in _of(shown, "test")},
    }


def _of(shown: range, asked: str) -> Iterator[tuple[str, range]]:
    yield from (("train", shown), (asked, range(QUESTIONS)))


def _thing(n: int) -> tuple[str, str, str]:
    return THINGS[n % 10], PLACES[n % 8], COLOURS[n % 4]


def _sum(n: int) -> dict[str, Any]:
    thing, place, _ = _thing(n)
    there, more = n + 2, 2 * n + 1
    return {
        "question": f"There are {there} {thing}s in the {place}. Ann brings {more} more. How many "
        f"{thing}s are in the {place} now?",
        "answer": f"{there} + {more} = <<{there}+{more}={there + more}>>{there + more} {thing}s.\n"
        f"#### {there + more}",
    }


def _story(n: int) -> dict[str, Any]:
    thing, place, colour = _thing(n)
    endings = [f"puts the {thing} {where} the {place}." for where in ("under", "into", "over")]
    return {
        "ind": n,
        "activity_label": f"Painting a {thing}",
        "ctx_a": f"A man holds a {thing} and a can of {colour} paint.",
        "ctx_b": "he",
        "ctx": f"A man holds a {thing} and a can of {colour} paint. he",
        "endings": [*endings, f"paints the {thing} {colour}. [substeps] It dries slowly."],
        "source_id": f"made~up_{n}",
        "split": "train" if n >= 100 else "val",
        "split_type": "indomain",
        "label": str(n % 4),
    }


def _choices(n: int) -> dict[str, Any]:
    texts = [f"a {colour} {THINGS[(n + i) % 10]}" for i, colour in enumerate(COLOURS)]
    return {"text": texts, "label": ["A", "B", "C", "D"]}


def _science(n: int) -> dict[str, Any]:
    thing, place, _ = _thing(n)
    return {
        "id": f"made_up_{n}",
        "question": f"Which of these is like the {thing} number {n} in the {place}?",
        "choices": _choices(n),
        "answerKey": "ABCD"[n % 4],
    }


def _fact(n: int) -> dict[str, Any]:
    thing, place, _ = _thing(n)
    return {
        "id": f"{n}-made-up",
        "question_stem": f"The {thing} number {n} of the {place} is",
        "choices": _choices(n + 1),
        "answerKey": "ABCD"[n % 4],
    }


def _belief(n: int) -> dict[str, Any]:
    thing, place, colour = _thing(n)
    right = [f"Nothing happens to the {thing}.", "It stays as it is."][: 1 + n % 2]
    wrong = [f"The {thing} turns {colour}.", f"It flies out of the {place}.", "You get rich."]
    labels = [1] * len(right) + [0] * len(wrong)
    return {
        "question": f"What happens if you shout at a {thing} in the {place}?",
        "mc1_targets": {"choices": [right[0], *wrong], "labels": [1] + [0] * len(wrong)},
        "mc2_targets": {"choices": right + wrong, "labels": labels},
    }


def _dialogue(n: int) -> dict[str, Any]:
    thing, place, _ = _thing(n)
    scores = {f"emotion{i}_score": (n + 3 * i) % 10 for i in range(1, 5)}
    reference = {f"emotion{i}": name for i, name in enumerate(FEELINGS, start=1)} | scores
    listed = "\n".join(f"{name}: <score>" for name in FEELINGS)
    return {
        "prompt": f"Ann: I lost your {thing} in the {place}.\nBob: Not again!\n\nHow strong are "
        f"Bob's feelings, from 0 to 10? Write only these lines:\n{listed}\n",
        "reference_answer": str(reference),
        "reference_answer_fullscale": str(reference),
    }
