"""The questions of MT-Bench, and their reference answers: two files in FastChat's form.

`question.jsonl` has a line {"question_id", "category", "turns", "reference"?} for each question;
`reference_answer/gpt-4.jsonl` a line {"question_id", "choices": [{"turns"}]} for those with a
reference answer. They are read from `benchmarks.data`, or else from the Hub.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selm.data.schemas import DatasetRow
from selm.errors import OutsideError, UserError
from selm.escape import well_formed
from selm.recipe.schema import Recipe

QUESTIONS, REFERENCES = "question.jsonl", "reference_answer/gpt-4.jsonl"
PUBLISHED = 80  # questions
TURNS = 2

# Categories whose answers are compared with a reference.
WITH_REFERENCE = ("math", "reasoning", "coding")


@dataclass(frozen=True)
class _OnHub:
    """A space at a commit, so that the questions are always the same."""

    repo: str
    revision: str


# The authors' space has the questions, but not GPT-4's reference answers, which are in FastChat's
# repository; a copy of the space has them too, unchanged.
_ON_HUB = {
    QUESTIONS: _OnHub("lmsys/mt-bench", "cf27f9f9da48f72169bce3c3e784d24347d1e833"),
    REFERENCES: _OnHub("pe-nlp/mt-bench", "e4bd39cbe6be4fdb635d59b2581a1cc6da808879"),
}


def questions(recipe: Recipe) -> list[DatasetRow]:
    """The questions that the recipe asks.

    Returns:
        rows whose `prompt` is the user's turns (see `generation.converse`), and whose columns are
        `question_id`, `category`, and the line's own short `reference` to each turn, if it has one.

    Raises:
        UserError: the file is not there, or a line of it is not as it should be.
        OutsideError: the Hub cannot be reached, and the file is not in its cache.
    """
    if recipe.benchmarks.data is not None and not local_questions(recipe):
        raise UserError(
            f"benchmarks.data: {_local(recipe, QUESTIONS)} is not there; put MT-Bench's questions "
            "there in FastChat's form, or set benchmarks.data to null to take them from the Hub"
        )
    path = _file(recipe, QUESTIONS)
    assert path is not None, "an error has said that it is not there"
    found: dict[str, DatasetRow] = {}
    for where, line in _lines(path):
        row = _question(where, line)
        if row["prompt_id"] in found:
            raise UserError(f"{where}: question_id {row['prompt_id']} is there a second time")
        found[row["prompt_id"]] = row
    if not found:
        raise UserError(f"benchmarks.data: {path} holds no question")
    return list(found.values())[: recipe.benchmarks.limit]


def references(recipe: Recipe) -> dict[str, list[str]]:
    """Question id -> GPT-4's answer to each turn; empty where there is no such file.

    Raises:
        UserError, OutsideError: see `questions`.
    """
    path = _file(recipe, REFERENCES)
    found = {}
    for where, line in _lines(path) if path is not None else ():
        choices = line.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise UserError(f"{where}: choices: wanted a list such as [{{'turns': [...]}}]")
        found[_id(where, line)] = _turns(f"{where}: choices: turns", choices[0].get("turns"))
    return found


def local_questions(recipe: Recipe) -> dict[str, Path]:
    """The file of the questions in `benchmarks.data`, if it is there."""
    return _there(recipe, QUESTIONS)


def local_references(recipe: Recipe) -> dict[str, Path]:
    """The file of the reference answers in `benchmarks.data`, if it is there."""
    return _there(recipe, REFERENCES)


def number_of_questions(recipe: Recipe) -> int:
    """For the plan, which asks no network."""
    there = len(questions(recipe)) if recipe.benchmarks.data else PUBLISHED
    return min(there, recipe.benchmarks.limit or there)


def _local(recipe: Recipe, name: str) -> Path:
    return Path(recipe.benchmarks.data or "") / "mt_bench" / name


def _there(recipe: Recipe, name: str) -> dict[str, Path]:
    path = _local(recipe, name)
    return {name: path} if recipe.benchmarks.data is not None and path.is_file() else {}


def _file(recipe: Recipe, name: str) -> Path | None:
    """Path of a file; None for one that is not there."""
    if recipe.benchmarks.data is not None:
        return _there(recipe, name).get(name)
    return _from_hub(name)


def _from_hub(name: str) -> Path | None:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.errors import RemoteEntryNotFoundError

    from selm.huggingface import patiently

    at, path = _ON_HUB[name], f"data/mt_bench/{name}"
    where = {"repo_type": "space", "revision": at.revision}
    kept = try_to_load_from_cache(at.repo, path, **where)
    if isinstance(kept, str):
        return Path(kept)
    if is_offline_mode():
        raise OutsideError(_not_there(name, at, "HF_HUB_OFFLINE is set"))
    try:
        return Path(patiently(f"space {at.repo}", lambda: hf_hub_download(at.repo, path, **where)))
    except RemoteEntryNotFoundError as error:
        missing: Exception = error
    except OutsideError as error:
        if error.status not in (401, 403, 404):
            raise OutsideError(_not_there(name, at, str(error)), error.status) from error
        missing = error
    if name == REFERENCES:  # without them there are the short ones of the questions
        return None
    raise UserError(_not_there(name, at, "it is no longer there")) from missing


def _not_there(name: str, at: _OnHub, why: str) -> str:
    return (
        f"benchmarks.data: null, so that mt_bench reads {name} of the space {at.repo} on the Hub, "
        f"which it cannot ({why}); repeat the command with a network, or set benchmarks.data to a "
        f"folder with mt_bench/{QUESTIONS}"
    )


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line's place and its object."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"benchmarks.data: {path} cannot be read as text in UTF-8: {error}"
        ) from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"benchmarks.data: {path} line {number}"
            try:
                found = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{where}: no JSON ({error})") from error
            if not isinstance(found, dict):
                raise UserError(f"{where}: wanted an object, such as {{'question_id': 81, ...}}")
            yield where, found


def _question(where: str, line: Mapping[str, Any]) -> DatasetRow:
    name, turns = _id(where, line), _turns(f"{where}: turns", line.get("turns"))
    category = line.get("category")
    if not isinstance(category, str) or not category.strip():
        raise UserError(f"{where}: category: wanted a text, such as 'writing'")
    if not all(turn.strip() for turn in turns):
        raise UserError(f"{where}: turns: a turn is empty")
    columns: dict[str, Any] = {"question_id": line["question_id"], "category": category}
    if line.get("reference"):
        columns["reference"] = _turns(f"{where}: reference", line["reference"])
    prompt = [{"role": "user", "content": turn} for turn in turns]
    return {
        "prompt_id": name,
        "prompt": prompt,
        "chosen": None,
        "rejected": None,
        "columns": columns,
    }


def _id(where: str, line: Mapping[str, Any]) -> str:
    found = line.get("question_id")
    if isinstance(found, bool) or not isinstance(found, int | str) or found == "":
        raise UserError(f"{where}: question_id: wanted a number or a text")
    return str(found)


def _turns(where: str, found: Any) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(turn, str) for turn in found):
        raise UserError(f"{where}: wanted a list of {TURNS} texts")
    if len(found) != TURNS:
        raise UserError(f"{where}: wanted {TURNS}, got {len(found)}")
    return [well_formed(turn) for turn in found]
