"""Turn the evaluations, preferences and training logs of a run into tables and figures.

    python scripts/report.py recipes/smollm2-135m-instruct/selm.yaml [key=value ...]
    python scripts/report.py recipes/smollm2-135m-instruct/selm.yaml --so-far [key=value ...]

Reads every artifact of runs/<run_name>, and the benchmarks that are finished. Writes
runs/<run_name>/report: report.md, report.html to look through in a browser, metrics.json,
recipe.yaml and the figures. With --so-far it reads the iterations that are evaluated by now. That
report has no manifest: the whole one replaces it.
"""

import json

from selm.cli import Stage, parse_report, run_main
from selm.errors import UserError
from selm.run import artifacts, writing


def main() -> None:
    run, so_far = parse_report(__doc__)
    stage = Stage(run, "report", None)
    if not stage.is_done():
        if so_far:
            write_so_far(stage)
            return
        stage.begin()
        write(stage)

    from selm.report.benchmarks import terminal_table
    from selm.report.metrics import headline

    metrics = json.loads((stage.folder / "metrics.json").read_text(encoding="utf-8"))
    for line in terminal_table(metrics.get("benchmarks", {})):
        print(line)
    print(f"{stage.folder / 'report.html'}: every answer, to look through in a browser")
    print(f"{stage.folder / 'report.md'}: {headline(metrics)}")


def write(stage: Stage) -> None:
    from selm.report.results import load
    from selm.viewer.files import write_files

    results = load(stage.recipe)
    with stage.writing() as record:
        record.rows = len(write_files(stage.run, results, record.folder)["iterations"])


def write_so_far(stage: Stage) -> None:
    done = artifacts.finished_iterations(stage.recipe)
    if not any(t > 0 for _, t in done):
        raise UserError(f"{stage.folder}: no iteration is evaluated yet, so there is no report")
    stage.take()

    from selm.report.metrics import headline
    from selm.report.page import so_far
    from selm.report.results import load
    from selm.viewer.files import write_files

    results = load(stage.recipe, done)
    with writing.replacing(stage.folder) as folder:
        metrics = write_files(stage.run, results, folder)
    page = stage.folder / "report.md"
    print(f"{page}: {so_far(stage.recipe, results)}, {headline(metrics)}")


if __name__ == "__main__":
    run_main(main)
