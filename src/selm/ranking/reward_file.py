"""Reward files: the user's ordinary Python, under a name that other processes can import.

Functions and classes are pickled by module and name, as `multiprocessing` does. So the module's
name says where its file is: `selm.ranking.reward_file.x<path in hex>`. Any process that imports
this name gets the file, and a file may be called random.py or torch.py without hiding other
modules. Modules beside the file can be imported; the folder is the last on `sys.path`.
"""

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import chdir
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from selm.errors import UserError
from selm.escape import one_line
from selm.ranking.siblings import siblings

__path__: list[str] = []  # makes this module a package, whose modules `_Finder` finds

_MOST_WORDS = 300  # characters of an error


class _Loader:
    """Runs the current source; cached bytecode could be from an older one."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        source = self.file.read_bytes()
        exec(compile(source, self.file, "exec", dont_inherit=True), module.__dict__)


class _Finder:
    """Finds reward files by the names that `_module_name` gives them."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        prefix = f"{__name__}.x"
        if not name.startswith(prefix):
            return None
        try:
            file = Path(os.fsdecode(bytes.fromhex(name.removeprefix(prefix))))
        except ValueError:
            return None
        _make_importable(file.parent)
        return _spec(name, file)


sys.meta_path.append(_Finder)


def load(key: str, name_or_path: str) -> Callable[..., Any]:
    """The function `path/to/file.py:function`.

    Args:
        key: of the recipe, for errors.

    Raises:
        UserError: no Python file, no such function, or the file fails when it is run.
    """
    file_name, _, function_name = name_or_path.rpartition(":")
    file = Path(file_name).absolute()
    if file.suffix != ".py" or not file.is_file():
        raise UserError(f"{key}: {file_name} is not a Python file")
    _make_importable(file.parent)
    _check_siblings(key, file_name, file)
    module = _run(key, file_name, file)
    function = vars(module).get(function_name)
    if callable(function):
        return function
    if function is not None:
        hint = f": that is of the type {type(function).__name__}"
    else:
        own = [
            name
            for name, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__
        ]
        hint = f"; it has {', '.join(own)}" if own else ""
    raise UserError(f"{key}: {file_name} has no function {function_name!r}{hint}")


def blame(error: BaseException, file: Path) -> str:
    """`ZeroDivisionError: division by zero (line 2)`: the last line of the user's file that ran."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == file.absolute()]
    where = f" (line {lines[-1]})" if lines else ""
    ends = "it ends the Python process: " if isinstance(error, SystemExit) else ""
    said = one_line(f"{type(error).__name__}: {_words(error)}", _MOST_WORDS).removesuffix(":")
    return ends + said.replace(_module_name(file), file.stem) + where


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # the user's exceptions are the user's code, too
        return "(an error that cannot be shown)"


def _run(key: str, file_name: str, file: Path) -> ModuleType:
    name = _module_name(file)
    spec = _spec(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs, because dataclasses look themselves up there
    assert spec.loader is not None
    try:
        with chdir("."):  # the function may change the working folder; our paths are relative
            spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # any error of the user's code, SystemExit too
        del sys.modules[name]
        raise UserError(f"{key}: {file_name} cannot be imported: {blame(error, file)}") from error
    return module


def _spec(name: str, file: Path) -> ModuleSpec:
    spec = importlib.util.spec_from_file_location(name, file, loader=_Loader(file))
    assert spec is not None
    return spec


def _module_name(file: Path) -> str:
    return f"{__name__}.x{os.fsencode(file.absolute()).hex()}"


def _make_importable(folder: Path) -> None:
    """Add the folder to the end of the path, so that its files hide no other modules."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    importlib.invalidate_caches()


def _check_siblings(key: str, file_name: str, file: Path) -> None:
    """UserError if the file would import another module than the one in its folder."""
    for name, path in siblings(file).items():
        there = _origin(name)
        if there is None or Path(there).resolve() != path.resolve():
            raise UserError(
                f"{key}: {file_name} imports {name}, but instead of {path} it would get "
                f"{there or 'a module'} of the same name; rename {path.name}"
            )


def _origin(name: str) -> str | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return None if spec is None else spec.origin
