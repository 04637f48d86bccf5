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
        `question_id` and `category`; for the categories `WITH_REFERENCE`, if there is one, also
        `references`, one for each turn, and `references_from`, the name of their file.

    Raises:
        UserError: a file is not there, or a line of it is not as it should be.
        OutsideError: the Hub cannot be reached, and the questions are not in its cache.
    """
    path = _file(recipe, QUESTIONS)
    assert path is not None, "an error says that it is not there"
    references = dict(_references(_file(recipe, REFERENCES)))
    found: dict[str, DatasetRow] = {}
    for where, line in _lines(path):
        row = _question(where, line, references)
        if row["prompt_id"] in found:
            raise UserError(f"{where}: question_id {row['prompt_id']} is there a second time")
        found[row["prompt_id"]] = row
    if not found:
        raise UserError(f"benchmarks.data: {path} holds no question")
    return list(found.values())[: recipe.benchmarks.limit]


def local_files(recipe: Recipe) -> dict[str, Path]:
    """The files in `benchmarks.data`; none if it is not set.

    Raises:
        UserError: there are no questions.
    """
    if recipe.benchmarks.data is None:
        return {}
    folder = Path(recipe.benchmarks.data) / "mt_bench"
    if not (folder / QUESTIONS).is_file():
        raise UserError(
            f"benchmarks.data: {folder / QUESTIONS} is not there; put MT-Bench's questions there "
            "in FastChat's form, or set benchmarks.data to null to take them from the Hub"
        )
    return {name: folder / name for name in (QUESTIONS, REFERENCES) if (folder / name).is_file()}


def number_of_questions(recipe: Recipe) -> int:
    """For the plan, which asks no network."""
    there = len(questions(recipe)) if recipe.benchmarks.data else PUBLISHED
    return min(there, recipe.benchmarks.limit or there)


def _file(recipe: Recipe, name: str) -> Path | None:
    """Path of a file; None for reference answers that are not there."""
    if recipe.benchmarks.data is not None:
        return local_files(recipe).get(name)
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


def _question(
    where: str, line: Mapping[str, Any], references: Mapping[str, list[str]]
) -> DatasetRow:
    name, turns = _id(where, line), _turns(f"{where}: turns", line.get("turns"))
    category = line.get("category")
    if not isinstance(category, str) or not category.strip():
        raise UserError(f"{where}: category: wanted a text, such as 'writing'")
    if not all(turn.strip() for turn in turns):
        raise UserError(f"{where}: turns: a turn is empty")
    columns: dict[str, Any] = {"question_id": line["question_id"], "category": category}
    if category in WITH_REFERENCE:
        short = line.get("reference")
        if name in references:
            columns |= {"references": references[name], "references_from": REFERENCES}
        elif short:
            columns["references"] = _turns(f"{where}: reference", short)
            columns["references_from"] = QUESTIONS
    prompt = [{"role": "user", "content": turn} for turn in turns]
    return {
        "prompt_id": name,
        "prompt": prompt,
        "chosen": None,
        "rejected": None,
        "columns": columns,
    }


def _references(path: Path | None) -> Iterator[tuple[str, list[str]]]:
    """Question id -> the reference answers to its turns."""
    for where, line in _lines(path) if path is not None else ():
        choices = line.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise UserError(f"{where}: choices: wanted a list such as [{{'turns': [...]}}]")
        yield _id(where, line), _turns(f"{where}: choices: turns", choices[0].get("turns"))


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
