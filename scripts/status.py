"""Print how far a run is: which stages are done, at work, failed, or still to come.

    python scripts/status.py runs/<run_name>

Reads the run's folder only, so it works while the run goes on, after it was stopped, and when it is
finished. The time left is the plan's estimate times what the finished stages of the same kind took,
measured by theirs; of a stage at work, it follows from its own speed.
"""

import argparse
from pathlib import Path

from selm.cli import run_main
from selm.escape import one_line


def main() -> None:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("run", type=Path, metavar="RUN_FOLDER", help="e.g. runs/smollm2-135m-selm")
    folder = made.parse_args().run

    from selm.run.status import Status, table

    for line in table(Status(folder)):
        print(one_line(line))


if __name__ == "__main__":
    run_main(main)
