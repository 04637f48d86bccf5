"""Shows how far work has come: a bar on a terminal, otherwise a line now and then.

A log file always gets lines, even if the terminal shows a bar. What libraries draw (weights that
are loaded, shards that are written) is shown only with `--verbose`, or with SELM_VERBOSE=1.

Imports no torch.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

VERBOSE = "SELM_VERBOSE"

# A line comes after so many seconds at the earliest, and after so large a share of the work. The
# first one does not wait for the share: it says early how long it will take.
LINE_SECONDS, LINE_SHARE = 30.0, 0.1
NOTE_SECONDS = 2.0

# The switches of huggingface_hub (transformers has no other) and of datasets, read when they are
# imported.
_SWITCHES = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")


def verbose() -> bool:
    """Whether libraries may draw their own bars."""
    return os.environ.get(VERBOSE, "") not in ("", "0")


def hush_libraries(show: bool = False) -> None:
    """Switch off libraries' bars, in this process and those that it starts.

    Call it before the libraries are imported. What the environment already says about a library
    stays.

    Args:
        show: `--verbose` was given.
    """
    if show:
        os.environ[VERBOSE] = "1"
    if not verbose():
        for name in _SWITCHES:
            os.environ.setdefault(name, "1")


class _Places:
    """Where progress is shown.

    Attributes:
        screen: the terminal behind a copied stderr (`copied`), if there is one.
        log: the file that gets the copies.
        note: the file that says how far the work is (`noted`).
        bars: those that are open; only the first one is noted.
    """

    screen: TextIO | None = None
    log: Path | None = None
    note: Path | None = None
    bars: list["Bar"]

    def __init__(self) -> None:
        self.bars = []


_places = _Places()


def copied(log: Path, stderr: int) -> None:
    """From now on stderr is copied to a log, so its descriptor is no terminal any more.

    Args:
        stderr: a descriptor of what stderr was before.
    """
    uncopied()
    _places.log, _places.note = log, note_of(log)
    if os.isatty(stderr):
        _places.screen = os.fdopen(os.dup(stderr), "w", encoding="utf-8")


def uncopied() -> None:
    """The log of `copied` has ended."""
    if _places.note is not None:
        _places.note.unlink(missing_ok=True)
    if _places.screen is not None:
        _places.screen.close()
    _places.screen = _places.log = _places.note = None


def note_of(log: Path) -> Path:
    """The file that says how far the stage of a log is: `logs/.iter-1-train.json`."""
    return log.with_name(f".{log.stem.rpartition('.')[0]}.json")


def noted(log: Path) -> dict[str, object] | None:
    """What the bar of a running stage shows now; None if there is none.

    Keys: `what`, `unit`, `done`, `total`, `began_with` (what an earlier attempt had done) and
    `seconds` (since this attempt began).
    """
    with suppress(OSError, ValueError):
        found = json.loads(note_of(log).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else None
    return None


def say(line: str, file: TextIO | None = None) -> None:
    """Print a line (to stdout, if no file is given), on a terminal above the bars."""
    screen = _screen()
    if screen is None:
        print(line, file=file or sys.stdout, flush=True)
        return
    tqdm.write(line, file=screen)
    _append(line)


def each(items: Iterable[Item], total: int, what: str, unit: str, **how: bool) -> Iterator[Item]:
    """The items, with a bar; for the arguments see `Bar`."""
    with Bar(total, what, unit, **how) as bar:
        for item in items:
            yield item
            bar.update()


class Bar:
    """How far some work is. Processes beside the main one of a launch show nothing.

    Args:
        total: how many units there are.
        what: its name.
        unit: one of what is counted, such as `row`.
        done: units that an earlier attempt has done.
        inner: it is a part of other work: it leaves nothing on the terminal, and a line only if
            it takes long.
        hidden: show nothing.
    """

    def __init__(
        self,
        total: int,
        what: str,
        unit: str,
        done: int = 0,
        inner: bool = False,
        hidden: bool = False,
    ) -> None:
        self.total, self.what, self.unit, self.inner = total, what, unit, inner
        self.began_with = self.done = self._done_at_line = done
        self.began = self._line_at = time.monotonic()
        self._noted_at = -NOTE_SECONDS
        self.facts: Mapping[str, float] = {}
        self.hidden = hidden or os.environ.get("RANK", "0") != "0"
        self._drawn = None if self.hidden else self._draw(_screen())
        _places.bars.append(self)
        if done:
            self._line(f"{self._count()}, resumed")
            if self._drawn is not None:
                self._drawn.set_postfix_str("resumed")
        self._note()

    def _draw(self, screen: TextIO | None) -> Any:
        if screen is None:
            return None
        how: dict[str, Any] = {"leave": not self.inner, "file": screen, "dynamic_ncols": True}
        return tqdm(total=self.total, initial=self.done, desc=self.what, unit=self.unit, **how)

    def update(self, number: int = 1) -> None:
        """So many units more are done."""
        self.done += number
        if self._drawn is not None:
            self._drawn.update(number)
        now = time.monotonic()
        first = self._done_at_line == self.began_with
        enough = self.done - self._done_at_line >= LINE_SHARE * self.total
        if self.done < self.total and now - self._line_at >= LINE_SECONDS and (first or enough):
            self._line(self._text(now))
        if now - self._noted_at >= NOTE_SECONDS:
            self._note()

    def show(self, facts: Mapping[str, float]) -> None:
        """Numbers to stand beside the count, such as the loss."""
        self.facts = facts
        if self._drawn is not None:
            self._drawn.set_postfix({name: f"{value:.4f}" for name, value in facts.items()})

    def close(self, done: bool = True) -> None:
        """The work has ended; with a line if it is done."""
        if self not in _places.bars:
            return
        if done and not self.inner:
            self._line(self._text(time.monotonic()))
        if self._drawn is not None:
            self._drawn.close()
        _places.bars.remove(self)
        if not _places.bars and _places.note is not None:
            _places.note.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close(done=kind is None)

    def _count(self) -> str:
        return f"{self.done:,}/{self.total:,} {plural(self.unit)}"

    def _text(self, now: float) -> str:
        """`40/120 rows (33%), 1.5 rows/s, 0:53 left`"""
        here, seconds = self.done - self.began_with, now - self.began
        said = [f"{self._count()} ({self.done / max(self.total, 1):.0%})"]
        if here and seconds > 0:
            said.append(speed(here / seconds, self.unit))
            left = (self.total - self.done) * seconds / here
            said.append(f"{clock(left)} left" if self.done < self.total else clock(seconds))
        said += [f"{name} {value:.4f}" for name, value in self.facts.items()]
        return ", ".join(said)

    def _line(self, text: str) -> None:
        self._line_at, self._done_at_line = time.monotonic(), self.done
        if self.hidden:
            return
        if self._drawn is not None:
            _append(f"{self.what}: {text}")
        else:
            print(f"{self.what}: {text}", file=sys.stderr, flush=True)

    def _note(self) -> None:
        """Write down how far it is, for those who look at a running stage from outside."""
        if _places.note is None or self.hidden or _places.bars[0] is not self:
            return
        self._noted_at = time.monotonic()
        keys = ("what", "unit", "done", "total", "began_with")
        found = {key: getattr(self, key) for key in keys}
        found["seconds"] = round(self._noted_at - self.began, 1)
        new = _places.note.with_suffix(".tmp")
        new.write_text(json.dumps(found), encoding="utf-8")
        os.replace(new, _places.note)


def speed(per_second: float, unit: str) -> str:
    """
    >>> speed(1.53, "row"), speed(0.05, "step")
    ('1.53 rows/s', '20 s/step')
    """
    if per_second < 1:
        return f"{_digits(1 / per_second)} s/{unit}"
    return f"{_digits(per_second)} {plural(unit)}/s"


def plural(unit: str) -> str:
    """
    >>> plural("row"), plural("batch"), plural("reply")
    ('rows', 'batches', 'replies')
    """
    if unit.endswith("y"):
        return unit.removesuffix("y") + "ies"
    return unit + ("es" if unit.endswith("ch") else "s")


def _digits(number: float) -> str:
    return f"{number:.3g}" if number < 100 else f"{number:,.0f}"


def clock(seconds: float) -> str:
    """
    >>> clock(53.4), clock(4000)
    ('00:53', '1:06:40')
    """
    return str(tqdm.format_interval(seconds))


def _screen() -> TextIO | None:
    if _places.log is not None:
        return _places.screen
    return sys.stderr if sys.stderr.isatty() else None


def _append(line: str) -> None:
    if _places.log is not None:
        with _places.log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(line + "\n")
