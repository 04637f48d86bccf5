"""Several workers for the shards of a stage: Ray actors, on this machine or on a cluster.

A free worker takes the next shard, so none waits for another. If a worker dies, a new one is
started, and its shard goes to the next free worker.

`RAY_ADDRESS` joins a running cluster, whose machines see this folder under the same path. Without
it Ray is started here, only for this stage. With one worker Ray is not imported.
"""

import os
import platform
import secrets
import socket
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from selm import progress
from selm.errors import OutsideError, UserError
from selm.memory import is_lack
from selm.run import stopped, temporary

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

In = TypeVar("In")  # a row that a stage works on
Out = TypeVar("Out")  # a row that it makes
Work = Callable[[list[In]], list[Out]]
Load = Callable[[], Work[In, Out]]

ATTEMPTS = 3  # deaths on one shard, or of one worker while it loads, before the stage gives up

# Driver and workers exchange a few megabytes of rows; Ray would take a third of the memory.
_OBJECT_STORE_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Workers:
    """How many workers a recipe asks for.

    Attributes:
        wanted: a number, or "auto": all GPUs / gpus; 1 without a GPU.
        gpus: GPUs of each worker, if there are any.
        key: the recipe's key for the number, for errors.
    """

    wanted: int | str = 1
    gpus: int = 1
    key: str = "workers"

    def count(self) -> int:
        """The number; "auto" counts the GPUs of the cluster, or of this machine without one."""
        if isinstance(self.wanted, int):
            return self.wanted
        return max(1, self._gpus_there // self.gpus)

    def on_gpus(self) -> bool:
        """Whether the cluster, or this machine without one, has GPUs for them."""
        return self._gpus_there > 0

    @cached_property  # to join a cluster takes seconds
    def _gpus_there(self) -> int:
        if os.environ.get("RAY_ADDRESS"):
            with _ray(self.key, 1) as cluster:
                return int(cluster.get("GPU", 0))
        import torch

        return torch.cuda.device_count()


def spread(
    shards: Mapping[range, list[In]],
    load: Load[In, Out],
    workers: Workers,
    count: int,
    folder: Path,
) -> Iterator[tuple[range, list[Out]]]:
    """The results of all shards, each as soon as it is done.

    Args:
        shards: range of row numbers -> the rows.
        load: makes a worker; see `run_shards`.
        count: of workers.
        folder: where workers write what they print, `worker-<n>.log`.

    Raises:
        UserError: Ray is missing; too few GPUs; or what a worker raised.
        OutsideError: `ATTEMPTS` workers died of one shard, or while loading.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _ray(workers.key, count) as cluster:
        reserved = _reserved(workers, count, cluster)
        yield from _Team(load, count, reserved, folder.resolve()).results(shards)


def _reserved(workers: Workers, count: int, cluster: Mapping[str, float]) -> dict[str, Any]:
    """The resources of each worker. On CPUs: its share of the cores, as that many threads.

    >>> _reserved(Workers("auto", gpus=2), 4, {"CPU": 64, "GPU": 8})
    {'num_cpus': 1, 'num_gpus': 2}
    """
    gpus = int(cluster.get("GPU", 0))
    if not gpus:
        return {"num_cpus": max(1, int(cluster["CPU"]) // count), "scheduling_strategy": "SPREAD"}
    if count * workers.gpus > gpus:
        raise UserError(
            f"{workers.key}: {count} workers x {workers.gpus} GPUs are more than the {gpus} GPUs "
            f"available; use auto, or at most {gpus // workers.gpus}"
        )
    return {"num_cpus": 1, "num_gpus": workers.gpus}


class _Team(Generic[In, Out]):
    """The workers of one stage and their present work."""

    def __init__(
        self, load: Load[In, Out], count: int, reserved: dict[str, Any], folder: Path
    ) -> None:
        self.load, self.reserved, self.folder = load, reserved, folder
        self.deaths: Counter[str] = Counter()
        self.free: list[tuple[int, ActorHandle[Any]]] = []
        # Awaited result -> a worker's number, the worker, its shard (None: it is loading).
        self.busy: dict[ObjectRef[Any], tuple[int, ActorHandle[Any], range | None]] = {}
        for n in range(count):
            self._start(n)

    def results(self, shards: Mapping[range, list[In]]) -> Iterator[tuple[range, list[Out]]]:
        """See `spread`."""
        import ray

        waiting, missing = deque(shards), set(shards)
        while missing:
            while waiting and self.free:
                n, worker = self.free.pop()
                span = waiting.popleft()
                self.busy[worker.work.remote(shards[span])] = (n, worker, span)
            done = ray.wait(list(self.busy))[0][0]
            n, worker, at = self.busy.pop(done)
            try:
                rows = ray.get(done)
            except ray.exceptions.RayActorError as error:
                self._replace(n, at, error)
                waiting.extendleft([] if at is None else [at])
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, UserError | OutsideError) or is_lack(error.cause):
                    raise error.cause from error
                raise
            else:
                self.free.append((n, worker))
                if at is not None:
                    missing.remove(at)
                    yield at, rows

    def _start(self, n: int) -> None:
        """Start a worker; it gets no shard before it has loaded, which may have to wait."""
        import ray

        made = ray.remote(_Worker).options(**self.reserved)
        worker = made.remote(self.load, os.getcwd(), self.folder / f"worker-{n}.log")
        self.busy[worker.loaded.remote()] = (n, worker, None)

    def _replace(self, n: int, at: range | None, error: Exception) -> None:
        """Start worker n again, unless too many have died for the same reason."""
        what = f"loading worker {n}" if at is None else f"rows {at.start}..{at.stop - 1}"
        reason = " ".join(str(error).split())[:400]
        self.deaths[what] += 1
        if self.deaths[what] == ATTEMPTS:
            raise OutsideError(
                f"{what}: {ATTEMPTS} worker processes died of it, perhaps because memory ran out; "
                f"their output is in {self.folder}/worker-*.log; finished shards are kept, repeat "
                f"the command to continue. Ray says: {reason}"
            ) from error
        progress.say(f"{what}: the worker process died; a new one is started", sys.stderr)
        self._start(n)


class _Worker(Generic[In, Out]):
    """A worker in its own process, on any machine of the cluster."""

    def __init__(self, load: Load[In, Out], folder: str, log: Path) -> None:
        os.chdir(folder)  # the recipe's paths are relative to where the stage was started
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        print(f"process {os.getpid()} on {platform.node()}", flush=True)
        self._load = cache(load)

    def loaded(self) -> None:
        self._load()

    def work(self, shard: list[In]) -> list[Out]:
        return self._load()(shard)


@contextmanager
def _ray(key: str, count: int) -> Iterator[dict[str, float]]:
    """The resources of the cluster at RAY_ADDRESS, or of one that is started here."""
    address = os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not address:
        # Ray would kill our workers because of other processes' memory on this machine.
        os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
        # A token keeps other users out; Ray's own would stay in the home folder. Like the others
        # it is read when Ray is imported.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
    except ImportError as error:
        raise UserError(
            f"{key}: {count} workers need Ray, which is not installed here; "
            f"pip install 'ray>=2.60,<3', or set {key}=1"
        ) from error
    # Not in TMPDIR: the names of Ray's sockets have to be short.
    place = os.environ.get("RAY_TMPDIR", "/tmp")
    with nullcontext("") if address else temporary.folder(place) as folder:
        if address:
            _join(address)
        else:
            _start_here(count, folder)
        stopped.listen_again()
        try:
            yield ray.cluster_resources()
        finally:
            ray.shutdown()


def _join(address: str) -> None:
    import ray

    host, _, port = address.rpartition(":")
    try:  # Ray itself would try for many minutes
        socket.create_connection((host, int(port)), timeout=30).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"RAY_ADDRESS: no Ray cluster answers at {address} ({error}); "
            "start one there (ray start --head), or unset it"
        ) from error
    ray.init(logging_level="ERROR", log_to_driver=False)


def _start_here(count: int, folder: str) -> None:
    import ray

    ray.init(
        num_cpus=max(len(os.sched_getaffinity(0)), count),
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        logging_level="ERROR",
        log_to_driver=False,
        _temp_dir=folder,
    )
