"""For a stage that is stopped or cannot write: a line says why, what is kept, how to continue."""

import errno
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from selm.errors import OutsideError, UserError
from selm.run.stages import describe

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}

_FULL = {errno.ENOSPC, errno.EDQUOT}
# What libraries that write files themselves say, in lower case.
_FULL_SAYINGS = (
    "no space left on device",
    "disk quota exceeded",
    "os error 28",  # safetensors and others in Rust
    "os error 122",
)
# torch reports missing bytes instead of a full disk.
_TORCH_SAYINGS = (
    "unexpected pos",
    "pytorchstreamwriter failed",
    "enforce fail at inline_container",
)

_CANNOT_WRITE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
    *(errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.EIO, errno.ESTALE, errno.EINVAL),
}


class Stopped(BaseException):
    """A signal asked this process to end. Like KeyboardInterrupt, only run_main catches it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass
class Work:
    """The work of this process, for the line that says what is kept of it.

    Attributes:
        folder: of the artifact.
        partial: of the unfinished work.
        again: the command.
        verdicts: the folder in which judges keep them; `earlier` are the logs that are there when
            the work begins, and each process that asks a judge begins a new one.
    """

    output_dir: Path | None = None
    stage: str = ""
    folder: Path | None = None
    partial: Path | None = None
    again: str = ""
    verdicts: Path | None = None
    earlier: set[Path] = field(init=False)

    def __post_init__(self) -> None:
        self.earlier = self.logs()

    def logs(self) -> set[Path]:
        """The logs of verdicts."""
        return set(self.verdicts.glob("*.jsonl")) if self.verdicts is not None else set()


work = Work()


def kept() -> str:
    """
    >>> kept()  # of 12 shards of responses, 3 of them written
    '3 finished shards are kept in runs/a/iter-1/.responses.partial; continue with: python ...'
    """
    if work.folder is None or work.partial is None:
        return "no work was started, so nothing is lost; repeat the command"
    if (work.folder / "manifest.json").is_file() and not work.partial.exists():
        said = f"{work.folder} is complete"
    else:
        said = _KEPT[describe(work.stage).keeps](work.partial)
    return f"{said}; continue with: {work.again}"


def _shards(partial: Path) -> str:
    count = len(list(partial.glob("shard-*.parquet")))
    said = "no shard was finished yet"
    if count:
        said = f"{count} finished shard{'s are' if count > 1 else ' is'} kept in {partial}"
    if work.logs() > work.earlier:
        said += f", and all verdicts are kept in {work.verdicts}"
    return said


def _saves(partial: Path) -> str:
    saves = list(partial.glob("steps/checkpoint-*/trainer_state.json"))
    if not saves:
        return "no step was saved yet (training.save_steps)"
    last = max(saves, key=lambda path: int(path.parent.name.partition("-")[2]))
    return f"the save {last.parent} is kept"


_KEPT: dict[str, Callable[[Path], str]] = {
    "shards": _shards,
    "saves": _saves,
    "nothing": lambda partial: "it is made again in seconds",
}


@contextmanager
def listening(main: bool) -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP raise `Stopped`; processes beside the main one end silently.

    Ignored signals (nohup) stay ignored.
    """
    before = {number: signal.getsignal(number) for number in _NAMES}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _raise if main else signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def listen_again() -> None:
    """Call this after importing a library that installs its own handler of SIGTERM."""
    if signal.getsignal(signal.SIGINT) is _raise:
        signal.signal(signal.SIGTERM, _raise)


def _raise(number: int, frame: FrameType | None) -> None:
    """Raise only once: a launcher repeats the terminal's signal. A second Ctrl-C later ends us."""
    first = time.monotonic()

    def again(number: int, frame: Any) -> None:
        if number == signal.SIGINT and time.monotonic() - first > 1:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for each in _NAMES:
        signal.signal(each, again)
    raise Stopped(number)


# A process that is forked off (by a reward file's Pool, say) dies of a signal, and at once. Our
# handlers are not for it: it would wake up instead, and whoever waits for its end would wait for
# ever. Signals are held back meanwhile, for Python forgets those that come before it has put a
# forked process in order.
_of_thread = threading.local()


def _hold_signals() -> None:
    _of_thread.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _NAMES)


def _let_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _of_thread.mask)


def _forget_handlers() -> None:
    for number in _NAMES:
        if getattr(signal.getsignal(number), "__module__", None) == __name__:
            signal.signal(number, signal.SIG_DFL)
    _let_signals()


os.register_at_fork(
    before=_hold_signals, after_in_parent=_let_signals, after_in_child=_forget_handlers
)


def line(error: Stopped) -> str:
    """The line about a stop; the exit code is 128 + the signal's number, as in a shell."""
    return f"stopped by {_NAMES[signal.Signals(error.number)]}: {kept()}"


def cannot_write(error: BaseException) -> UserError | OutsideError | None:
    """The error with one line for a full disk or an output folder that cannot be written."""
    for each in _chain(error):
        if _is_full(each):
            return OutsideError(f"disk full: {_where(each)}; {kept()} when there is space")
        if isinstance(each, OSError) and each.errno in _CANNOT_WRITE and _is_output(each):
            reason = f"{each.filename2 or each.filename}: {each.strerror}"
            return UserError(
                f"output_dir: {work.output_dir} cannot be written ({reason}); "
                f"set output_dir to a folder that can be written. {kept()}"
            )
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    if isinstance(error, UserError | OutsideError):
        return False  # these already have their own text
    sayings = _FULL_SAYINGS + (_TORCH_SAYINGS if isinstance(error, RuntimeError) else ())
    return any(saying in str(error).lower() for saying in sayings)


def _where(error: BaseException) -> str:
    """The file that did not fit, or the disk with the least free space that a stage writes to."""
    if isinstance(error, OSError) and error.filename:
        return f"no space for {error.filename}"
    places = [Path(tempfile.gettempdir()), *([work.output_dir] if work.output_dir else [])]
    free = {place: shutil.disk_usage(place).free for place in places if place.is_dir()}
    place = min(free, key=lambda place: free[place])
    return f"{free[place] / 1e6:,.0f} MB are free in {place}"


def _is_output(error: OSError) -> bool:
    """Whether the error is about a path in the output folder or in one of its parents."""
    if work.output_dir is None:
        return False
    output = Path(os.path.abspath(work.output_dir))
    names = [name for name in (error.filename, error.filename2) if isinstance(name, str)]
    paths = [Path(os.path.abspath(name)) for name in names]
    return any(path.is_relative_to(output) or output.is_relative_to(path) for path in paths)
