"""Work split in shards, each kept on disk when it is done, so that a killed stage goes on.

A shard is a file `shard-<first row>-<row after the last>.parquet`, written under a temporary name
and renamed. `kill -9` costs the shard in work; the same command does that one again.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from datasets import Features
from tqdm import tqdm

from selm import data
from selm.data import Row


def run_shards(
    rows: Sequence[Row],
    work: Callable[[list[Row]], list[Row]],
    features: Features,
    folder: Path,
    shard_size: int,
    what: str,
) -> list[Row]:
    """Apply `work` to `rows`, shard by shard, and return the results in the order of `rows`.

    Args:
        work: rows in, rows out, in any number: a stage may drop some.
        features: schema of the results.
        folder: where finished shards are kept; those found there are not done again.
        what: label of the progress bar.
    """
    results: list[Row] = []
    with tqdm(total=len(rows), desc=what, unit="row") as progress:
        for start in range(0, len(rows), shard_size):
            shard = list(rows[start : start + shard_size])
            path = folder / f"shard-{start:08d}-{start + len(shard):08d}.parquet"
            if path.is_file():
                results += data.read(path)
                progress.set_postfix_str("resumed")
            else:
                done = work(shard)
                _save(done, features, path)
                results += done
            progress.update(len(shard))
    return results


def _save(rows: list[Row], features: Features, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    data.save(rows, features, temporary)
    os.replace(temporary, path)
