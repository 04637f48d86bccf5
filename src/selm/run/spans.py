"""The files of shards, which have their rows in their names."""

import re
from pathlib import Path

_NAME = re.compile(r"shard-(\d{8,})-(\d{8,})\.parquet")


def spans(folder: Path) -> list[range]:
    """The rows of all shards in a folder, by the first row; of equal ones the longest is first."""
    names = [_NAME.fullmatch(path.name) for path in folder.glob("shard-*.parquet")]
    found = [range(int(name[1]), int(name[2])) for name in names if name]
    return sorted(found, key=lambda span: (span.start, -span.stop))


def rows_in(folder: Path) -> int:
    """How many rows the finished shards of a folder cover."""
    return len({row for span in spans(folder) for row in span})


def path_of(folder: Path, span: range) -> Path:
    return folder / f"shard-{span.start:08d}-{span.stop:08d}.parquet"
