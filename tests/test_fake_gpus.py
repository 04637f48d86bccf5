"""Workers on a Ray cluster that believes it has eight GPUs: who gets which of them."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

IDS = "01234567"

# Ray reads its settings when it is imported. A worker waits in its shard until all have one, or a
# fast one would do the shards of those that still load.
SCRIPT = """
import json, os, sys, time
from pathlib import Path
from typing import TypedDict

folder, gpus, num_workers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

class Row(TypedDict):
    n: int
    pid: int
    gpus: str

def load():
    def work(rows):
        (folder / f"at-work-{os.getpid()}").touch()
        until = time.monotonic() + 60
        while len(list(folder.glob("at-work-*"))) < num_workers and time.monotonic() < until:
            time.sleep(0.02)
        mine = {"pid": os.getpid(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "")}
        return [row | mine for row in rows]
    return work

if __name__ == "__main__":
    from ray.cluster_utils import Cluster
    from selm.run.shards import run_shards
    from selm.run.workers import Workers

    head = {"num_gpus": 8, "num_cpus": 8, "include_dashboard": False}
    memory = {"object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=head | memory)
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        workers = Workers("auto", gpus)
        rows = [{"n": n, "pid": 0, "gpus": ""} for n in range(20)]
        done = run_shards(rows, load, Row, folder / "shards", "auto", "test", workers)
        print(json.dumps([workers.count(), workers.on_gpus(), done]))
    finally:
        cluster.shutdown()
"""


def test_every_worker_has_gpus_of_its_own(tmp_path: Path) -> None:
    """Eight, two for each worker of an engine that is tensor-parallel over two."""
    gpus, wanted = 2, 4
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    fake = {"CUDA_VISIBLE_DEVICES": ",".join(IDS), "RAY_USAGE_STATS_ENABLED": "0"}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    environment = {name: text for name, text in os.environ.items() if name != "RAY_ADDRESS"}
    # Ray's own files; the names of its sockets have to be short.
    with tempfile.TemporaryDirectory(prefix="gpus-", dir="/tmp") as ray_files:
        done = subprocess.run(
            [sys.executable, script, tmp_path, str(gpus), str(wanted)],
            env=environment | token | fake | {"TMPDIR": ray_files},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    count, on_gpus, rows = json.loads(done.stdout.splitlines()[-1])
    assert count == wanted
    assert on_gpus
    assert [row["n"] for row in rows] == list(range(20))
    of_worker = {row["pid"]: row["gpus"].split(",") for row in rows}
    assert len(of_worker) == wanted
    assert {len(ids) for ids in of_worker.values()} == {gpus}
    assert sorted(id for ids in of_worker.values() for id in ids) == list(IDS)
