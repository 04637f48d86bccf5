"""AlpacaEval's files: its instructions with the baseline's answers, and the fit's reference table.

They lie in `alpaca_eval/` of the folder `benchmarks.data`, or else on the Hub.
"""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from selm.data.prompts import prompt_hash
from selm.data.schemas import DatasetRow
from selm.errors import OutsideError, UserError
from selm.escape import one_line, well_formed
from selm.recipe.schema import Recipe

if TYPE_CHECKING:  # it imports numpy, which plans do without
    from selm.evaluation.length_control import Observation

REPO = "tatsu-lab/alpaca_eval"
QUESTIONS = "alpaca_eval_gpt4_baseline.json"
TABLE = "df_gamed.csv"
WHOLE = 805  # instructions


class Instruction(NamedTuple):
    """An instruction, and the baseline's answer to it.

    Attributes:
        generator: who wrote the answer.
        dataset: where the instruction is from.
    """

    prompt_id: str
    text: str
    output: str
    generator: str
    dataset: str

    @property
    def row(self) -> DatasetRow:
        """As engines get it."""
        return {
            "prompt_id": self.prompt_id,
            "prompt": [{"role": "user", "content": self.text}],
            "tools": None,
            "chosen": None,
            "rejected": None,
            "columns": {"dataset": self.dataset},
        }


@dataclass(frozen=True)
class Reference:
    """What the fit of length-controlled win rates knows beforehand; without a table: nothing.

    Attributes:
        difficulties: of the instructions, by their text.
        gamed: annotations of the two gamed baselines.
    """

    difficulties: Mapping[str, float] = field(default_factory=dict)
    gamed: "Sequence[Observation]" = ()


def local_files(recipe: Recipe, name: str) -> dict[str, Path]:
    """The file of this name in `benchmarks.data`, by its name; empty if it is not there."""
    path = _local(recipe, name)
    return {name: path} if path is not None and path.is_file() else {}


def check(recipe: Recipe) -> None:
    """UserError if the instructions are wanted from this disk, but are not there."""
    path = _local(recipe, QUESTIONS)
    if path is not None and not path.is_file():
        raise UserError(
            f"benchmarks.data: there is no {path}; put the file of {REPO} there, or one in its "
            "form, or set benchmarks.data=null for the Hub's"
        )


def count(recipe: Recipe) -> int:
    """How many instructions are asked, for the plan: it reads no file of the Hub."""
    known = len(instructions(recipe)) if local_files(recipe, QUESTIONS) else WHOLE
    return min(known, recipe.benchmarks.limit or known)


def instructions(recipe: Recipe) -> list[Instruction]:
    """All instructions in the file's order, whatever `benchmarks.limit` is.

    Raises:
        UserError: the file is not to be had, or is of another form.
    """
    check(recipe)
    path = _local(recipe, QUESTIONS) or _downloaded(QUESTIONS)
    if path is None:
        raise UserError(
            f"benchmarks.data: {REPO} on the Hub has no {QUESTIONS}; set it to a folder"
        )
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            one_line(f"benchmarks.data: {path} is no JSON in UTF-8: {error}")
        ) from error
    if not isinstance(entries, list) or not entries:
        raise UserError(f"benchmarks.data: {path} is no JSON list of instructions")
    found = [
        _instruction(entry, f"benchmarks.data: {path} entry {n}") for n, entry in enumerate(entries)
    ]
    _check_different(found, path)
    return found


def reference(recipe: Recipe, known: Sequence[Instruction]) -> Reference:
    """The table beside the instructions; an empty reference if there is none.

    Args:
        known: all instructions, in the file's order.

    Raises:
        UserError: the table has another form, or belongs to other instructions.
    """
    from selm.evaluation.length_control import reference_table

    path = local_files(recipe, TABLE).get(TABLE)
    if path is None and recipe.benchmarks.data is None:
        path = _downloaded(TABLE)
    if path is None:
        return Reference()
    remedy = "remove it for a win rate that is not regularised"
    texts = [each.text for each in known]
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        if not rows:
            raise UserError("it has no rows")
        difficulties, gamed = reference_table(rows, texts)
    except (OSError, ValueError, KeyError, TypeError, csv.Error, UserError) as error:
        why = f"no column {error}" if isinstance(error, KeyError) else error
        raise UserError(one_line(f"benchmarks.data: {path}: {why}; {remedy}")) from error
    missing = [text for text in texts if text not in difficulties]
    if missing:
        name = one_line(missing[0], most=80)
        raise UserError(f"benchmarks.data: {path}: no difficulty of {name!r}; {remedy}")
    if not all(math.isfinite(number) for row in gamed for number in row):
        raise UserError(f"benchmarks.data: {path}: holds numbers that are not finite; {remedy}")
    return Reference(difficulties, gamed)


def _local(recipe: Recipe, name: str) -> Path | None:
    """Where a file is looked for on this disk; None if the Hub's is wanted."""
    folder = recipe.benchmarks.data
    return None if folder is None else Path(folder) / "alpaca_eval" / name


def _instruction(entry: Any, where: str) -> Instruction:
    if not isinstance(entry, dict):
        raise UserError(f"{where}: wanted an object with instruction and output")
    for key in ("instruction", "output"):
        if not isinstance(entry.get(key), str):
            raise UserError(f"{where}: {key} is missing or is no text")
    text, output = well_formed(entry["instruction"]), well_formed(entry["output"])
    if not text.strip():
        raise UserError(f"{where}: the instruction is empty")
    prompt_id = prompt_hash([{"role": "user", "content": text}], None)[:16]
    generator, dataset = (str(entry.get(key) or "unknown") for key in ("generator", "dataset"))
    return Instruction(prompt_id, text, output, generator, dataset)


def _check_different(found: Sequence[Instruction], path: Path) -> None:
    places: dict[str, int] = {}
    for n, each in enumerate(found):
        first = places.setdefault(each.text, n)
        if first != n:
            raise UserError(f"benchmarks.data: {path}: entries {first} and {n} are one instruction")


def _downloaded(name: str) -> Path | None:
    """The Hub's file in its cache; None if the Hub has none. The client itself tries again."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    from selm.huggingface import patiently

    what = f"{REPO}/{name}"
    try:
        path = patiently(what, lambda: hf_hub_download(REPO, name, repo_type="dataset"), ())
    except RemoteEntryNotFoundError:
        return None
    except OutsideError as error:
        raise UserError(
            f"benchmarks.data: set it to a folder with alpaca_eval/{name}, for the Hub's cannot be "
            f"had: {error}"
        ) from error
    return Path(path)
