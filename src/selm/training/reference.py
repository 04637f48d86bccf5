"""The reference's log-probs of the training rows, kept on disk beside the preferences.

A training that is repeated with, for example, another beta or learning rate starts at once.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset

from selm.recipe.schema import Recipe
from selm.run import artifacts, sealed
from selm.run.lineage import recipe_part

Columns = dict[str, list[float]]  # one value for each row

_OF_MODELS = ("config.json", ".safetensors", ".safetensors.index.json")


@dataclass(frozen=True)
class ReferenceCache:
    """A file of log-probs whose key depends on model and rows; only the last file is kept.

    model: describes which model the reference is and the precision in which it computes.
    """

    folder: Path
    model: str

    def get(self, rows: Dataset, compute: Callable[[], Columns]) -> Columns:
        """The saved columns of these rows, or those of `compute`; every process calls this."""
        key = hashlib.sha256(json.dumps([self.model, rows[:]]).encode()).hexdigest()[:32]
        path = self.folder / f"{key}.parquet"
        processes = PartialState()
        found = [_read(path) if processes.is_main_process else None]
        broadcast_object_list(found)  # one decision for all, because all take part in computing
        if found[0] is not None:
            processes.print(f"reference log-probs: read from {path}")
            return found[0]
        columns = compute()
        if processes.is_main_process:
            sealed.save(pyarrow.table(columns), path)
            for old in self.folder.iterdir():
                if old != path:
                    old.unlink()
        return columns


def _read(path: Path) -> Columns | None:
    rows = sealed.read(path, otherwise="it is computed again")
    if rows is None:
        return None
    return {key: [row[key] for row in rows] for key in rows[0]} if rows else {}


def cache_of(recipe: Recipe, t: int) -> ReferenceCache:
    """The cache of iteration t: `runs/<run_name>/iter-<t>/reference`; not an artifact, may be
    deleted.

    The key contains the base model's name, revision and files, or a checkpoint's model files, and
    the adapter's settings (weights below it may be quantised). It contains all token ids of the
    rows, so max_length and the use of explored responses need not be in it.
    """
    decides: dict[str, Any] = {
        "model": recipe_part(recipe, "checkpoint", t)["model"],
        "lora": recipe.training.model_dump(mode="json")["lora"],
    }
    if t > 1 and recipe.training.reference == "previous":
        files = artifacts.read_manifest(recipe, "checkpoint", t - 1)["files"]
        decides["files"] = {path: files[path] for path in files if path.endswith(_OF_MODELS)}
    folder = artifacts.folder(recipe, "checkpoint", t).with_name("reference")
    return ReferenceCache(folder, json.dumps(decides, sort_keys=True))
