"""`scripts/run.sh --sweep` killed in the middle, on to the comparison, and again."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE

from selm.run import artifacts, sweep
from selm.run.stages import name, stages

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
ONE_ITERATION = "iterations=[{objective: selm, learning_rate: 1e-3}]"
SHARED = ("iter-0/answers", "iter-0/evaluation", "iter-1/responses", "iter-1/preferences")
OWN = ("iter-1/checkpoint", "iter-1/answers", "iter-1/evaluation")


class SweepOf:
    """The commands of a sweep of 2 alphas x 2 seeds with a limit on the data."""

    def __init__(self, project) -> None:
        self.folder = project.output_dir
        values = ["training.alpha=0.01,0.5", "seed=1,2"]
        self.words = [*project.words, ONE_ITERATION, "data.limit=8", *values]
        self.environment = project.all_environment()

    def command(self, *options: str) -> list[str]:
        return ["bash", "scripts/run.sh", "--sweep", *self.words, *options]

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*options),
            cwd=REPOSITORY,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def killed(self, when: Path) -> None:
        """`kill -9` of run.sh and all it started, as soon as there is something at this path."""
        process = subprocess.Popen(
            self.command(),
            cwd=REPOSITORY,
            env=self.environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started = time.monotonic()
        while not when.exists():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() - started < PATIENCE
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

    def members(self) -> list[sweep.Member]:
        return list(sweep.of(self.words).members)


def inodes(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_ino for p in folder.rglob("*") if p.is_file()}


def written(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every file of artifacts; logs and lists of hashes do not count."""
    found = {}
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and "logs" not in parts and not any(p.startswith(".") for p in parts):
            found["/".join(parts)] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found


def without(files: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {file: found for file, found in files.items() if not file.startswith(prefix)}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_sweep_is_killed_goes_on_and_ends_in_a_comparison(project) -> None:
    """What was finished at the kill is not made again, and what is shared is on the disk once."""
    runs = SweepOf(project)
    folder = runs.folder
    alpha, other_alpha, *of_seed_2 = [member.name for member in runs.members()]
    assert alpha == "tiny-alpha0.01-seed1"
    runs.killed(folder / other_alpha / "iter-1" / "checkpoint")
    before = written(folder)
    assert f"{alpha}/report/report.md" in before
    assert not (folder / of_seed_2[0]).exists()

    done = runs.run()
    assert done.returncode == 0, done.stderr
    assert "# sharing: 8 of 28 artifacts are made by an earlier run" in done.stdout
    assert f"{folder / alpha}: already done, 8 stages" in done.stdout
    after = written(folder)
    lists = {"sweep.json", "sweep.sh"}
    kept = {file: before[file] for file in before.keys() - lists if file in after}
    assert kept == {file: after[file] for file in kept}, "something finished was made again"
    assert before.keys() - lists - after.keys() == set()

    for member in runs.members():
        recipe = member.run.recipe
        for entry in stages(recipe):
            assert artifacts.state(recipe, *entry).current, (member.name, name(*entry))
    for one, other in ((alpha, other_alpha), of_seed_2):
        for stage in SHARED:
            assert inodes(folder / one / stage) == inodes(folder / other / stage)
        for stage in OWN:
            manifests = [folder / run / stage / "manifest.json" for run in (one, other)]
            assert manifests[0].stat().st_ino != manifests[1].stat().st_ino
    assert (folder / "compare" / "report.md").is_file()
    assert (folder / "compare" / "compare.json").is_file()

    compared = contents(folder / "compare")
    again = runs.run()
    assert again.returncode == 0, again.stderr
    assert without(written(folder), "compare/") == without(after, "compare/")
    assert contents(folder / "compare") == compared
    for member in runs.members():
        assert f"{folder / member.name}: already done, 8 stages" in again.stdout
    assert str(folder / "compare") in again.stdout.splitlines()[-1]

    chosen = subprocess.run(
        ["python", "scripts/sweep.py", "--select", *runs.words],
        cwd=REPOSITORY,
        env=runs.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert chosen.returncode == 0, chosen.stderr
    best, following, conclusion, *_ = chosen.stdout.splitlines()
    assert best.startswith("best: alpha ")
    assert following.startswith("next: alpha ")
    assert conclusion.startswith("The runner-up is ")


def test_parts_for_an_array_of_jobs(project) -> None:
    """First what is shared, then one job per run: what is shared is linked, not made again."""
    runs = SweepOf(project)
    runs.words = [word.replace("seed=1,2", "seed=1") for word in runs.words]
    folder = runs.folder
    one, other = [member.name for member in runs.members()]
    shared = runs.run("--only", "shared")
    assert shared.returncode == 0, shared.stderr
    assert not (folder / one / "iter-1/checkpoint").exists()
    assert not (folder / other).exists()
    before = written(folder / one)

    second = runs.run("--only", "2")
    assert second.returncode == 0, second.stderr
    assert f"{folder / other}: shared with {one}: {', '.join(SHARED)}" in second.stdout
    assert (folder / other / "report" / "report.md").is_file()
    assert {f: t for f, t in written(folder / one).items() if f in before} == before
    assert not (folder / "compare").exists()
