"""Turn the evaluations, preferences and training logs of a run into tables and figures.

    python scripts/report.py recipes/smollm2-135m-instruct/selm.yaml [key=value ...]

Reads every artifact of runs/<run_name>, and the benchmarks that are finished. Writes
runs/<run_name>/report: report.md, report.html to look through in a browser, metrics.json,
recipe.yaml and the figures.
"""

import json

from selm.cli import Stage, parse_run, run_main
from selm.recipe.loading import as_yaml


def main() -> None:
    run = parse_run(__doc__)
    stage = Stage(run, "report", None)
    if not stage.is_done():
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
    from selm.report import paper
    from selm.report.figures import draw
    from selm.report.metrics import metrics
    from selm.report.page import page
    from selm.report.results import load
    from selm.viewer.content import content
    from selm.viewer.page import page as html_page

    results = load(stage.recipe)
    found = metrics(stage.recipe, results)
    of_paper = paper.beside(stage.run.path)

    with stage.writing() as record:
        draw(found, results, record.folder)
        text = {
            "metrics.json": json.dumps(found, indent=1) + "\n",
            "recipe.yaml": as_yaml(stage.recipe),  # by it compare.py knows a run on the Hub
            "report.md": page(stage.recipe, found, results, of_paper),
            "report.html": html_page(content(stage.recipe, found, results, of_paper)),
        }
        for name, written in text.items():
            (record.folder / name).write_text(written, encoding="utf-8")
        record.rows = len(found["iterations"])


if __name__ == "__main__":
    run_main(main)
