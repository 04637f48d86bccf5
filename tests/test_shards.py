"""Finished shards survive a crash; rows come back in order, none missing and none twice."""

from pathlib import Path
from typing import TypedDict

import pytest

from selm.run.shards import run_shards
from selm.run.workers import Work


class Number(TypedDict):
    n: int


class Named(Number):
    text: str


ROWS: list[Number] = [{"n": n} for n in range(10)]


def text_of(row: Number) -> Named:
    return {"n": row["n"], "text": f"number {row['n']}"}


def no_worker() -> Work:
    raise AssertionError("nothing is to be done, and a worker was loaded")


EXPECTED = [text_of(row) for row in ROWS]


@pytest.mark.parametrize("shard_size", [1, 3, 5, 10, 100])
def test_results_are_in_the_order_of_the_rows(tmp_path: Path, shard_size: int) -> None:
    def work(shard: list[Number]) -> list[Named]:
        return [text_of(row) for row in shard]

    for load in (lambda: work, no_worker):  # the second time from disk
        assert run_shards(ROWS, load, Named, tmp_path, shard_size, "test") == EXPECTED
    assert len(list(tmp_path.iterdir())) == -(-len(ROWS) // shard_size)


def test_after_a_crash_only_what_is_missing_is_done(tmp_path: Path) -> None:
    done: list[int] = []

    def work(shard: list[Number]) -> list[Named]:
        if shard[0]["n"] == 6 and len(done) == 6:
            done.append(-1)
            raise KeyboardInterrupt
        done.extend(row["n"] for row in shard)
        return [text_of(row) for row in shard]

    with pytest.raises(KeyboardInterrupt):
        run_shards(ROWS, lambda: work, Named, tmp_path, 3, "test")
    assert run_shards(ROWS, lambda: work, Named, tmp_path, 3, "test") == EXPECTED
    assert done == [0, 1, 2, 3, 4, 5, -1, 6, 7, 8, 9]


def test_a_half_written_shard_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "shard-00000000-00000005.tmp").write_bytes(b"PAR1 and then the power went")

    def work(shard: list[Number]) -> list[Named]:
        return [text_of(row) for row in shard]

    results = run_shards(ROWS, lambda: work, Named, tmp_path, 5, "test")
    assert results == EXPECTED


def test_a_stage_may_drop_rows_even_all_of_a_shard(tmp_path: Path) -> None:
    def work(shard: list[Number]) -> list[Named]:
        return [text_of(row) for row in shard if row["n"] > 4]

    for _ in range(2):
        assert run_shards(ROWS, lambda: work, Named, tmp_path, 3, "test") == EXPECTED[5:]


def test_no_rows_are_no_shards(tmp_path: Path) -> None:
    assert run_shards([], no_worker, Named, tmp_path, 3, "test") == []


def test_a_damaged_shard_is_done_again(tmp_path: Path, capsys) -> None:
    """Empty, cut short, or with one bit flipped: no damage gives other results than before."""
    done: list[int] = []

    def work(shard: list[Number]) -> list[Named]:
        done.extend(row["n"] for row in shard)
        return [text_of(row) for row in shard]

    run_shards(ROWS, lambda: work, Named, tmp_path, 5, "test")
    shard = tmp_path / "shard-00000005-00000010.parquet"
    whole = shard.read_bytes()
    for damaged in (b"", whole[:40], whole[:-20], whole[:-1] + b"?"):
        shard.write_bytes(damaged)
        done.clear()
        assert run_shards(ROWS, lambda: work, Named, tmp_path, 5, "test") == EXPECTED
        assert done == [5, 6, 7, 8, 9]
        assert f"damaged: {shard}" in capsys.readouterr().out
    noticed = 0
    for at in range(0, len(whole), 5):
        shard.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert run_shards(ROWS, lambda: work, Named, tmp_path, 5, "test") == EXPECTED
        noticed += "damaged" in capsys.readouterr().out
    assert noticed > 50
