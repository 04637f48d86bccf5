"""Questions in the form of MT-Bench's, and recipes that ask them."""

import json
from pathlib import Path
from typing import Any

from selm.evaluation import mt_bench
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Recipe

REPOSITORY = Path(__file__).parents[1]
CATEGORIES = (*mt_bench.TEMPERATURES, "cooking")  # the last one is not of the published ones


def question(number: int, category: str, **more: Any) -> dict[str, Any]:
    turns = [f"Question {number} of {category}?", f"And now question {number} again, shorter."]
    return {"question_id": number, "category": category, "turns": turns, **more}


def reference(number: int) -> dict[str, Any]:
    turns = [f"<<reference {number}.1>>", f"<<reference {number}.2>>"]
    return {"question_id": number, "model_id": "gpt-4", "choices": [{"index": 0, "turns": turns}]}


QUESTIONS = [question(81 + i, category) for i, category in enumerate(CATEGORIES)]
QUESTIONS[3]["reference"] = ["a short one", "and another"]  # of math, which has GPT-4's too
QUESTIONS[4]["reference"] = ["it runs", ""]  # of coding, which has only that
BY_CATEGORY = {line["category"]: str(line["question_id"]) for line in QUESTIONS}
COMPARED = ("math", "coding")  # those of math, reasoning and coding that have a reference here
REFERENCES = [reference(81), reference(84)]  # of writing, where it is not shown, and of math


def jsonl(lines: list[Any]) -> str:
    return "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)


def write(folder: Path, lines: list[Any], references: list[Any]) -> Path:
    (folder / "mt_bench" / "reference_answer").mkdir(parents=True, exist_ok=True)
    (folder / "mt_bench" / "question.jsonl").write_text(jsonl(lines), encoding="utf-8")
    path = folder / "mt_bench" / "reference_answer" / "gpt-4.jsonl"
    path.write_text(jsonl(references), encoding="utf-8")
    return folder


def recipe_of(path: str, data: Path | None, url: str = "http://localhost:1", *more: str) -> Recipe:
    judge = {
        "ranker": "judge",
        "name_or_path": "some-model",
        "judge": {"base_url": url, "template": str(REPOSITORY / "recipes" / "judge.txt")},
    }
    overrides = [f"benchmarks.judge={json.dumps(judge)}"]
    overrides += [] if data is None else [f"benchmarks.data={data}"]
    return load_recipe(path, [*overrides, *more])
