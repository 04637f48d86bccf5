"""Downloads the data files of a dataset on the Hub, but only the splits that the recipe uses."""

import glob
from functools import lru_cache
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

from selm.data import on_disk
from selm.errors import OutsideError, UserError
from selm.huggingface import API, patiently
from selm.recipe.schema import Data


@lru_cache
def splits(data: Data) -> dict[str, list[Path]]:
    """Split -> files in the Hub's cache; the files of unused splits are not downloaded.

    Raises:
        UserError: no such dataset, or this token may not read it.
        OutsideError: the Hub cannot be reached, and the dataset is not in the cache.
    """
    try:
        return _downloaded(data)
    except OfflineModeIsEnabled as error:
        return _cached(data, error)
    except HFValidationError as error:
        raise UserError(f"data.name_or_path: {data.name_or_path}: {error}") from error
    except OutsideError as error:
        if error.status is None:
            return _cached(data, error)
        if error.status in (401, 403, 404):
            raise UserError(
                f"data.name_or_path: {data.name_or_path} (data.revision {data.revision}) is not on "
                f"the Hub, or this token may not read it: {error}"
            ) from error
        raise


def _downloaded(data: Data) -> dict[str, list[Path]]:
    repo, what = data.name_or_path, f"dataset {data.name_or_path}"
    at = {"repo_type": "dataset", "revision": data.revision}
    info = patiently(what, lambda: API.dataset_info(repo, revision=data.revision))
    names = [file.rfilename for file in info.siblings or []]
    readme = ""
    if "README.md" in names:
        path = patiently(what, lambda: hf_hub_download(repo, "README.md", **at))
        readme = Path(path).read_text(encoding="utf-8-sig", errors="replace")
    found = on_disk.splits(names, readme, data)
    wanted = [
        glob.escape(name) for split in on_disk.wanted_splits(data) for name in found.get(split, [])
    ]
    folder = Path(patiently(what, lambda: snapshot_download(repo, **at, allow_patterns=wanted)))
    return {split: [folder / name for name in files] for split, files in found.items()}


def _cached(data: Data, reason: Exception) -> dict[str, list[Path]]:
    """The files that an earlier run of this recipe downloaded, which are always both splits."""
    try:
        folder = snapshot_download(
            data.name_or_path, repo_type="dataset", revision=data.revision, local_files_only=True
        )
    except LocalEntryNotFoundError as error:
        raise OutsideError(
            f"data.name_or_path: {data.name_or_path} is not in the Hub's cache, and the Hub cannot "
            f"be reached: {str(reason).strip().splitlines()[0]}"
        ) from error
    return on_disk.local_splits(data.model_copy(update={"name_or_path": folder}))
