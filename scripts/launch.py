"""run.sh uses this for `accelerate launch`: the last line printed is the stage's own.

    python scripts/launch.py --config_file accelerate_configs/ddp.yaml ... scripts/train.py ...

The stage says in one line why it ended; accelerate's launcher would add its own traceback. The exit
code is the stage's. No temporary folder is left behind.
"""

import logging
import os
import signal
import subprocess
import sys

from selm.run import temporary
from selm.run.parents import end_with_run_sh


def main() -> None:
    try:
        end_with_run_sh()
        temporary.own_folder()
        from accelerate.commands.launch import launch_command, launch_command_parser
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

        logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
        words = ["--log_dir", os.devnull, *(word for word in sys.argv[1:] if word != "--quiet")]
        arguments = launch_command_parser().parse_args(words)
        # Ctrl-C reaches the stage too. A handler, unlike "ignore", is not inherited by it.
        signal.signal(signal.SIGINT, lambda *_: None)
    except KeyboardInterrupt:
        sys.exit(130)
    try:
        launch_command(arguments)
    except subprocess.CalledProcessError as error:
        sys.exit(_exit_code(error.returncode, os.getpid()))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        sys.exit(_exit_code(failure.exitcode, failure.pid, f" (rank {rank})"))
    except SignalException as error:
        sys.exit(128 + error.sigval)


def _exit_code(code: int, pid: int, which: str = "") -> int:
    """The exit code as in a shell; prints a line for a killed process, which could not."""
    if code >= 0:
        return code
    name = signal.Signals(-code).name
    memory = "; perhaps out of memory" if -code == signal.SIGKILL else ""
    print(f"the training's process{which} was ended by {name}{memory}", file=sys.stderr)
    return 128 - code


if __name__ == "__main__":
    main()
