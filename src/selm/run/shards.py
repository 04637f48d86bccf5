"""Work split into shards, each saved when it is done, so that a killed stage can continue.

A shard is a file `shard-<first row>-<row after the last>.parquet`, written under a temporary name
and renamed. A `kill -9` costs only the shards in work; the same command does their rows again, with
any number of workers. Shards that are there are taken as they are, and what is missing between them
is cut anew, so neither the shard size nor the workers have to be those of the first attempt. A
damaged shard is deleted, and its rows are done again, too.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from selm import progress
from selm.data.parquet import as_table, with_tools
from selm.run import sealed
from selm.run.spans import path_of, spans
from selm.run.workers import In, Load, Out, Workers, spread

ONE = Workers(1)

# Where `auto` has the choice, a worker gets so many shards: a death costs a quarter of its work.
SHARDS_PER_WORKER = 4

# Rows of a shard for `auto`, at least (if there are enough rows) and at most. On a GPU they are 4
# and 8 batches of vLLM, which decodes 256 sequences at a time on an A100, more on larger GPUs. At
# the end of a shard it waits for the longest answer with ever fewer of them, which costs about as
# much as a batch.
ON_GPU, ON_CPU = (1024, 2048), (64, 256)


def run_shards(
    rows: Sequence[In],
    load: Load[In, Out],
    schema: type[Out],
    folder: Path,
    shard_size: int | Literal["auto"],
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
        shard_size: rows of a shard; for "auto" see `num_shards`.
        what: label of the progress bar.
        workers: how many there are, and what each needs.
    """
    done = _kept(folder, len(rows))
    missing = _cut(_gaps(done, len(rows)), shard_size, workers)
    num_done = sum(map(len, done))
    with (
        progress.Bar(len(rows), what, "row", done=num_done) as bar,
        closing(_finished(rows, missing, load, folder, workers)) as finished,
    ):
        for span, results in finished:
            table = as_table(results, schema)
            sealed.save(table, path_of(folder, span))
            done[span] = with_tools(table.to_pylist())
            bar.update(len(span))
    return [row for span in sorted(done, key=_start) for row in done[span]]


def num_shards(rows: int, workers: int, on_gpus: bool) -> int:
    """How many equal shards `shard_size: auto` makes of the rows that are to be done.

    - Every worker gets the same number of shards, so that all are at work until the end.
    - A shard has at most 2048 rows on GPUs, 256 on a CPU: what a kill costs is bounded.
    - Within that each worker gets up to four shards, but only as long as a shard has at least 1024
      rows on GPUs, 64 on a CPU: short shards leave an engine's batches half empty.

    >>> num_shards(500, 8, on_gpus=True)  # of 62 or 63 rows: eight GPUs are busy
    8
    >>> num_shards(20_000, 8, on_gpus=True)  # of 1250 rows
    16
    >>> num_shards(20_000, 1, on_gpus=True), num_shards(500, 1, on_gpus=False)
    (10, 4)
    """
    least, most = ON_GPU if on_gpus else ON_CPU
    at_least = -(-rows // (workers * most))
    wanted = min(SHARDS_PER_WORKER, rows // (workers * least))
    return min(rows, workers * max(at_least, wanted, 1))


def _kept(folder: Path, num_rows: int) -> dict[range, list[Any]]:
    """The results of an earlier attempt that are intact, by their rows.

    Of shards that overlap, which an attempt does not leave, the first one counts.
    """
    found: dict[range, list[Any]] = {}
    end = 0
    for span in spans(folder):
        if end <= span.start < span.stop <= num_rows:
            results = sealed.read(path_of(folder, span), otherwise="its rows are done again")
            if results is None:  # or it would count as finished while its rows are done again
                path_of(folder, span).unlink()
            else:
                found[span], end = with_tools(results), span.stop
    return found


def _gaps(done: Iterable[range], num_rows: int) -> list[range]:
    """The rows that are in none of the spans.

    >>> _gaps([range(4, 6), range(0, 3)], 9)
    [range(3, 4), range(6, 9)]
    """
    ordered = sorted(done, key=_start)
    starts = [0, *(span.stop for span in ordered)]
    stops = [*(span.start for span in ordered), num_rows]
    return [range(a, b) for a, b in zip(starts, stops, strict=True) if a < b]


def _cut(gaps: Sequence[range], shard_size: int | Literal["auto"], workers: Workers) -> list[range]:
    """The missing rows as shards. With `auto` a gap's shards are equal up to a row."""
    missing = sum(map(len, gaps))
    if not missing:  # so nobody has to be asked for GPUs
        return []
    if shard_size != "auto":
        return [gap[i : i + shard_size] for gap in gaps for i in range(0, len(gap), shard_size)]
    shards = num_shards(missing, workers.count(), workers.on_gpus())
    found: list[range] = []
    for gap in gaps:
        parts = -(-len(gap) * shards // missing)
        bounds = [gap.start + len(gap) * i // parts for i in range(parts + 1)]
        found += [range(*ends) for ends in pairwise(bounds)]
    return found


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


def _start(span: range) -> int:
    return span.start
