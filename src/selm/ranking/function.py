"""The ranker that is a Python function of the user's: `path/to/file.py:function`."""

import importlib.util
import inspect
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from typing import Any

from selm.errors import UserError
from selm.ranking import Columns, Prompt


class FunctionRanker:
    """Calls `function(prompt, candidates, **columns) -> one number per candidate`.

    `prompt` is the list of messages, `columns` are the row's other columns, as far as the function
    takes them. Higher is better. Example: recipes/smollm2-135m-instruct/reward.py.
    """

    pairwise = False

    def __init__(self, name_or_path: str) -> None:
        self.name = name_or_path
        self.function = _load(name_or_path)
        self.takes = _columns_taken(self.function)

    def score(
        self,
        prompt_ids: Sequence[str],
        prompts: Sequence[Prompt],
        candidates: Sequence[list[str]],
        columns: Sequence[Columns] | None = None,
    ) -> list[list[float]]:
        """See `Ranker`.

        Raises:
            UserError: the function raised, or returned the wrong number of scores, or one that is
                no number.
        """
        columns = [{}] * len(prompts) if columns is None else columns
        rows = zip(prompt_ids, prompts, candidates, columns, strict=True)
        return [self._scores(i, list(prompt), texts, row) for i, prompt, texts, row in rows]

    def _scores(
        self, prompt_id: str, prompt: list[dict[str, str]], texts: list[str], columns: Columns
    ) -> list[float]:
        wanted = self.takes.of(self.name, {"prompt_id": prompt_id, **columns})
        try:
            returned = self.function(prompt, list(texts), **wanted)
        except Exception as error:  # whatever it is, it is the user's code
            where = _blame(error, self.name)
            raise UserError(f"{self.name}: {where}, for the prompt {prompt_id}") from error
        try:
            numbers = [float(score) for score in returned]
        except (TypeError, ValueError) as error:
            got = repr(str(returned)[:80])
            raise UserError(
                f"{self.name}: wanted one number per candidate, got {got} for {prompt_id}"
            ) from error
        if len(numbers) != len(texts):
            raise UserError(
                f"{self.name}: {len(numbers)} scores for {len(texts)} candidates of {prompt_id}"
            )
        if any(not math.isfinite(number) for number in numbers):
            raise UserError(f"{self.name}: scores {numbers} for {prompt_id} are not all numbers")
        return numbers


@dataclass(frozen=True)
class Taken:
    """Which columns a function takes beside prompt and candidates.

    Attributes:
        everything: it has a `**columns`.
        reserved: its names for prompt and candidates, which no column may have then.
        needed, optional: names of its further parameters, without and with a default.
    """

    everything: bool
    reserved: tuple[str, ...]
    needed: tuple[str, ...]
    optional: tuple[str, ...]

    def of(self, function: str, columns: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments for one row; UserError where a column lacks or has a parameter's name."""
        missing = [name for name in self.needed if name not in columns]
        if missing:
            there = ", ".join(columns)
            raise UserError(f"{function}: it takes {missing[0]!r}; the columns are {there}")
        if not self.everything:
            return {k: columns[k] for k in (*self.needed, *self.optional) if k in columns}
        taken = [name for name in self.reserved if name in columns]
        if taken:
            raise UserError(
                f"{function}: the dataset has a column {taken[0]!r}, the name of an argument of "
                "this function; rename one of the two"
            )
        return dict(columns)


def _columns_taken(function: Callable[..., Any]) -> Taken:
    """Read from the signature.

    >>> _columns_taken(lambda prompt, candidates, answer, level=0: [])
    Taken(everything=False, reserved=('prompt', 'candidates'), needed=('answer',), ...)
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # some functions written in C have none
        parameters = []
    positional = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    first_two = [p for p in parameters if p.kind in positional][:2]
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    others = [p for p in parameters if p.kind in named and p not in first_two]
    return Taken(
        everything=any(p.kind == Parameter.VAR_KEYWORD for p in parameters),
        reserved=tuple(p.name for p in first_two if p.kind in named),
        needed=tuple(p.name for p in others if p.default is Parameter.empty),
        optional=tuple(p.name for p in others if p.default is not Parameter.empty),
    )


def _load(name_or_path: str) -> Callable[..., Sequence[float]]:
    file, _, function_name = name_or_path.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None:
        raise UserError(f"ranking.name_or_path: {file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever it is, it is the user's code
        raise UserError(
            f"ranking.name_or_path: {file} cannot be imported: {_blame(error, name_or_path)}"
        ) from error
    function = vars(module).get(function_name)
    if not callable(function):
        raise UserError(f"ranking.name_or_path: {file} has no function {function_name!r}")
    return function


def _blame(error: Exception, name_or_path: str) -> str:
    """`ZeroDivisionError: division by zero (line 2)`: the last line of the user's file that ran."""
    file = Path(name_or_path.rpartition(":")[0]).absolute()
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == file]
    where = f" (line {lines[-1]})" if lines else ""
    return " ".join(f"{type(error).__name__}: {error}".split()) + where
