"""What a local model, dataset or file contains, as one hash. Only files that are read count.

Not a clone's `.git`, a download's `.cache`, notes beside the data, or when a file was touched.
"""

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from selm.data import on_disk
from selm.ranking.siblings import siblings
from selm.recipe.schema import Data

# What transformers and our PairRM read of a model's folder beside its weights.
_MODEL_FILES = {
    *("config.json", "generation_config.json", "chat_template.json", "chat_template.jinja"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "tekken.json", "dict.txt"),
}
_VOCABULARIES = {".model", ".spm", ".bpe", ".tiktoken", ".codes", ".vocab"}
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first of them that is there

# Bytes that a file may have and still count with all of them.
_WHOLE = 64 * 2**20


def of_model(name_or_path: str, code: bool) -> str | None:
    """Of a model's folder; None for a Hub id. `code`: its Python files are run, so they count."""
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
    """Nothing where the index is no index: to load the model says so."""
    try:
        files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return []
    names = [name for name in files if isinstance(name, str)]
    return sorted(name for name in names if (index.parent / name).is_file())


def of_data(data: Data, which: str) -> str | None:
    """Of the files that the rows of `train` or `test` are read from; None for a Hub id.

    That there is no test split counts, too: then the last tenth of train is held out.
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
    """Of what a ranker reads: a model's folder, Python, or another file. `code` as of a model."""
    if Path(path).is_dir():
        return of_model(path, code)
    return of_code(path) if path.endswith(".py") else of_file(path)


def of_file(path: str) -> str | None:
    """Of a chat template or a judge's template; None where there is no such file."""
    file = Path(path)
    return _digest(file.parent, [file.name]) if file.is_file() else None


def of_code(path: str) -> str | None:
    """Of a reward file and the modules beside it that it imports; None where it is not."""
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
    """Of the files' names and contents, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(names):
        about = (root / name).stat()
        content = _of_content(root / name, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
        digest.update(f"{name}\0{content}\0".encode())
    return digest.hexdigest()


@cache
def _of_content(path: Path, size: int, _changed: int, _inode_changed: int) -> str:
    """Of all bytes; of a large file (weights) of its size and a sample.

    Other weights of the same shapes differ nearly everywhere. A process asks many times: the times
    of the last change tell it whether to look again.
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
