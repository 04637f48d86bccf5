"""The content of a local model, dataset or file as one hash. Only files that are read count.

A clone's `.git`, a download's `.cache`, other files beside the data and time stamps do not count.
"""

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from selm.data import on_disk
from selm.ranking.siblings import siblings
from selm.recipe.schema import Data

# The files that transformers and our PairRM read from a model's folder beside its weights.
_MODEL_FILES = {
    *("config.json", "generation_config.json", "chat_template.json", "chat_template.jinja"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "tekken.json", "dict.txt"),
}
_VOCABULARIES = {".model", ".spm", ".bpe", ".tiktoken", ".codes", ".vocab"}
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first one that exists

# Files up to this size count with all their bytes.
_WHOLE = 64 * 2**20


def of_model(name_or_path: str, code: bool) -> str | None:
    """The hash of a model's folder; None for a Hub id. `code`: its Python files count."""
    root = Path(name_or_path)
    if not root.is_dir():
        return None
    names = sorted(path.name for path in root.iterdir() if path.is_file())
    read = [name for name in names if name in _MODEL_FILES or Path(name).suffix in _VOCABULARIES]
    read += [name for name in names if code and name.endswith(".py")]
    read += [str(p.relative_to(root)) for p in sorted(root.glob("additional_chat_templates/*"))]
    return _digest(root, [*read, *_weights(root)])


def _weights(root: Path) -> list[str]:
    """The files that `from_pretrained` reads: one, or an index and what it lists."""
    for name in _WEIGHTS:
        index = root / f"{name}.index.json"
        if (root / name).is_file():
            return [name]
        if index.is_file():
            return [index.name, *_listed(index)]
    return []


def _listed(index: Path) -> list[str]:
    """The listed files; empty if the index is damaged, which loading the model reports."""
    try:
        files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return []
    names = [name for name in files if isinstance(name, str)]
    return sorted(name for name in names if (index.parent / name).is_file())


def of_data(data: Data, which: str) -> str | None:
    """The hash of the files with the rows of `train` or `test`; None for a Hub id.

    A missing test split counts, too, because the last tenth of train is then held out.
    """
    files = on_disk.files_read(data, which)
    if not files:
        return None
    root = Path(data.name_or_path)
    if root.is_file():
        return _digest(root.parent, [root.name])
    found = _digest(root, [str(file.relative_to(root)) for file in files])
    whole = on_disk.has_test(data, on_disk.local_splits(data))
    return found if whole else f"{found}, a tenth held out"


def of_path(path: str, code: bool) -> str | None:
    """The hash of a ranker's model folder, Python file or other file. `code`: as for models."""
    if Path(path).is_dir():
        return of_model(path, code)
    return of_code(path) if path.endswith(".py") else of_file(path)


def of_file(path: str) -> str | None:
    """The hash of a chat template or a judge's template; None if there is no such file."""
    file = Path(path)
    return _digest(file.parent, [file.name]) if file.is_file() else None


def of_code(path: str) -> str | None:
    """The hash of a reward file and the modules beside it that it imports, or None."""
    file = Path(path)
    if not file.is_file():
        return None
    imported: list[str] = []
    for beside in siblings(file).values():
        is_package = beside.name == "__init__.py"
        files = beside.parent.rglob("*.py") if is_package else [beside]
        imported += [str(one.relative_to(file.parent)) for one in files]
    return _digest(file.parent, [file.name, *imported])


def _digest(root: Path, names: Iterable[str]) -> str:
    """The hash of the files' names and contents, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(names):
        about = (root / name).stat()
        content = _of_content(root / name, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
        digest.update(f"{name}\0{content}\0".encode())
    return digest.hexdigest()


@cache
def _of_content(path: Path, size: int, _changed: int, _inode_changed: int) -> str:
    """The hash of all bytes, or for a large file (weights) of its size and a sample.

    Other weights with the same shapes differ nearly everywhere. The times of the last change are
    part of the cache key, because a process asks many times.
    """
    content = path.read_bytes() if size <= _WHOLE else _sample(path, size)
    return hashlib.sha256(str(size).encode() + b"\0" + content).hexdigest()


def _sample(path: Path, size: int, blocks: int = 256, block_bytes: int = 4096) -> bytes:
    """Blocks at even distances, one megabyte in all."""
    with path.open("rb") as file:
        found = []
        for block in range(blocks):
            file.seek(block * (size - block_bytes) // (blocks - 1))
            found.append(file.read(block_bytes))
    return b"".join(found)
