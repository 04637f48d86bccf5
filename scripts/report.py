"""Turn the evaluations, preferences and training logs of a run into tables and figures.

    python scripts/report.py recipes/smollm2-135m-instruct/selm.yaml [key=value ...]

Reads every artifact of runs/<run_name>. Writes runs/<run_name>/report: report.md, metrics.json and
the pictures.
"""

import json

from selm.cli import Stage, parse_run, run_main


def main() -> None:
    run = parse_run(__doc__)
    stage = Stage(run, "report", None)
    if not stage.is_done():
        stage.begin()
        write(stage)

    from selm.report.markdown import headline

    metrics = json.loads((stage.folder / "metrics.json").read_text(encoding="utf-8"))
    print(f"{stage.folder / 'report.md'}: {headline(metrics)}")


def write(stage: Stage) -> None:
    from selm.report import figures, markdown

    results = markdown.load(stage.recipe)
    metrics = markdown.metrics(stage.recipe, results)

    with stage.writing() as record:
        figures.draw(metrics, results, record.folder)
        (record.folder / "metrics.json").write_text(
            json.dumps(metrics, indent=1) + "\n", encoding="utf-8"
        )
        (record.folder / "report.md").write_text(
            markdown.markdown(stage.recipe, metrics, results), encoding="utf-8"
        )
        record.rows = len(metrics["iterations"])


if __name__ == "__main__":
    run_main(main)
