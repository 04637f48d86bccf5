"""What all stage scripts share: arguments, exit codes, and one log file per attempt."""

import argparse
import io
import locale
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TextIO

from selm import home, memory, progress
from selm.data.drops import in_words
from selm.errors import OutsideError, SharedError, UserError
from selm.escape import one_line
from selm.evaluation.kinds import BENCHMARKS
from selm.files import write_text
from selm.recipe.loading import as_yaml, load_recipe
from selm.recipe.names import not_one_of
from selm.recipe.schema import Recipe
from selm.recipe.secrets import hide
from selm.run import artifacts, parents, stopped, temporary, writing
from selm.run.alone import lock
from selm.run.logs import log_to
from selm.run.plan import Run, command
from selm.run.stages import label, stages

# Telemetry of the libraries is off, so that a run without hub.push sends no requests.
os.environ.setdefault("DO_NOT_TRACK", "1")
# Imported on a CPU, bitsandbytes would warn that it cannot fetch a kernel from the Hub. No stage
# computes with 4-bit weights there.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
# tiktoken would leave copies of the tokenizers' files in /tmp.
os.environ.setdefault("TIKTOKEN_CACHE_DIR", "")
# Figures are files. A notebook hands the backend of its own Python on to the commands in its cells,
# and where that package is missing, matplotlib cannot even be imported.
os.environ["MPLBACKEND"] = "Agg"

GIVE_WAY_SECONDS = 10.0  # longer than the main process needs to print its line


class _Parser(argparse.ArgumentParser):
    """A parser whose errors repeat what was typed, but without secrets."""

    def error(self, message: str) -> NoReturn:
        super().error(hide(message))


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser for `RECIPE [key=value ...]`; the script's docstring is its help."""
    made = _Parser(
        prog=home.program(),
        description=home.named(doc or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("recipe", help="a YAML file, e.g. recipes/smollm2-135m-instruct/selm.yaml")
    made.add_argument(
        "overrides", nargs="*", metavar="key=value", help="e.g. training.alpha=0.005 seed=7"
    )
    made.add_argument(
        "-v", "--verbose", action="store_true", help="libraries' bars, too (SELM_VERBOSE=1)"
    )
    return made


def parse_run(doc: str | None) -> Run:
    """Arguments of a script for the whole run."""
    arguments = parser(doc).parse_intermixed_args()
    return _run(arguments)


def parse_report(doc: str | None) -> tuple[Run, bool]:
    """Arguments of the report: the run, and --so-far."""
    made = parser(doc)
    made.add_argument(
        "--so-far", action="store_true", help="of the iterations that are evaluated by now"
    )
    arguments = made.parse_intermixed_args()
    return _run(arguments), arguments.so_far


def parse_check(doc: str | None) -> tuple[Run, bool]:
    """Arguments of the preflight: the run, and --quick."""
    made = parser(doc)
    made.add_argument("--quick", action="store_true", help="only the checks that take seconds")
    arguments = made.parse_intermixed_args()
    return _run(arguments), arguments.quick


def parse_plan(doc: str | None) -> tuple[Run, argparse.Namespace]:
    """Arguments of the plan: the run, and the options `benchmarks`, `remaining`, `keep`."""
    made = parser(doc)
    made.add_argument("--benchmarks", action="store_true", help="the benchmarks instead of the run")
    made.add_argument("--remaining", action="store_true", help="leave out finished stages")
    made.add_argument("--keep", action="store_true", help="write the plan to the run's folder too")
    arguments = made.parse_intermixed_args()
    return _run(arguments), arguments


def parse_iteration(doc: str | None, first: int = 1) -> tuple[Run, int]:
    """Arguments of a stage of one iteration; `first` is 0 if the base model counts too."""
    run, t, _ = _iteration(parser(doc), first)
    return run, t


def parse_generate(doc: str | None) -> tuple[Run, int, str]:
    """Arguments of the responses: the run, the iteration, and the stage that --policy means."""
    made = parser(doc)
    made.add_argument(
        "--policy", choices=["current", "initial"], default="current", help="who answers"
    )
    run, t, arguments = _iteration(made, first=1)
    stage = "initial_responses" if arguments.policy == "initial" else "responses"
    if stage == "initial_responses" and (stage, t) not in stages(run.recipe):
        raise UserError(
            f"--policy initial: iteration {t} does not read them; training.optimism=xpo does in "
            "selm's iterations after the first"
        )
    return run, t, stage


def parse_answer(doc: str | None) -> tuple[Run, int, str | None]:
    """Arguments of the answers: the run, the iteration, and the benchmark if one is named."""
    made = parser(doc)
    made.add_argument(
        "--benchmark", metavar="NAME", help="answer its questions, not the held-out prompts"
    )
    run, t, arguments = _iteration(made, first=0)
    named = arguments.benchmark
    return run, t, None if named is None else _benchmarks(named, run.recipe)[0]


def parse_benchmark(doc: str | None) -> tuple[Run, int, list[str]]:
    """Arguments of the benchmarks: the run, the iteration, the names."""
    made = parser(doc)
    made.add_argument(
        "--benchmark", metavar="NAME[,NAME]", help="the default is all that the recipe names"
    )
    run, t, arguments = _iteration(made, first=0)
    if arguments.benchmark is not None:
        return run, t, _benchmarks(arguments.benchmark, run.recipe)
    if not run.recipe.benchmarks.names:
        raise UserError(f"benchmarks.names: {run.path} names none; name one: --benchmark NAME")
    return run, t, list(run.recipe.benchmarks.names)


def _benchmarks(text: str, recipe: Recipe) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in BENCHMARKS:
            raise UserError(not_one_of("--benchmark", name, list(BENCHMARKS)))
        BENCHMARKS[name].check(recipe)
    return names


def _iteration(made: argparse.ArgumentParser, first: int) -> tuple[Run, int, argparse.Namespace]:
    made.add_argument("--iteration", type=int, required=True, metavar="T", help="1 is the first")
    arguments = made.parse_intermixed_args()
    run = _run(arguments)
    last = len(run.recipe.iterations)
    if not first <= arguments.iteration <= last:
        raise UserError(
            f"--iteration {arguments.iteration}: {arguments.recipe} has iterations {first}..{last}"
        )
    return run, arguments.iteration, arguments


def _run(arguments: argparse.Namespace) -> Run:
    progress.hush_libraries(arguments.verbose)
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    stopped.work = stopped.Work(output_dir=Path(recipe.output_dir))
    return Run(recipe, arguments.recipe, tuple(arguments.overrides))


def run_main(main: Callable[[], None]) -> None:
    """Call main; an error or a signal becomes one line on stderr and an exit code.

    2: a mistake of the user. 1: the Hub, a full disk, out of memory; the same command may work
    later. 130, 143, 129: Ctrl-C, SIGTERM, SIGHUP.
    """
    _speak_utf8()
    with stopped.listening(is_main_process()):
        parents.end_with_run_sh()
        parents.end_with_launcher(is_main_process())
        if is_main_process():
            temporary.drop_launchers()
        try:
            main()
        except stopped.Stopped as error:
            _end(stopped.line(error), 128 + error.number)
        except KeyboardInterrupt:  # raised by a library's signal handler
            _end(stopped.line(stopped.Stopped(signal.SIGINT)), 130)
        except Exception as error:
            _end(*_said(error))


def _end(line: str, code: int) -> None:
    """Print the line and exit.

    A process other than the main one waits first: usually the main process fails for the same
    reason and says so, and the launcher ends this one.
    """
    if not is_main_process():
        time.sleep(GIVE_WAY_SECONDS)
    if line:
        print(hide(one_line(line)), file=sys.stderr)
    sys.exit(code)


def _said(error: Exception) -> tuple[str, int]:
    """The line for an error and its exit code; an unknown error, our own fault, is raised again."""
    known = stopped.cannot_write(error) or error
    if isinstance(known, UserError):
        shared = isinstance(known, SharedError) and not is_main_process()
        return ("" if shared else f"error: {known}"), 2
    if isinstance(known, OutsideError):
        return f"error: {known}", 1
    said = memory.said(error, Path(sys.argv[0]).stem)
    if said is not None:
        return f"error: {said}", 1
    if not is_main_process() and any(s in str(error) for s in _LOST):
        return "", 1
    raise error


# What torch says if another process has ended, which has already said why.
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process")


def _speak_utf8() -> None:
    """Use UTF-8 whatever the locale: for file names, the terminal, pipes and libraries' files.

    Python sets its UTF-8 mode when it starts, so with another locale the command restarts itself.
    """
    encodings = {sys.getfilesystemencoding(), locale.getpreferredencoding(False)}
    if {name.lower() for name in encodings} - {"utf-8"} and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


@dataclass
class Stage:
    """One stage of one iteration, from the check to the written artifact."""

    run: Run
    name: str
    t: int | None
    started: float = field(default_factory=time.monotonic)
    _lock: TextIO | None = None  # held until the process ends

    @property
    def recipe(self) -> Recipe:
        return self.run.recipe

    @property
    def folder(self) -> Path:
        return artifacts.folder(self.recipe, self.name, self.t)

    def is_done(self) -> bool:
        """True, with a line, if the artifact is complete, current and pushed (with hub.push)."""
        if is_main_process():
            check_access(self.recipe)
        found = artifacts.state(self.recipe, self.name, self.t)
        if is_main_process():
            if found.current:
                print(one_line(artifacts.done_line(self.recipe, self.name, self.t, found)))
                artifacts.sweep(self.recipe, self.name, self.t)
                self._save_recipe()
                if found.pushed is None:
                    self._push()
                elif self.name == "report":
                    from selm.hub import exchange

                    exchange.pull(self.recipe, self.name, self.t)
            elif found.why != "missing":
                print(one_line(f"{self.folder}: made again: {found.why}"))
        return found.current

    def _push(self) -> None:
        if self.recipe.hub.push:
            from selm.hub import exchange

            exchange.push(self.run, self.name, self.t)

    def begin(self) -> None:
        """Check the inputs, take the lock, save the resolved recipe, start a log file.

        One process pulls inputs that are only on the Hub; the others wait for it.
        """
        artifacts.require_inputs(self.run, self.name, self.t)
        if not is_main_process():
            while artifacts.inputs_on_hub_alone(self.run, self.name, self.t):
                time.sleep(1)  # the launcher ends us if the main process fails
            return
        self.take()
        temporary.own_folder()
        self._say_what_is_kept()
        self._save_recipe()
        log_to(artifacts.run_folder(self.recipe) / "logs", label(self.name, self.t))
        if self.recipe.hub.push:
            self._prepare_hub()

    def take(self) -> None:
        """Take the stage's lock; `begin` does it."""
        run_folder = artifacts.run_folder(self.recipe)
        named = f"{run_folder.name}-{label(self.name, self.t)}"
        self._lock = lock(run_folder.parent / ".locks" / named)

    def _save_recipe(self) -> None:
        """Save the resolved recipe beside the run, unless the same one is already there."""
        keep_text(artifacts.run_folder(self.recipe) / "recipe.yaml", as_yaml(self.recipe))

    def _say_what_is_kept(self) -> None:
        """Set what is said about finished work if this process is stopped from now on."""
        stopped.work = stopped.Work(
            Path(self.recipe.output_dir),
            self.name,
            self.folder,
            artifacts.partial_path(self.recipe, self.name, self.t),
            command(self.run, self.name, self.t),
            artifacts.verdicts_folder(self.recipe),
        )

    def _prepare_hub(self) -> None:
        """Pull missing inputs, and check before the work that its result can be pushed."""
        from selm.hub import access, exchange
        from selm.run import on_hub

        access.make_repository(self.recipe, on_hub.place(self.recipe, self.name, self.t))
        for entry in artifacts.inputs_on_hub_alone(self.run, self.name, self.t):
            exchange.pull(self.recipe, *entry)

    @contextmanager
    def writing(self) -> Iterator[writing.Record]:
        """Yield an empty folder; afterwards it is the artifact, and the last line says so.

        The artifact is pushed if the recipe says so.
        """
        seconds = time.monotonic() - self.started
        with writing.writing(self.run, self.name, self.t, seconds) as record:
            yield record
        seconds = time.monotonic() - self.started
        drops = in_words(record.dropped)
        said = (
            f"{self.folder}: written, {record.rows} rows"
            + (f", {record.tokens:,} tokens" if record.tokens else "")
            + (f", dropped: {drops}" if drops else "")
            + (f", {record.note}" if record.note else "")
            + f", {seconds:.0f} s"
        )
        print(one_line(said))  # it contains names of files and of judges
        self._push()


def check_access(recipe: Recipe) -> None:
    """Refuse what would only fail after hours of work: no token, or one that may not push."""
    if recipe.hub.push:
        from selm.hub.access import check_access

        check_access(recipe)


def is_main_process() -> bool:
    """True for rank 0 under `accelerate launch`, and for any process without a launcher."""
    return os.environ.get("RANK", "0") == "0"


def keep_text(path: Path, text: str) -> None:
    """Write a text file beside the artifacts, unless it already holds this text."""
    if not path.is_file() or path.read_bytes() != text.encode():
        write_text(path, text)
