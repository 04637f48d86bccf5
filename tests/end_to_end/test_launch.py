"""scripts/launch.slurm on two "nodes" of this machine, with stand-ins for Slurm's own commands."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from patience import PATIENCE

from selm.run import artifacts
from selm.run.stages import stages

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]

# One local process per node; a signal goes to all of them, the worst exit code comes back.
SRUN = f"""#!{sys.executable}
import os, signal, subprocess, sys
words = sys.argv[1:]
while words[0].startswith("--"):
    words.pop(0)
with open(os.environ["SRUN_LOG"], "a") as log:
    print(*words, file=log)
tasks = [
    subprocess.Popen(words, env=os.environ | {{"SLURM_NODEID": str(n)}})
    for n in range(int(os.environ["SLURM_NNODES"]))
]
signal.signal(signal.SIGTERM, lambda *_: [task.terminate() for task in tasks])
sys.exit(max(abs(task.wait()) for task in tasks))
"""
SCONTROL = """#!/usr/bin/env bash
case $1 in
  show) printf '127.0.0.1\\n127.0.0.1\\n' ;;
  requeue) echo "$2" >>"$SRUN_LOG.requeued" ;;
esac
"""


@pytest.fixture
def job(project, tmp_path: Path):
    """Starts the job: one iteration of eight rows, generated slowly enough to be interrupted."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    small = project.with_overrides(
        "iterations=[{objective: selm, learning_rate: 0.001}]",
        "data.limit=8",
        "evaluation.limit=2",
        "generation={engine: transformers, max_tokens: 150, shard_size: 1, workers: 2}",
        "training.accelerate_config=accelerate_configs/ddp.yaml",
        "training.num_processes=2",
    )
    environment = small.all_environment()
    environment |= {
        "PATH": f"{tmp_path}:{environment['PATH']}",
        "SRUN_LOG": str(tmp_path / "srun.log"),
        "SLURM_SUBMIT_DIR": str(REPOSITORY),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "local[1-2]",
        "SLURM_NNODES": "2",
        "SLURM_CPUS_ON_NODE": "1",
    }

    def start(name: str) -> subprocess.Popen[str]:
        with (tmp_path / name).open("w") as log:
            command = ["bash", "scripts/launch.slurm", *small.words]
            return subprocess.Popen(
                command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log
            )

    return small, start


def test_a_requeued_job_goes_on_where_it_was(job, tmp_path: Path) -> None:
    """Told in the middle of generation that its time is up, and started again by Slurm."""
    project, start = job
    base = project.folder / "iter-0" / "evaluation" / "manifest.json"
    partial = project.folder / "iter-1" / ".responses.partial"
    first = start("first")
    while len(list(partial.glob("shard-*.parquet"))) < 2:
        assert first.poll() is None, (tmp_path / "first").read_text(encoding="utf-8")
        time.sleep(0.01)
    first.send_signal(signal.SIGUSR1)
    assert first.wait(timeout=PATIENCE) == 0
    assert (tmp_path / "srun.log.requeued").read_text(encoding="utf-8") == f"{os.getpid()}\n"
    assert not Path(f"/tmp/selm-ray-{os.getpid()}").exists(), "Ray was not stopped"
    kept = [path.stat().st_ino for path in (base, *sorted(partial.glob("shard-*.parquet")))]
    assert 3 <= len(kept) < 9

    again = start("again")
    assert again.wait(timeout=PATIENCE) == 0, (tmp_path / "again").read_text(encoding="utf-8")
    said = (tmp_path / "again").read_text(encoding="utf-8")
    assert f"{base.parent}: already done" in said
    assert re.search(r"generating: .*resumed", said)
    assert base.stat().st_ino == kept[0]
    for kind, t in stages(project.recipe):
        assert artifacts.state(project.recipe, kind, t).current, (kind, t)
    assert not Path(f"/tmp/selm-ray-{os.getpid()}").exists()
    on_nodes = (tmp_path / "srun.log").read_text(encoding="utf-8").splitlines()
    assert sum(" accelerate launch --config_file" in line for line in on_nodes) == 1
    assert sum(line.endswith("launch_node.sh ray") for line in on_nodes) == 2
