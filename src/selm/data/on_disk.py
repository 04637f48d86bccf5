"""Which files of a dataset are read, and as which split. Needs only PyYAML.

A folder (or a repository of the Hub) names its splits in the `configs:` of its README.md, as the
Hub's datasets do, or by the names of its files: `train.jsonl`, `data/train-00000-of-00002.parquet`,
`train/data-00000-of-00001.arrow`. All other files are ignored: hidden files, scripts, the
output of runs, and everything outside the folder.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from fnmatch import translate
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from selm.errors import UserError
from selm.recipe.places import is_local_path
from selm.recipe.schema import Data

# How each suffix is read; all but the last two may be followed by .gz.
FORMATS = {
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
_READ = ".jsonl, .json, .csv, .tsv (each also with .gz), .parquet or .arrow"

# The default of data.test_split: a split of this name need not exist.
TEST = "test"

_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SHARD = re.compile(r"(.+?)-(\d{5})-of-(\d{5})(?:-[0-9a-f]+)?")
_NO_DATA = {"config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json"}
_NO_DATA |= {"state.json", "manifest.json", "package.json"}

Splits = dict[str, list[str]]  # split -> names of files, in the order in which they are read


def format_of(path: Path) -> str:
    """How a file is read, by its suffix.

    >>> format_of(Path("a.jsonl.gz")), format_of(Path("A.CSV")), format_of(Path("pairs"))
    ('lines', 'csv', 'json')
    """
    bare = Path(path.stem) if path.suffix.lower() == ".gz" else path
    found = FORMATS.get(bare.suffix.lower(), "json" if not bare.suffix else "")
    if not found or (bare is not path and found in ("parquet", "arrow")):
        raise UserError(
            f"data.name_or_path: {path}: files {path.suffix} cannot be read; use {_READ}"
        )
    return found


def files_read(data: Data, which: str) -> list[Path]:
    """The local files that decide which rows `train` or `test` has; none for a Hub dataset.

    Without a test split the last tenth of the training split is held out.
    """
    if not is_local_path(data.name_or_path):
        return []
    path = Path(data.name_or_path)
    if not path.is_dir():
        return [path]
    found = local_splits(data)
    from_test = which == "test" and has_test(data, found)
    spec = data.test_split if from_test else data.train_split
    read = {file for name in names_in(spec) for file in found.get(name, [])}
    readme = path / "README.md"
    return sorted(read | ({readme} if _configs(_text(readme), path.name) else set()))


def has_test(data: Data, splits: Collection[str]) -> bool:
    """Whether the recipe's test split is there, or must be. A file knows only parts of `train`."""
    if Path(data.name_or_path).is_file():
        return names_in(data.test_split) == ["train"]
    return data.test_split != TEST or data.test_split in splits


def wanted_splits(data: Data) -> list[str]:
    """The splits that the recipe's two keys name: train and more for `train[:90%]+more`."""
    specs = (data.train_split, data.test_split)
    return list(dict.fromkeys(name for spec in specs for name in names_in(spec)))


def names_in(spec: str) -> list[str]:
    """
    >>> names_in("train[:90%] + more")
    ['train', 'more']
    """
    return [part.partition("[")[0].strip() for part in spec.split("+")]


def local_splits(data: Data) -> dict[str, list[Path]]:
    """The splits of a local file or folder, without those that it does not have."""
    path = Path(data.name_or_path)
    if path.is_file():
        if data.subset is not None:
            raise UserError(
                f"data.subset: {path} is a single file and has no subsets; remove the key"
            )
        return {"train": [path]}
    try:
        names = [file.relative_to(path).as_posix() for file in _walk(path)]
        readme = _text(path / "README.md")
    except OSError as error:
        raise UserError(f"data.name_or_path: {path} cannot be read: {error.strerror}") from error
    found = splits(names, readme, data)
    for name in (name for names in found.values() for name in names):
        _check_inside(path, name)
    return {split: [path / name for name in names] for split, names in found.items()}


def splits(names: Sequence[str], readme: str, data: Data) -> Splits:
    """The splits of a folder with files of these names.

    Args:
        names: relative, with slashes.
        readme: the text of its README.md, empty if it has none.

    Raises:
        UserError: a subset must be named or does not exist, there are no data, or a file of a split
            is missing.
    """
    where = data.name_or_path
    names = sorted(name for name in names if _is_data(name))
    configs = _configs(readme, where)
    if configs:
        config = configs[_subset(data, list(configs), _default(configs))]
        folder = _checked(str(config.get("data_dir") or ""), where).strip("/")
        if config.get("data_files") is not None:
            return _declared(config["data_files"], folder, names, where)
        names = _below(names, folder)
    else:
        folder = _subfolder(names, data)
        names = _below(names, folder)
    found = _by_name(names, wanted_splits(data))
    if not found:
        raise UserError(f"data.name_or_path: {where} has no data files; use {_READ}")
    for split in wanted_splits(data):
        _check_split(where, split, found.get(split, []))
    prefix = f"{folder}/" if folder else ""
    return {split: [prefix + name for name in files] for split, files in found.items()}


def _is_data(name: str) -> bool:
    parts = PurePosixPath(name).parts
    hidden = any(part.startswith((".", "__")) for part in parts)
    file = parts[-1].lower()
    bare = file.removesuffix(".gz")
    cached = file.startswith("cache-") and file.endswith(".arrow")  # what `datasets` leaves behind
    return not hidden and not cached and file not in _NO_DATA and Path(bare).suffix in FORMATS


def _walk(folder: Path) -> Iterable[Path]:
    """Files below a folder, but for hidden ones; links to folders are not entered."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_file():
            yield path
        elif path.is_dir() and not path.name.startswith("__") and not path.is_symlink():
            yield from _walk(path)


def _text(readme: Path) -> str:
    if not readme.is_file():
        return ""
    return readme.read_text(encoding="utf-8-sig", errors="replace")


def _configs(readme: str, where: str) -> dict[str, dict[str, Any]]:
    """The subsets that the head of a README.md defines, by name."""
    head = re.match(r"---[ \t]*\r?\n(.*?)\r?\n---", readme, re.DOTALL)
    try:
        tree = yaml.safe_load(head[1]) if head else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _bad_readme(where, ": its head is not valid YAML; correct or remove it") from error
    configs = tree.get("configs") if isinstance(tree, dict) else None
    if configs is None:
        return {}
    if not isinstance(configs, list) or not all(
        isinstance(config, dict) and isinstance(config.get("config_name"), str)
        for config in configs
    ):
        said = (
            ": its `configs` must be a list of config_name and data_files; correct or remove them"
        )
        raise _bad_readme(where, said)
    return {config["config_name"]: config for config in configs}


def _bad_readme(where: str, said: str) -> UserError:
    return UserError(f"data.name_or_path: {where}/README.md{said}")


def _subset(data: Data, known: list[str], default: str | None = None) -> str:
    if data.subset is not None:
        if data.subset not in known:
            raise UserError(
                f"data.subset: {data.name_or_path} has no subset {data.subset!r}; "
                f"it has {', '.join(known)}"
            )
        return data.subset
    if default is not None:
        return default
    if len(known) > 1:
        raise UserError(
            f"data.subset: missing; {data.name_or_path} has the subsets {', '.join(known)}: "
            "name one of them"
        )
    return known[0]


def _default(configs: dict[str, dict[str, Any]]) -> str | None:
    """The subset that a README calls the default."""
    marked = (name for name, config in configs.items() if config.get("default") is True)
    return "default" if "default" in configs else next(marked, None)


def _subfolder(names: Sequence[str], data: Data) -> str:
    """The folder of the subset if no README names one: '' or a folder at the top."""
    folders = [name.partition("/")[0] for name in names if "/" in name]
    splits = {word for words in _WORDS.values() for word in words} | {"data"}
    splits |= set(wanted_splits(data))
    known = [folder for folder in dict.fromkeys(folders) if folder not in splits]
    if data.subset is None:
        if known and not any(_split_of(name, wanted_splits(data)) for name in names):
            return _subset(data, known) if len(known) > 1 else known[0]
        return ""
    if not known:
        raise UserError(f"data.subset: {data.name_or_path} has no subsets; remove the key")
    return _subset(data, known)


def _below(names: Sequence[str], folder: str) -> list[str]:
    if not folder:
        return list(names)
    return [name.removeprefix(f"{folder}/") for name in names if name.startswith(f"{folder}/")]


def _declared(declared: Any, folder: str, names: Sequence[str], where: str) -> Splits:
    """`data_files` of a README: one pattern, several, or several for each split."""
    found: Splits = {}
    for split, pattern in _patterns(declared, where):
        pattern = f"{folder}/{_checked(pattern, where)}".strip("/").removeprefix("./")
        matching = _matching(names, pattern)
        if not matching:
            raise _bad_readme(where, f" names {pattern}, but there is no such data file")
        found.setdefault(split, []).extend(n for n in matching if n not in found.get(split, []))
    return found


def _patterns(declared: Any, where: str) -> list[tuple[str, str]]:
    """(split, pattern) in the README's order."""
    if isinstance(declared, dict):
        declared = [{"split": split, "path": path} for split, path in declared.items()]
    entries = declared if isinstance(declared, list) else [declared]
    found = []
    for entry in entries:
        entry = entry if isinstance(entry, dict) else {"split": "train", "path": entry}
        paths = entry.get("path")
        for path in paths if isinstance(paths, list) else [paths]:
            if not isinstance(path, str) or not isinstance(entry.get("split"), str):
                said = ": its `data_files` must be a list of split and path; correct or remove them"
                raise _bad_readme(where, said)
            found.append((entry["split"], path))
    return found


def _checked(pattern: str, where: str) -> str:
    """The path from a README; UserError if it leaves the README's folder."""
    parts = re.split(r"[/\\]", pattern)
    outside = "://" in pattern or "::" in pattern or ".." in parts
    if outside or pattern.startswith(("/", "\\", "~")) or re.match("[A-Za-z]:", pattern):
        said = f" names {pattern!r}, which is not in its folder; only files in this folder are read"
        raise _bad_readme(where, said)
    return pattern


def _matching(names: Sequence[str], pattern: str) -> list[str]:
    """Names that match a pattern or are in a folder of that name.

    >>> _matching(["a/b.csv", "c.csv"], "**/*.csv"), _matching(["a/b.csv", "c.csv"], "a")
    (['a/b.csv', 'c.csv'], ['a/b.csv'])
    """
    wild = any(sign in pattern for sign in "*?[")
    if not wild:
        return [n for n in names if n == pattern or n.startswith(f"{pattern.rstrip('/')}/")]
    return [name for name in names if _fits(name.split("/"), pattern.split("/"))]


def _fits(parts: list[str], pattern: list[str]) -> bool:
    """Whether the parts match one by one; `**` stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        rest = pattern[1:] or ["*"]
        return any(_fits(parts[n:], rest) for n in range(len(parts)))
    fits = bool(parts) and re.match(translate(pattern[0]), parts[0]) is not None
    return fits and _fits(parts[1:], pattern[1:])


def _split_of(name: str, wanted: Sequence[str]) -> str:
    """The split that a file's folder and name stand for; '' for a file in another folder."""
    *folders, file = name.removeprefix("data/").split("/")
    if folders:
        known = folders[0] in wanted or any(folders[0] in words for words in _WORDS.values())
        return folders[0] if known else ""
    stem = file.split(".")[0] if file.lower().endswith(".gz") else Path(file).stem
    shard = _SHARD.fullmatch(stem)
    return shard[1] if shard else stem


def _by_name(names: Sequence[str], wanted: Sequence[str]) -> Splits:
    """The splits by the names of files, first at the top, then in `data/`."""
    raw: Splits = {}
    for in_data in (False, True):
        level: Splits = {}
        for name in names:
            if name.startswith("data/") == in_data and (split := _split_of(name, wanted)):
                level.setdefault(split, []).append(name)
        raw |= {split: files for split, files in level.items() if split not in raw}
    found = {split: files for split in _WORDS if (files := _of_words(raw, split))}
    if not found and raw:
        found = {"train": [name for files in raw.values() for name in files]}
    return found | {split: files for split, files in raw.items() if split not in found}


def _of_words(raw: Splits, split: str) -> list[str]:
    """The files of a split: those with its name, otherwise those with a name such as train_1."""
    if split in raw:
        return raw[split]
    begins = re.compile(rf"(?:{'|'.join(_WORDS[split])})(?:[-._ 0-9].*)?", re.DOTALL)
    return [name for other, files in raw.items() if begins.fullmatch(other) for name in files]


def _check_split(where: str, split: str, names: Sequence[str]) -> None:
    """Check that all shards are there and that no rows are there in two forms."""
    stems = [name.rpartition("/")[2].partition(".")[0] for name in names]
    shards = [found for stem in stems if (found := _SHARD.fullmatch(stem))]
    suffixes = {Path(name.lower().removesuffix(".gz")).suffix for name in names}
    mixed = 0 < len(shards) < len(stems)
    if len(suffixes) > 1 or mixed or len(set(stems)) < len(stems):
        raise UserError(
            f"data.name_or_path: {where} has several files of the split {split}: "
            f"{', '.join(names[:4])}; remove all but one, or name the file itself"
        )
    total = int(shards[0][3]) if shards else 0
    if len({found[2] for found in shards}) < total:
        raise UserError(
            f"data.name_or_path: {where} has {len(shards)} of the {total} files of the split "
            f"{split}; add the missing ones"
        )


def _check_inside(folder: Path, name: str) -> None:
    """Refuse a link out of the folder that a README names; the user may place links as split files.

    In the Hub's cache the files of a snapshot are links to blobs beside it.
    """
    path, inside = folder / name, folder.resolve()
    if inside.parent.name == "snapshots":
        inside = inside.parent.parent
    leaves = not path.resolve().is_relative_to(inside)
    if leaves and _configs(_text(folder / "README.md"), str(folder)):
        raise UserError(
            f"data.name_or_path: {folder}/{name} is a link that leads out of the folder, whose "
            "README.md names it; put the file itself there"
        )
