"""Checks the places that a run writes to: its folder and the Hub's cache."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from selm.check.preflight import Preflight
from selm.errors import UserError
from selm.ranking.kinds import kind_of
from selm.recipe.places import is_local_path
from selm.recipe.schema import Recipe
from selm.run.artifacts import run_folder


def output(preflight: Preflight) -> str:
    """Write, rename and lock a file where the run's folder is or will be."""
    recipe = preflight.recipe
    folder = run_folder(recipe).absolute()
    _check_place(folder, recipe)
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"output_dir: {there} is a file; name a folder")
    try:
        locks = _try_to_write(there)
    except OSError as error:
        raise UserError(
            f"output_dir: {there} cannot be written ({error.strerror}); name a folder that you "
            "may write to"
        ) from error
    _check_cache(recipe)
    notes = [] if locks else ["it has no file locks: make sure that no two runs share it"]
    if shutil.which("git") is None:
        notes.append("git is not installed: manifests will not name the code's commit")
    return "; ".join([f"{folder} can be written", *notes])


def _check_place(folder: Path, recipe: Recipe) -> None:
    model = Path(recipe.model.name_or_path)
    if model.is_dir() and folder.resolve().is_relative_to(model.resolve()):
        raise UserError(
            f"output_dir: {folder} is inside the model's folder ({model}); name another folder"
        )


def _try_to_write(folder: Path) -> bool:
    """Whether locks work; raises OSError if writing does not. Leaves nothing there."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".selm-check-") as place:
        first, second = Path(place, "first"), Path(place, "second")
        with first.open("w", encoding="utf-8") as file:
            file.write("x")
            file.flush()
            os.fsync(file.fileno())
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locks = True
            except OSError:
                locks = False
        os.replace(first, second)
    return locks


def _check_cache(recipe: Recipe) -> None:
    """Refuse a Hub cache that cannot be written; otherwise the data would seem to be at fault."""
    names = [recipe.model.name_or_path, recipe.data.name_or_path]
    models = [kind_of(ranking).model(ranking) for ranking in recipe.rankings()]
    if all(is_local_path(name) for name in (*names, *filter(None, models))):
        return
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).absolute()
    there = next(path for path in (cache, *cache.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(
            f"HF_HOME: the Hub's cache {cache} cannot be written ({error.strerror}); set HF_HOME "
            "to a folder that you may write to"
        ) from error
