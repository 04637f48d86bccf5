"""All files of a report."""

import json
from pathlib import Path

from selm.recipe.loading import as_yaml
from selm.report import paper
from selm.report.figures import draw
from selm.report.metrics import Metrics, metrics
from selm.report.page import page
from selm.report.results import Results
from selm.run.plan import Run
from selm.viewer.content import content
from selm.viewer.page import page as html_page


def write_files(run: Run, results: Results, folder: Path) -> Metrics:
    """Write a report's pages, numbers and figures into a folder; what metrics.json holds."""
    found, of_paper = metrics(run.recipe, results), paper.beside(run.path)
    draw(found, results, folder)
    text = {
        "metrics.json": json.dumps(found, indent=1) + "\n",
        "recipe.yaml": as_yaml(run.recipe),  # by it compare.py knows a run on the Hub
        "report.md": page(run.recipe, found, results, of_paper),
        "report.html": html_page(content(run.recipe, found, results, of_paper)),
    }
    for name, written in text.items():
        (folder / name).write_text(written, encoding="utf-8")
    return found
