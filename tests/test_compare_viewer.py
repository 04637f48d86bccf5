"""The page of a comparison: report.html beside its report.md."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import in_a_browser
import pytest
import viewer_run
from compared_runs import PROMPTS, drawn, write_run
from test_viewer import unpacked
from written_runs import runs_in

from selm.compare.metrics import metrics
from selm.compare.page import headline
from selm.compare.runs import load
from selm.compare.settings import Comparison
from selm.viewer.comparison import content
from selm.viewer.page import packed, page

ALPHAS = (0.1, 0.2, 0.4, 0.8, 1.6)

Write = Callable[..., Path]


@pytest.fixture
def finished(tmp_path: Path, tiny_recipe: str, tiny_data: str) -> Write:
    """A run's folder; its answers say which run and iteration gave them."""
    make = runs_in(tmp_path, tiny_recipe, tiny_data)

    def write(alpha: float, seed: int = 1, until: int = 2) -> Path:
        run = make(f"run_name=a{alpha}-seed{seed}", f"seed={seed}", f"training.alpha={alpha}")
        return write_run(run, drawn(seed, alpha), until)

    return write


def with_answers(comparison: Comparison, of: Callable[[str, int, int], str]) -> Comparison:
    """The comparison with other answers: of(run's name, iteration, index of the prompt)."""

    def changed(run):
        rows: Mapping[int, Sequence] = {
            t: [row | {"response": of(run.name, t, i)} for i, row in enumerate(rows)]
            for t, rows in run.evaluations.items()
        }
        return replace(run, evaluations=rows)

    settings = tuple(
        replace(setting, runs=tuple(map(changed, setting.runs))) for setting in comparison.settings
    )
    return replace(comparison, settings=settings)


def answered(run: str, t: int, i: int) -> str:
    return f"base {i}" if t == 0 else f"{run} {t} {i}"


def test_answers_are_those_of_the_base_and_of_each_settings_last_iteration(finished):
    for alpha in (0.1, 0.2):
        finished(alpha, seed=2)
        folder = finished(alpha, seed=1).parent
    comparison = with_answers(load([str(folder)]), answered)
    made = content(comparison, metrics(comparison))
    assert [policy["label"] for policy in made["policies"]] == [
        "base",
        "alpha 0.1, iteration 2",
        "alpha 0.2, iteration 2",
    ]
    assert made["answers"]["columns"] == [policy["id"] for policy in made["policies"]]
    assert made["answers"]["baselines"] == [0]
    prompts = made["answers"]["prompts"]
    assert [prompt["id"] for prompt in prompts] == list(comparison.prompts)
    assert [[one["text"] for one in prompt["answers"]] for prompt in prompts] == [
        [f"base {i}", f"a0.1-seed1 2 {i}", f"a0.2-seed1 2 {i}"] for i in range(PROMPTS)
    ]
    row = comparison.settings[1].runs[0].evaluations[2][3]
    last = prompts[3]["answers"][2]
    assert (last["reward"], last["base"]) == pytest.approx((row["reward"], row["reward_of_base"]))


def test_its_numbers_are_those_of_compare_json_and_it_says_what_is_not_there(finished):
    for alpha in ALPHAS:
        folder = finished(alpha).parent
    finished(0.1, seed=2, until=1)
    comparison = load([str(folder)])
    found = metrics(comparison)
    made = content(comparison, found)
    assert made["lines"][0] == headline(found)
    charts = {chart["id"]: chart for chart in made["charts"]}
    over = [chart for ident, chart in charts.items() if ident.startswith("rewards-")]
    lines = {line["name"]: line for chart in over for line in chart["series"]}
    assert [len(chart["series"]) for chart in over] == [2, 3]
    assert len({tuple(chart["range"]) for chart in over}) == 1
    for setting in found["settings"]:
        line = lines[setting["name"]]
        assert line["values"] == [entry["reward_mean"] for entry in setting["iterations"]]
    assert [row["name"] for row in charts["differences"]["rows"]] == [
        f"alpha {alpha}" for alpha in ALPHAS[1:]
    ]
    assert charts["alpha"]["x"] == [f"alpha {alpha}" for alpha in ALPHAS]
    means = [row["value"] for row in charts["last"]["rows"]]
    assert len(means) == len(ALPHAS) and means == sorted(means, reverse=True)
    tables = {table["id"]: table for table in made["tables"]}
    assert len(tables["settings"]["rows"]) == 3 * len(ALPHAS)
    assert len(tables["differences"]["rows"]) == 10
    left_out = "\n".join(made["left_out"])
    assert "a0.1-seed2 is left out: iter-2/evaluation is not there" in left_out
    assert "alpha 0.4: a0.4-seed1" in left_out and "training pairs" in left_out


def test_base_models_that_answer_otherwise_have_a_column_each(finished):
    finished(0.1)
    folder = finished(0.2).parent
    comparison = with_answers(load([str(folder)]), lambda run, t, i: f"{run} {t} {i}")
    made = content(comparison, metrics(comparison))
    labels = [policy["label"] for policy in made["policies"]]
    assert [labels[n] for n in made["answers"]["baselines"]] == [
        "alpha 0.1, base",
        "alpha 0.2, base",
    ]


def test_too_many_answers_are_left_out_of_the_page_and_named(finished):
    finished(0.1)
    folder = finished(0.2).parent
    comparison = with_answers(load([str(folder)]), lambda run, t, i: viewer_run.sentence(i, 900))
    made = content(comparison, metrics(comparison))
    text = page(made, most_bytes=len(packed(made["answers"])))
    kept = unpacked(text, "data-answers")["prompts"]
    assert len(kept) < PROMPTS
    said = unpacked(text, "data-overview")["left_out"]
    assert any(f"This page has {len(kept)} of {PROMPTS} held-out prompts" in line for line in said)


def test_it_opens_in_a_browser_on_a_wide_and_a_narrow_screen(finished, tmp_path):
    browser_path = in_a_browser.find()
    for alpha in ALPHAS:
        folder = finished(alpha).parent
    comparison = with_answers(load([str(folder)]), answered)
    path = tmp_path / "report.html"
    path.write_text(page(content(comparison, metrics(comparison))), encoding="utf-8")
    pictures = Path(__file__).parents[1] / "runs" / "test-viewer"
    pictures.mkdir(parents=True, exist_ok=True)
    with in_a_browser.started(browser_path) as browser:
        for width in (1280, 390):
            window = in_a_browser.opened(browser, path, width=width)
            for view in ("overview", "answers", "pairs", "training"):
                section = window.view(view)
                assert window.page.evaluate("document.documentElement.scrollWidth") <= width, view
                picture = pictures / f"comparison-{view}-{width}.png"
                window.page.screenshot(path=picture, full_page=True)
            assert section.locator("p").inner_text() == "No iteration has logged its training."
            forest = window.view("overview").locator("#chart-differences")
            assert forest.locator(".mark").count() == len(ALPHAS) - 1
            forest.locator(".mark").first.focus()
            assert re.match(
                r"alpha 0.2\nreward .*\n95% interval", forest.locator(".tip").inner_text()
            )
            heads = window.view("answers").locator(".detail h4").all_inner_texts()
            assert heads == ["base", *(f"alpha {alpha}, iteration 2" for alpha in ALPHAS)]
            window.assert_quiet()
