"""How a stage writes its artifact: into a folder that is renamed when it is complete."""

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from selm.files import rename
from selm.generation.kinds import KINDS
from selm.ranking.kinds import kind_of
from selm.recipe.places import is_local_path
from selm.recipe.schema import Recipe
from selm.run import manifest
from selm.run.artifacts import folder, partial_path, require_inputs
from selm.run.hashes import hashes_in
from selm.run.lineage import recipe_part
from selm.run.plan import Run, command
from selm.run.stages import Entry

PACKAGES = (
    *("selm", "torch", "transformers", "trl", "datasets", "accelerate", "peft"),
    *(package for kind in KINDS.values() for package in kind.packages),
)


@dataclass
class Record:
    """What a stage reports about itself in its manifest; `note` is only for its last line."""

    folder: Path
    rows: int = 0
    tokens: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    note: str = ""


@contextmanager
def writing(run: Run, stage: str, t: int | None, seconds_before: float = 0.0) -> Iterator[Record]:
    """Yield an empty folder to fill; at the end it gets its manifest and its final name.

    `seconds_before`: seconds that the stage worked before this call.
    """
    hashes, commit = require_inputs(run, stage, t), code_commit()
    target = folder(run.recipe, stage, t)
    started = time.monotonic()
    with replacing(target) as building:
        record = Record(building)
        yield record
        seconds = seconds_before + time.monotonic() - started
        manifest.write(
            building,
            _facts(run, (stage, t), hashes, commit, record, seconds),
            hashes_in(Path(run.recipe.output_dir)),
        )
    shutil.rmtree(partial_path(run.recipe, stage, t), ignore_errors=True)


def _facts(
    run: Run,
    entry: Entry,
    hashes: Mapping[str, str],
    commit: str | None,
    record: Record,
    seconds: float,
) -> dict[str, Any]:
    """What the manifest says beside the files."""
    stage, t = entry
    return {
        "stage": stage,
        "iteration": t,
        "run_name": run.recipe.run_name,
        "recipe": recipe_part(run.recipe, stage, t),
        "inputs": dict(hashes),
        "revisions": _revisions(run.recipe),
        "rows": record.rows,
        "tokens": record.tokens,
        "dropped": dict(record.dropped),
        "dropped_first": dict(getattr(record.dropped, "first", {})),
        "seconds": round(seconds, 1),
        **record.facts,
        "command": command(run, stage, t),
        "versions": _versions(),
        "git_commit": commit,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; at the end it gets its final name, without a manifest."""
    building = target.parent / f".{target.name}.tmp"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    yield building
    move_into_place(building, target)


def move_into_place(building: Path, target: Path) -> None:
    """Rename; an older artifact with this name is moved aside first and deleted last."""
    old = target.parent / f".{target.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    rename(building, target)
    shutil.rmtree(old, ignore_errors=True)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # an engine's package
    return found


def _revisions(recipe: Recipe) -> dict[str, str]:
    """The commits behind the revisions of model, data and rankers, if known.

    They come from the Hub's cache on this disk; no request is sent.
    """
    found = {}
    named = [("model", recipe.model.name_or_path, recipe.model.revision, "model")]
    named.append(("data", recipe.data.name_or_path, recipe.data.revision, "dataset"))
    for ranking in recipe.rankings():
        model = kind_of(ranking).model(ranking)
        if model is not None:
            named.append((ranking.section, model, ranking.revision, "model"))
    for key, repo, revision, repo_type in named:
        if is_local_path(repo):
            continue
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        cached = repo_folder_name(repo_id=repo, repo_type=repo_type)
        ref = Path(constants.HF_HUB_CACHE, cached, "refs", revision)
        if ref.is_file():
            found[key] = ref.read_text(encoding="utf-8", errors="replace").strip()
    return found


def move_files(source: Path, target: Path) -> None:
    """Move everything in `source` into `target`, on the same disk."""
    for path in source.iterdir():
        os.replace(path, target / path.name)


def code_commit() -> str | None:
    """The commit, with `-dirty` if files were changed; None outside a checkout or without git.

    Git also refuses a checkout that belongs to another user (safe.directory): None.
    """
    here = str(Path(__file__).parent)
    asked = ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(
            asked, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    except OSError:  # git is missing or may not be run
        return None
    return done.stdout.strip() or None
