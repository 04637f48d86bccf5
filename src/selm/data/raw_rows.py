"""Reads data files row by row, each row with its place; a bad row does not affect the others.

`datasets` reads JSON with one schema for all rows and refuses a file with one bad row: a list in
one row and a text in another, or a byte that is not UTF-8, would stop the run.
"""

import csv
import gzip
import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import IO, Any, TypeVar

import pyarrow
import pyarrow.parquet as parquet

from selm.data.on_disk import format_of
from selm.errors import UserError

NOT_UTF8 = "row_is_not_utf8"
NO_JSON = "row_is_no_json"
NO_OBJECT = "row_is_no_object"
TOO_DEEP = "row_is_nested_too_deep"
WIDER = "row_has_more_cells_than_columns"

_BOMS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x00\x00\xfe\xff": "UTF-32"}

# Without such a mark: the number of zero bytes among the first four tells the encoding.
_BY_NULS = {2: "UTF-16", 3: "UTF-32"}

csv.field_size_limit(2**31 - 1)

T = TypeVar("T")


@dataclass(frozen=True)
class Raw:
    """A row as read from its file: `values`, or None and the reason why it cannot be read.

    `place` names it (`train.jsonl row 251`, counted from 1); `detail` explains the reason.
    """

    place: str
    values: dict[str, Any] | None
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of one or several files, in order."""

    spans: tuple[tuple[Path, range], ...]

    @property
    def num_rows(self) -> int:
        return sum(len(rows) for _, rows in self.spans)

    def select(self, wanted: range) -> "Table":
        """A range of rows, counted from 0; numbers beyond the end are ignored."""
        spans, start = [], 0
        for path, rows in self.spans:
            part = rows[max(0, wanted.start - start) : max(0, wanted.stop - start)]
            spans += [(path, part)] if part else []
            start += len(rows)
        return Table(tuple(spans))

    def __iter__(self) -> Iterator[Raw]:
        return chain.from_iterable(_read(path, rows) for path, rows in self.spans)


def table(files: Sequence[Path]) -> Table:
    """All rows of these files.

    Raises:
        UserError: a file cannot be read at all; the message says why.
    """
    found = Table(tuple((file, range(count(file))) for file in files))
    if not found.num_rows:
        raise _unreadable(files[0], "it is empty")
    return found


def _unreadable(path: Path, why: object) -> UserError:
    return UserError(f"data.name_or_path: {path} cannot be read: {why}")


def count(path: Path) -> int:
    """Rows of a file."""
    stat = path.stat()
    return _count(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1024)
def _count(path: Path, time: int, size: int) -> int:
    if format_of(path) == "arrow":
        _check_arrow(path)
    return _reading(path, lambda: _rows_in(path))


def _rows_in(path: Path) -> int:
    if format_of(path) == "parquet":
        return parquet.read_metadata(path).num_rows
    if format_of(path) == "arrow":
        with pyarrow.memory_map(str(path)) as source:
            return sum(batch.num_rows for batch in batches(source))
    return sum(1 for _ in _READERS[format_of(path)](path))


def _read(path: Path, rows: range) -> Iterator[Raw]:
    found = islice(_READERS[format_of(path)](path), rows.start, rows.stop)
    for number in rows:
        parse = _reading(path, lambda: next(found))
        yield parse(f"{path.name} row {number + 1}")


def _reading(path: Path, call: Callable[[], T]) -> T:
    """Turn an error about a whole file into one line that names it."""
    try:
        return call()
    except (OSError, EOFError, zlib.error, pyarrow.ArrowException, csv.Error) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise _unreadable(path, reason) from error


# A reader yields one parser per row, so that skipped rows cost little.
_Parse = Callable[[str], Raw]


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """Open a file after its byte order mark, if it has one."""
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rb") as file:
        head = file.read(4)
        encoding = next((name for mark, name in _BOMS.items() if head.startswith(mark)), None)
        if encoding is None:
            encoding = _BY_NULS.get(head.count(0))
        if encoding is not None:
            raise _unreadable(path, f"it is {encoding}; save it as UTF-8")
        file.seek(3 if head.startswith(b"\xef\xbb\xbf") else 0)
        yield file


def _lines(path: Path) -> Iterator[_Parse]:
    """JSON lines, or one list if the file begins with a bracket, whatever its suffix."""
    with _open(path) as file:
        lines = _numbered(file)
        first = next(lines, None)
        if first is None:
            return
        if first[1].lstrip().startswith(b"["):
            yield from _json(path)
            return
        for number, line in chain([first], lines):
            yield partial(_of_line, number=number, line=line)


def _numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _of_line(place: str, number: int, line: bytes) -> Raw:
    try:
        return _row(place, json.loads(line.decode("utf-8")))
    except UnicodeDecodeError as error:
        return Raw(place, None, NOT_UTF8, f"line {number}: {_byte(error)}")
    except RecursionError:
        return Raw(place, None, TOO_DEEP)
    except ValueError as error:  # broken JSON, and numbers of thousands of digits
        return Raw(place, None, NO_JSON, f"line {number}: {error}")


def _byte(error: UnicodeDecodeError) -> str:
    """
    >>> try: b"caf\\xe9".decode()
    ... except UnicodeDecodeError as error: print(_byte(error))
    byte 4 is 0xe9, which is not UTF-8
    """
    return f"byte {error.start + 1} is 0x{error.object[error.start]:02x}, which is not UTF-8"


def _row(place: str, values: Any) -> Raw:
    if isinstance(values, dict):
        return Raw(place, values)
    return Raw(place, None, NO_OBJECT, f"it is {json.dumps(values, default=str)[:60]}")


def _json(path: Path) -> Iterator[_Parse]:
    """One list of rows, one object that holds the list, or JSON lines."""
    with _open(path) as file:
        content = file.read()
    if not content.strip():
        return
    try:
        rows = _rows_of(path, json.loads(content.decode("utf-8")))
    except RecursionError as error:
        raise _unreadable(path, "it is nested too deep") from error
    except ValueError as error:
        if not _has_a_row_per_line(content, error):
            why = _byte(error) if isinstance(error, UnicodeDecodeError) else error
            raise _unreadable(path, why) from error
        for number, line in _numbered(content.split(b"\n")):
            yield partial(_of_line, number=number, line=line)
        return
    for values in rows:
        yield partial(_row, values=values)


def _has_a_row_per_line(content: bytes, error: ValueError) -> bool:
    """Whether what is no JSON as a whole is JSON lines."""
    begin = content.lstrip()[:1]
    if isinstance(error, UnicodeDecodeError):
        return begin != b"[" and b"\n{" in content
    lines = [line for line in content.splitlines() if line.strip()]
    return begin == b"{" and len(lines) > 1 and _is_json(lines[0])


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _rows_of(path: Path, tree: Any) -> list[Any]:
    """The list of rows in a whole JSON file, such as {"data": [...]}."""
    if isinstance(tree, list):
        return tree
    if isinstance(tree, dict):
        if {"prompt", "chosen", "messages", "conversations"} & tree.keys():
            if not any(isinstance(value, dict | list) for value in tree.values()):
                return [tree]
            if isinstance(tree.get("prompt"), str):
                return [tree]
        lists = [key for key, value in tree.items() if _is_rows(value)]
        if len(lists) == 1:
            return tree[lists[0]]
        raise UserError(
            f"data.name_or_path: {path} is one object with the keys "
            f"{', '.join(list(map(str, tree))[:8])}; wanted a list of rows, or one row per line"
        )
    raise UserError(f"data.name_or_path: {path} is a single value; wanted a list of rows")


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _csv(path: Path, delimiter: str = ",") -> Iterator[_Parse]:
    """Every cell is text; the first line names the columns."""
    with _open(path) as file:
        # bytes that are not UTF-8 become surrogates, which are found row by row
        text = (line.decode("utf-8", "surrogateescape") for line in file)
        first = next(text, "")
        if delimiter == "," and ";" in first and "," not in first:
            delimiter = ";"  # as Excel writes it where the comma is the decimal sign
        rows = csv.reader(chain([first], text), delimiter=delimiter)
        header = [name.strip() for name in next(rows, [])]
        if len(set(header)) < len(header):
            raise _unreadable(path, "two columns have the same name")
        for cells in rows:
            if cells:
                yield partial(_of_cells, header=header, cells=cells, line=rows.line_num)


def _of_cells(place: str, header: list[str], cells: list[str], line: int) -> Raw:
    if len(cells) > len(header):
        return Raw(place, None, WIDER, f"line {line}: {len(cells)} cells")
    for cell in cells:
        try:
            cell.encode("utf-8", "surrogateescape").decode("utf-8")
        except UnicodeDecodeError as error:
            return Raw(place, None, NOT_UTF8, f"line {line}: {_byte(error)}")
    return Raw(place, dict(zip_longest(header, cells, fillvalue="")))


def _parquet(path: Path) -> Iterator[_Parse]:
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=256):
            yield from _of_batch(batch)


def _arrow(path: Path) -> Iterator[_Parse]:
    with pyarrow.memory_map(str(path)) as source:
        for batch in batches(source):
            yield from _of_batch(batch)


def _check_arrow(path: Path) -> None:
    """Read it in a separate process: a damaged Arrow file can crash the process that reads it."""
    done = subprocess.run([sys.executable, "-c", _VALIDATE, path], capture_output=True)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
        raise _unreadable(path, said[-1][:300])


_VALIDATE = """
import sys
import pyarrow
from selm.data.raw_rows import batches
with pyarrow.memory_map(sys.argv[1]) as source:
    for batch in batches(source):
        try:
            batch.validate(full=True)
        except pyarrow.ArrowInvalid as error:
            if "UTF8" not in str(error):  # this drops only its row
                raise
        try:
            batch.to_pylist()
        except (ValueError, OverflowError):
            pass
"""


def batches(source: pyarrow.NativeFile) -> Iterator[pyarrow.RecordBatch]:
    """The batches of an Arrow stream, as `datasets` writes, or of an Arrow file."""
    if source.read(6) == b"ARROW1":
        file = pyarrow.ipc.open_file(source)
        return (file.get_batch(n) for n in range(file.num_record_batches))
    source.seek(0)
    return iter(pyarrow.ipc.open_stream(source))


def _of_batch(batch: pyarrow.RecordBatch) -> Iterator[_Parse]:
    @cache
    def rows() -> list[dict[str, Any]] | None:
        try:
            return batch.to_pylist()
        except (ValueError, OverflowError):
            return None

    def parse(place: str, n: int) -> Raw:
        found = rows()
        return _of_arrow(place, batch, n) if found is None else Raw(place, found[n])

    for n in range(batch.num_rows):
        yield partial(parse, n=n)


def _of_arrow(place: str, batch: pyarrow.RecordBatch, n: int) -> Raw:
    """A row of a batch that has values without a Python form."""
    try:
        names = batch.schema.names
        return Raw(place, {name: _value(batch.column(i), n) for i, name in enumerate(names)})
    except UnicodeDecodeError as error:
        return Raw(place, None, NOT_UTF8, _byte(error))


def _value(column: pyarrow.Array, n: int) -> Any:
    """The value; None if Python cannot represent it, such as a day of the year 20000."""
    try:
        return column[n].as_py()
    except UnicodeDecodeError:
        raise
    except (ValueError, OverflowError):
        return None


_READERS: dict[str, Callable[[Path], Iterator[_Parse]]] = {
    "lines": _lines,
    "json": _json,
    "csv": _csv,
    "tsv": partial(_csv, delimiter="\t"),
    "parquet": _parquet,
    "arrow": _arrow,
}
