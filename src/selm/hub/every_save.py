"""`hub.every_save`: saves are pushed beside the training. It does not wait for them.

A process pushes, not a thread: Python waits at its end for the threads of an upload, and a stage
that is stopped would hang for as long as the Hub takes.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import Trainer, TrainerCallback

from selm.escape import one_line
from selm.hub import saves
from selm.run.artifacts import partial_path
from selm.run.on_hub import place
from selm.run.plan import Run

LAST_SECONDS = 60.0  # how long a running push may continue when the training ends


def share(trainer: Trainer, run: Run, t: int) -> None:
    """Resume from the last save on the Hub if there is none here, and push the next ones."""
    if trainer.is_world_process_zero():
        saves.pull(run, t, Path(trainer.args.output_dir))
    trainer.accelerator.wait_for_everyone()
    repo = place(run.recipe, "checkpoint", t).repo
    trainer.add_callback(PushSaves(repo, partial_path(run.recipe, "checkpoint", t)))


class PushSaves(TrainerCallback):
    """Pushes every save but the last, one at a time; only the newest of the others waits.

    A save that is pushed or waits is linked into another folder, because `save_total_limit` may
    delete it.
    """

    def __init__(self, repo: str, partial: Path) -> None:
        self._repo, self._key, self._links = repo, partial / "key.json", partial / "push"
        self._process: subprocess.Popen[str] | None = None
        self._pushed = self._waiting = ""  # names in the folder of links

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer in every process; the finished checkpoint follows the last save."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero and state.global_step < state.max_steps:
            self._link(Path(args.output_dir) / f"checkpoint-{state.global_step}")
            self._go_on()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer in every process; only the main process pushes."""
        self._go_on()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End every push before the finished checkpoint is pushed."""
        if self._process is not None:
            try:
                self._process.wait(LAST_SECONDS)
                say_how_it_went(self._pushed, self._process)
            except subprocess.TimeoutExpired:
                self._process.kill()
                print(f"{self._pushed}: given up on the Hub, for the training has ended")
        if state.is_world_process_zero:
            shutil.rmtree(self._links, ignore_errors=True)

    def _link(self, save: Path) -> None:
        """Let this save wait instead of the one that is waiting."""
        if self._waiting:
            shutil.rmtree(self._links / self._waiting)
        self._waiting = ""
        link = self._links / save.name
        shutil.rmtree(link, ignore_errors=True)  # of an attempt that was killed
        try:
            shutil.copytree(save, link, copy_function=os.link)
            self._waiting = save.name
        except OSError as error:
            print(one_line(f"{save.name}: not pushed to the Hub: {error}"))

    def _go_on(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            say_how_it_went(self._pushed, self._process)
            shutil.rmtree(self._links / self._pushed, ignore_errors=True)
            self._process = None
        if self._process is None and self._waiting:
            self._process = start(self._repo, self._links / self._waiting, self._key)
            self._pushed, self._waiting = self._waiting, ""


def start(repo: str, save: Path, key: Path) -> subprocess.Popen[str]:
    """Start a process that pushes a save. It ends with this process and ignores Ctrl-C."""
    return subprocess.Popen(
        [sys.executable, "-m", saves.__name__, repo, save, key],
        env=os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def say_how_it_went(name: str, process: subprocess.Popen[str]) -> None:
    """Print the last line of a push process that has ended."""
    said = (process.communicate()[0].splitlines() or [f"exit code {process.returncode}"])[-1]
    print(one_line(said if process.returncode == 0 else f"{name}: not pushed to the Hub: {said}"))
