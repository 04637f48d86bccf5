"""Compare finished runs: which setting is better, and is the difference more than noise?

    python scripts/compare.py RUN [RUN ...] [--out FOLDER] [--implicit T]

A RUN is a run's folder, a folder of runs such as a sweep's, or namespace/run_name on the Hub. Runs
that differ in nothing but their seed are one setting. Writes FOLDER/report.md, compare.json,
the figures, and report.html: the numbers, and the settings' answers side by side, in a browser.
Without --out, FOLDER is `compare` in the folder that holds all runs, or in the present one if some
are on the Hub. The last line names the best setting.

With --implicit T the runs are of two settings, and a figure shows how their implicit rewards differ
on the held-out pairs after iteration T (the second setting minus the first, the paper's Fig. 4).
Log-probs that are missing are made first, by scripts/logps.py.
"""

import argparse
import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from selm import home
from selm.cli import keep_text, run_main
from selm.errors import UserError
from selm.escape import one_line

if TYPE_CHECKING:  # `--help` imports nothing heavy
    from selm.compare.implicit import Differences
    from selm.compare.settings import Comparison


def main() -> None:
    made = argparse.ArgumentParser(
        prog=home.program(),
        description=home.named(__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("runs", nargs="+", metavar="RUN", help="e.g. runs/my-sweep, or me/my-run")
    made.add_argument("--out", metavar="FOLDER", help="where the report goes")
    made.add_argument("--implicit", type=int, metavar="T", help="draw Fig. 4 for iteration T")
    arguments = made.parse_args()

    from selm.compare.figures import draw
    from selm.compare.metrics import metrics
    from selm.compare.page import conclusion, page
    from selm.compare.runs import load
    from selm.viewer.comparison import content
    from selm.viewer.page import page as html_page

    comparison = load(arguments.runs)
    folder = Path(arguments.out or default_folder([run.folder for run in comparison.runs]))
    found = metrics(comparison)
    words = [*home.words("compare"), *arguments.runs, "--out", str(folder)]
    implicit = None
    if arguments.implicit is not None:
        implicit = implicit_rewards(comparison, arguments.implicit)
        words += ["--implicit", str(arguments.implicit)]
    folder.mkdir(parents=True, exist_ok=True)
    figures = draw(comparison, found, folder, implicit)
    keep_text(folder / "compare.json", json.dumps(found, indent=1) + "\n")
    keep_text(folder / "report.md", page(comparison, found, figures, shlex.join(words)))
    keep_text(folder / "report.html", html_page(content(comparison, found)))
    print(one_line(f"{folder / 'report.html'}: answers, to look through in a browser"))
    print(one_line(f"{folder / 'report.md'}: {conclusion(found)}"))


def implicit_rewards(comparison: "Comparison", t: int) -> "Differences":
    """Those of the second setting minus those of the first."""
    from selm.compare.implicit import of_settings

    if len(comparison.settings) != 2:
        names = ", ".join(setting.name for setting in comparison.settings)
        raise UserError(
            f"--implicit: compares two settings, but these runs are of {len(comparison.settings)} "
            f"({names}); name the runs of two"
        )
    first, second = comparison.settings
    return of_settings(second, first, t)


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
