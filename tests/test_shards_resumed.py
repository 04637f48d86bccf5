"""A resumed stage keeps finished rows, whatever shards and workers it had before."""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any, TypedDict

import pytest

from selm.run.shards import ON_CPU, ON_GPU, num_shards, run_shards
from selm.run.workers import Load, Work


class Number(TypedDict):
    n: int


ROWS: list[Number] = [{"n": n} for n in range(200)]


def worker(log: Path, shards: int | None = None) -> Load[Any, Any]:
    """Writes each row down when it is asked for it; it stops with Ctrl-C after some shards."""

    def load() -> Work[Any, Any]:
        numbers = itertools.count()

        def work(shard: list[Any]) -> list[Any]:
            if next(numbers) == shards:
                raise KeyboardInterrupt
            with log.open("a", encoding="utf-8") as file:
                file.write("".join(f"{row['n']}\n" for row in shard))
            return [{"n": -row["n"]} for row in shard]

        return work

    return load


def asked(log: Path) -> list[int]:
    return [int(line) for line in log.read_text(encoding="utf-8").split()]


def spans(folder: Path) -> list[tuple[int, int]]:
    names = sorted(path.stem.split("-") for path in folder.glob("shard-*.parquet"))
    return [(int(first), int(after)) for _, first, after in names]


EXPECTED = [{"n": -row["n"]} for row in ROWS]


@pytest.mark.parametrize("sizes", [("auto", 7), (7, "auto"), (30, 11), (11, 30), ("auto", "auto")])
def test_no_row_is_asked_for_twice(tmp_path: Path, sizes: tuple) -> None:
    first, then = sizes
    shards, log = tmp_path / "shards", tmp_path / "log"
    with pytest.raises(KeyboardInterrupt):
        run_shards(ROWS, worker(log, shards=1), Number, shards, first, "test")
    kept = spans(shards)
    assert len(kept) == 1
    assert run_shards(ROWS, worker(log), Number, shards, then, "test") == EXPECTED
    assert asked(log) == list(range(200))
    assert kept[0] in spans(shards)


# In a process of its own: Ray reads its settings when it is imported, which vLLM does, too.
TWO_GO_ON = (
    "import sys; sys.path.insert(0, sys.argv[1]); from test_shards_resumed import *\n"
    "from selm.run.workers import Workers\n"
    "more, shards = map(Path, sys.argv[2:])\n"
    "found = run_shards(ROWS, worker(more), Number, shards, 'auto', 'test', Workers(2))\n"
    "assert found == EXPECTED"
)


@pytest.mark.slow
def test_two_workers_go_on_where_one_was(tmp_path: Path) -> None:
    """The one has left a gap in the middle, and one of its shards is damaged."""
    shards, log, more = tmp_path / "shards", tmp_path / "log", tmp_path / "more"
    with pytest.raises(KeyboardInterrupt):
        run_shards(ROWS, worker(log, shards=4), Number, shards, 25, "test")
    (shards / "shard-00000025-00000050.parquet").unlink()
    damaged = shards / "shard-00000075-00000100.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    arguments = [Path(__file__).parent, more, shards]
    done = subprocess.run(
        [sys.executable, "-c", TWO_GO_ON, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(asked(more)) == [*range(25, 50), *range(75, 200)]
    there = spans(shards)
    assert {(0, 25), (50, 75)} <= set(there)
    assert (75, 100) not in there, "the damaged shard is not left beside those in its place"
    assert [n for span in there for n in range(*span)] == list(range(200))


def test_shards_that_overlap_do_not_repeat_rows(tmp_path: Path) -> None:
    """Of other attempts, put into one folder."""
    shards, log = tmp_path / "shards", tmp_path / "log"
    for size in (40, 60):
        run_shards(ROWS, worker(log), Number, tmp_path / str(size), size, "test")
        for path in (tmp_path / str(size)).iterdir():
            shards.mkdir(exist_ok=True)
            path.rename(shards / path.name)
    (shards / "shard-00000060-00000120.parquet").unlink()
    more = tmp_path / "more"
    assert run_shards(ROWS, worker(more), Number, shards, "auto", "test") == EXPECTED
    assert asked(more) == [*range(60, 80)]


def test_with_auto_nobody_is_idle_and_no_shard_is_too_large() -> None:
    """For all numbers of rows up to 5,000 and some workers."""
    for workers, on_gpus in itertools.product((1, 2, 3, 8, 64), (True, False)):
        least, most = ON_GPU if on_gpus else ON_CPU
        for rows in range(1, 5000):
            shards = num_shards(rows, workers, on_gpus)
            each = shards / workers
            assert shards == rows < workers or each == int(each) >= 1
            assert -(-rows // shards) <= most
            assert each <= 1 or rows / shards >= least or -(-rows // workers) > most
