"""Compare finished runs: which setting is better, and is the difference more than noise?

    python scripts/compare.py RUN [RUN ...] [--out FOLDER]

A RUN is a run's folder, a folder of runs such as a sweep's, or namespace/run_name on the Hub. Runs
that differ in nothing but their seed are one setting. Writes FOLDER/report.md, compare.json and
the figures; without --out, FOLDER is `compare` in the folder that holds all runs, or in the
present one if some are on the Hub. The last line names the best setting.
"""

import argparse
import json
import os
import shlex
from pathlib import Path

from selm.cli import keep_text, run_main
from selm.escape import one_line


def main() -> None:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("runs", nargs="+", metavar="RUN", help="e.g. runs/my-sweep, or me/my-run")
    made.add_argument("--out", metavar="FOLDER", help="where the report goes")
    arguments = made.parse_args()

    from selm.compare.figures import draw

    from selm.compare.metrics import metrics
    from selm.compare.page import conclusion, page
    from selm.compare.runs import load

    comparison = load(arguments.runs)
    folder = Path(arguments.out or default_folder([run.folder for run in comparison.runs]))
    found = metrics(comparison)
    folder.mkdir(parents=True, exist_ok=True)
    figures = draw(comparison, found, folder)
    words = ["python", "scripts/compare.py", *arguments.runs, "--out", str(folder)]
    keep_text(folder / "compare.json", json.dumps(found, indent=1) + "\n")
    keep_text(folder / "report.md", page(comparison, found, figures, shlex.join(words)))
    print(one_line(f"{folder / 'report.md'}: {conclusion(found)}"))


def default_folder(runs: list[Path]) -> Path:
    """`compare` in the folder of all runs.

    >>> default_folder([Path("runs/a-seed1"), Path("runs/a-seed2")])
    PosixPath('runs/compare')
    """
    if not all(run.is_dir() for run in runs):
        return Path("compare")
    return Path(os.path.commonpath([run.parent for run in runs])) / "compare"


if __name__ == "__main__":
    run_main(main)
