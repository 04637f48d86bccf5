"""Work split into shards, each saved when it is done, so that a killed stage can continue.

A shard is a file `shard-<first row>-<row after the last>.parquet`, written under a temporary name
and renamed. A `kill -9` costs only the shards in work; the same command does them again, with any
number of workers. A damaged shard is done again, too.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from selm.data.parquet import as_table, with_tools
from selm.run import sealed
from selm.run.workers import In, Load, Out, Workers, spread

ONE = Workers(1)


def run_shards(
    rows: Sequence[In],
    load: Load[In, Out],
    schema: type[Out],
    folder: Path,
    shard_size: int,
    what: str,
    workers: Workers = ONE,
) -> list[Out]:
    """Do the work of a stage on `rows`, shard by shard; the results are in the order of `rows`.

    Args:
        load: makes a worker: a function from a shard's rows to result rows, of any number. It is
            called once per worker, and not if no shard is missing. With several workers it is
            pickled for their processes.
        schema: the type of the results.
        folder: where finished shards are saved; those found there are not done again.
        what: label of the progress bar.
        workers: how many there are, and what each needs.
    """
    spans = [
        range(start, min(start + shard_size, len(rows)))
        for start in range(0, len(rows), shard_size)
    ]
    done = {span: found for span in spans if (found := _kept(folder, span)) is not None}
    missing = [span for span in spans if span not in done]
    num_done = sum(map(len, done))
    with (
        tqdm(total=len(rows), initial=num_done, desc=what, unit="row") as progress,
        closing(_finished(rows, missing, load, folder, workers)) as finished,
    ):
        progress.set_postfix_str("resumed" if num_done else "")
        for span, results in finished:
            table = as_table(results, schema)
            sealed.save(table, _path(folder, span))
            done[span] = with_tools(table.to_pylist())
            progress.update(len(span))
    return [row for span in spans for row in done[span]]


def _kept(folder: Path, span: range) -> list[Any] | None:
    """The results of an earlier attempt, if they exist and are intact."""
    found = sealed.read(_path(folder, span), otherwise="its rows are done again")
    return None if found is None else with_tools(found)


def _finished(
    rows: Sequence[In],
    missing: Sequence[range],
    load: Load[In, Out],
    folder: Path,
    workers: Workers,
) -> Iterator[tuple[range, list[Out]]]:
    """The missing shards' results, each when it is done. One worker is this process."""
    shards = {span: list(rows[span.start : span.stop]) for span in missing}
    count = min(len(shards), workers.count()) if len(shards) > 1 else 1
    if count > 1:
        yield from spread(shards, load, workers, count, folder)
        return
    work = cache(load)
    for span, shard in shards.items():
        yield span, work()(shard)


def _path(folder: Path, span: range) -> Path:
    return folder / f"shard-{span.start:08d}-{span.stop:08d}.parquet"
