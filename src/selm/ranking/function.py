"""The ranker that is a Python function of the user's: `path/to/file.py:function`."""

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import chdir
from dataclasses import dataclass
from inspect import Parameter
from itertools import islice
from pathlib import Path
from typing import Any

from selm.errors import UserError
from selm.escape import one_line
from selm.ranking.base import Pool, Ranker, RankerKind
from selm.ranking.reward_file import blame, load
from selm.recipe.schema import Ranking

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class FunctionRanker(Ranker):
    """Calls `function(prompt, candidates, **columns) -> one number per candidate`.

    `prompt` is the list of messages; `columns` are those of the row's other columns that the
    function takes. Higher is better. Example: recipes/smollm2-135m-instruct/reward.py.
    """

    def __init__(self, name_or_path: str, section: str = "ranking") -> None:
        self.name = name_or_path
        self.file = Path(name_or_path.rpartition(":")[0])
        self.function = load(f"{section}.name_or_path", name_or_path)
        _check_signature(name_or_path, self.function)
        self.takes = _columns_taken(self.function)

    def score(self, pools: Sequence[Pool]) -> list[list[float]]:
        """See `Ranker`.

        Raises:
            UserError: the function raised, or returned the wrong number of scores, or a score
                that is not a number.
        """
        return [self._scores(pool) for pool in pools]

    def _scores(self, pool: Pool) -> list[float]:
        texts = pool.texts
        wanted = self.takes.of(self.name, {"prompt_id": pool.prompt_id, **pool.columns})
        try:
            # A copy: what the function does to the messages must not reach the preferences.
            with chdir("."):  # the function may change the working folder; our paths are relative
                returned = self.function(copy.deepcopy(list(pool.prompt)), list(texts), **wanted)
                if isinstance(returned, Iterator):  # a generator's code runs only now
                    returned = list(islice(returned, len(texts) + 1))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # any error of the user's code, SystemExit too
            where = blame(error, self.file)
            raise UserError(f"{self.name}: {where}, for the prompt {pool.prompt_id}") from error
        return self._checked(returned, len(texts), pool.prompt_id)

    def _checked(self, returned: Any, count: int, prompt_id: str) -> list[float]:
        """The scores, if there is one finite number per candidate; otherwise a UserError."""
        numbers = _numbers(returned)
        if numbers is None:
            raise UserError(
                f"{self.name}: wanted one number per candidate, got {_shown(returned)} for "
                f"{prompt_id}"
            )
        if len(numbers) != count:
            raise UserError(
                f"{self.name}: {len(numbers)} scores for {count} candidates of {prompt_id}"
            )
        if any(not math.isfinite(number) for number in numbers):
            raise UserError(f"{self.name}: scores {numbers} for {prompt_id} are not all numbers")
        return numbers


def _numbers(returned: Any) -> list[float] | None:
    """The numbers; None if it is not a sequence of numbers. Dicts and sets have no order."""
    if isinstance(returned, str | bytes | Mapping | Set):
        return None
    try:
        scores = list(returned)
        if any(isinstance(score, str | bytes) for score in scores):
            return None
        return [float(score) for score in scores]
    except Exception:  # numbers of any library, which may raise any error
        return None


def _shown(returned: Any) -> str:
    try:
        shown = one_line(repr(returned), 80)
        return f"the text {shown}" if isinstance(returned, str) else shown
    except Exception:  # the user's objects are the user's code, too
        return f"an object of the type {type(returned).__name__}"


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
        """The arguments for one row; UserError if one is missing or taken."""
        missing = [name for name in self.needed if name not in columns]
        if missing:
            there = ", ".join(columns)
            raise UserError(
                f"{function}: it needs a column {missing[0]!r}; the columns are {there}"
            )
        if not self.everything:
            return {k: columns[k] for k in (*self.needed, *self.optional) if k in columns}
        taken = [name for name in self.reserved if name in columns]
        if taken:
            raise UserError(
                f"{function}: the dataset has a column {taken[0]!r}, which is also an argument "
                "of this function; rename one of the two"
            )
        return dict(columns)


def _columns_taken(function: Callable[..., Any]) -> Taken:
    """Read from the signature.

    >>> _columns_taken(lambda prompt, candidates, answer, level=0: [])
    Taken(everything=False, reserved=('prompt', 'candidates'), needed=('answer',), ...)
    """
    parameters = _parameters(function) or []
    first_two = [p for p in parameters if p.kind in _POSITIONAL][:2]
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    others = [p for p in parameters if p.kind in named and p not in first_two]
    return Taken(
        everything=any(p.kind == Parameter.VAR_KEYWORD for p in parameters),
        reserved=tuple(p.name for p in first_two if p.kind in named),
        needed=tuple(p.name for p in others if p.default is Parameter.empty),
        optional=tuple(p.name for p in others if p.default is not Parameter.empty),
    )


def _parameters(function: Callable[..., Any]) -> list[Parameter] | None:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some functions written in C have no signature
        return None


def _check_signature(name: str, function: Callable[..., Any]) -> None:
    """UserError for a function that cannot be called as `FunctionRanker` does."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    line = f" (line {code.co_firstlineno})" if code is not None else ""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise UserError(f"{name}: it is async{line}; wanted a plain function")
    parameters = _parameters(function)
    if parameters is not None and not _takes_two_by_position(parameters):
        raise UserError(
            f"{name}: it takes {inspect.signature(function)}{line}; wanted "
            "(prompt, candidates, **columns), with the first two by position"
        )


def _takes_two_by_position(parameters: Sequence[Parameter]) -> bool:
    """Whether it takes two arguments by position and needs no third one by position."""
    positional = [p for p in parameters if p.kind in _POSITIONAL]
    takes_any = any(p.kind == Parameter.VAR_POSITIONAL for p in parameters)
    further = [p for p in positional[2:] if p.kind == Parameter.POSITIONAL_ONLY]
    unnamed = [p for p in further if p.default is Parameter.empty]
    return (len(positional) >= 2 or takes_any) and not unnamed


def _load(ranking: Ranking, seed: int = 0, verdicts: Path | None = None) -> FunctionRanker:
    return FunctionRanker(ranking.name_or_path or "", ranking.section)


def _file(ranking: Ranking) -> str:
    return (ranking.name_or_path or "").rpartition(":")[0]


def _check(ranking: Ranking) -> None:
    if not _file(ranking) or (ranking.name_or_path or "").endswith(":"):
        raise ranking.error(
            "name_or_path",
            f"the function ranker needs path/to/file.py:function, got {ranking.name_or_path!r}",
        )


def _look(ranking: Ranking, pools: Sequence[Pool]) -> None:
    """Calls the function with the first row."""
    _load(ranking).score(pools[:1])


FUNCTION = RankerKind(
    load=_load,
    pairwise=FunctionRanker.pairwise,
    keys=frozenset({"name_or_path"}),
    files=lambda ranking: {"name_or_path": _file(ranking)},
    check=_check,
    look=_look,
)
