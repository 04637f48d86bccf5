"""The figures of a comparison: what is in the axes is what the numbers say."""

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparisons import comparison_of, metrics_of
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from PIL import Image

from selm.compare import looks, over_iterations, paper_figures, rows
from selm.compare.figures import CAPTIONS, GRID, about, draw, figures, means_of_seeds
from selm.compare.implicit import Differences
from selm.compare.settings import Comparison
from selm.report.style import STYLE

ALPHAS = [(f"alpha {a:g}", {"training.alpha": a}) for a in (0.001, 0.0, 0.0001)]
DPO_AND_SELM = [("dpo", {"iterations": "dpo"}), ("selm", {"iterations": "selm"})]
LONG = "optimism $x of the kind y$, learning rate decayed in the last iteration only, number"


@pytest.fixture(autouse=True, scope="module")
def _no_figure_stays_open() -> Any:
    with plt.rc_context({"figure.max_open_warning": 0}):
        yield
    plt.close("all")


def drawn(comparison: Comparison, **more: Any) -> dict[str, Any]:
    with plt.rc_context(STYLE | GRID):
        found = figures(comparison, metrics_of(comparison), **more)
    return {file: figure for file, (figure, _) in found.items()}


@cache
def of_alphas() -> tuple[Comparison, dict[str, Any]]:
    """A comparison that no test changes, and its figures."""
    comparison = comparison_of(ALPHAS)
    return comparison, drawn(comparison)


@cache
def of_two() -> tuple[Comparison, dict[str, Any]]:
    """The same of two settings without an alpha; Fig. 4 has one pair of seeds."""
    chosen_SN, rejected_SN = np.array([[3.0, -1.0, 2.0, 0.5]]), np.array([[0.0, -2.0, 1.0, 4.0]])
    comparison = comparison_of(DPO_AND_SELM)
    implicit = Differences(("selm", "dpo"), chosen_SN, rejected_SN)
    return comparison, drawn(comparison, implicit=implicit)


def lines(axes: Axes, label: str) -> list[tuple[list[float], list[float]]]:
    """x and y of the lines with that label."""
    return [
        (list(map(float, line.get_xdata())), list(map(float, line.get_ydata())))
        for line in axes.get_lines()
        if line.get_label() == label
    ]


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.findobj(plt.Text) if text.get_text()]


@pytest.mark.parametrize("seeds", [(7,), (1, 2, 3)])
def test_lines_are_the_means_their_bars_the_intervals_and_thin_lines_the_seeds(seeds):
    comparison = comparison_of(DPO_AND_SELM, seeds)
    metrics = metrics_of(comparison)
    axes = drawn(comparison)["rewards.png"].axes[0]
    for setting, entry in zip(comparison.settings, metrics["settings"], strict=True):
        ((_, means),) = lines(axes, setting.name)
        assert means == [step["reward_mean"] for step in entry["iterations"]]
    bars = [ys for _, ys in lines(axes, "_interval")]
    assert bars == [s["reward_ci95"] for entry in metrics["settings"] for s in entry["iterations"]]
    expected = [
        [float(comparison.rewards(setting, t)[k].mean()) for t in (0, 1, 2)]
        for setting in comparison.settings
        for k in range(len(seeds))
    ]
    assert [ys for _, ys in lines(axes, "_seed")] == (expected if len(seeds) > 1 else [])


def test_many_settings_have_a_panel_each_with_the_others_in_grey():
    comparison = comparison_of([(f"setting {k}", {"k": k}) for k in range(7)], seeds=(1,))
    settings = metrics_of(comparison)["settings"]
    with plt.rc_context(STYLE | GRID):
        figure = over_iterations.rewards(settings, means_of_seeds(comparison), "")
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title("left") for axes in panels] == [f"setting {k}" for k in range(7)]
    assert all(len(lines(axes, "_other")) == 6 for axes in panels)
    ((_, means),) = lines(panels[6], "setting 6")
    assert means == [step["reward_mean"] for step in settings[6]["iterations"]]


def test_settings_that_end_earlier_have_shorter_lines():
    made = comparison_of(DPO_AND_SELM, iterations={"dpo": 1, "selm": 3})
    found = drawn(made)
    first, second = found["rewards.png"].axes[:2]
    assert [xs for xs, _ in lines(first, "dpo")] == [[0, 1]]
    assert [xs for xs, _ in lines(second, "selm")] == [[0, 1, 2, 3]]
    assert any("iteration 1" in text for text in texts(found["grid.png"]))
    assert "Rewards after iteration 1" in texts(found["rewards_by_setting.png"])


def test_bars_of_the_grid_are_sorted_and_start_at_the_base_model():
    comparison, found = of_alphas()
    settings = metrics_of(comparison)["settings"]
    axes = found["grid.png"].axes[0]
    base = settings[0]["iterations"][0]["reward_mean"]
    means = {entry["name"]: entry["iterations"][-1]["reward_mean"] for entry in settings}
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == sorted(means, key=lambda name: -means[name])
    bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches]
    assert bars == [pytest.approx((base, means[name])) for name in names]
    ((line, _),) = lines(axes, "reference")
    assert line == [means["alpha 0.001"]] * 2


def test_forest_shows_every_difference_to_the_first_setting_and_fills_what_excludes_zero():
    settings = [{"name": name} for name in "abcd"]
    found = [
        {"a": "b", "b": "a", "iteration": 1, "mean": 9.0, "ci95": [8.0, 10.0]},
        {"a": "b", "b": "a", "iteration": 2, "mean": 0.5, "ci95": [0.25, 0.75]},
        {"a": "a", "b": "c", "iteration": 2, "mean": 0.1, "ci95": [-0.1, 0.3]},
        {"a": "b", "b": "c", "iteration": 2, "mean": 0.6, "ci95": [0.5, 0.7]},
        {"a": "d", "b": "a", "iteration": 2, "mean": -0.2, "ci95": None},
    ]
    axes = rows.differences(found, settings, "").axes[0]
    assert [lines(axes, name)[0] for name in "bcd"] == [
        ([0.5], [0.0]), ([-0.1], [1.0]), ([-0.2], [2.0]),
    ]  # fmt: skip
    assert [xs for xs, _ in lines(axes, "_interval")] == [[0.25, 0.75], [-0.3, 0.1]]
    hollow = [
        line.get_label() for line in axes.get_lines() if line.get_markerfacecolor() == "white"
    ]
    assert hollow == ["c", "d"]
    low, high = axes.get_xlim()
    assert low == -high  # zero is in the middle
    assert rows.differences([], settings, "") is None


def test_win_rates_are_the_rows_and_a_policy_is_not_compared_with_itself():
    axes = paper_figures.win_rates(["base", "x"], [[50.0, 12.34], [87.66, 50.0]], "").axes[0]
    assert {t.get_position(): t.get_text() for t in axes.texts} == {(1, 0): "12.3", (0, 1): "87.7"}


def test_a_large_matrix_shows_the_base_model_and_the_last_iterations():
    comparison = comparison_of([(f"s{k}", {"k": k}) for k in range(6)], seeds=(1,), iterations=4)
    metrics = metrics_of(comparison)
    shown = paper_figures.shown_in_matrix(25, metrics["settings"])
    assert [metrics["win_rates"]["labels"][k] for k in shown] == [
        "base", *(f"s{k}, iteration 4" for k in range(6)),
    ]  # fmt: skip
    axes = drawn(comparison)["win_rates.png"].axes[0]
    number = next(t.get_text() for t in axes.texts if t.get_position() == (0, 6))
    assert number == f"{metrics['win_rates']['matrix'][-1][0]:.1f}"
    few = metrics_of(comparison_of(DPO_AND_SELM))["settings"]
    assert paper_figures.shown_in_matrix(5, few) == [0, 1, 2, 3, 4]


def test_alphas_are_in_order_on_a_logarithmic_axis_with_zero_left_of_them():
    comparison, found = of_alphas()
    metrics = metrics_of(comparison)
    axes = found["alpha.png"].axes[0]
    means = {e["name"]: e["iterations"][-1]["reward_mean"] for e in metrics["settings"]}
    ((xs, ys),) = lines(axes, "alpha")
    assert xs == [-5.0, -4.0, -3.0]
    assert ys == [means["alpha 0"], means["alpha 0.0001"], means["alpha 0.001"]]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0", "0.0001", "0.001"]
    assert "//" in [text.get_text() for text in axes.texts]


def test_each_kind_of_optimism_is_a_line_and_a_setting_without_alpha_a_level():
    kinds = [
        (f"{kind} {alpha}", {"training.alpha": alpha, "training.optimism": kind, "iterations": "s"})
        for kind in ("selm", "xpo")
        for alpha in (0.001, 0.01)
    ]
    dpo = ("dpo", {"training.alpha": 0.001, "training.optimism": "selm", "iterations": "dpo"})
    settings = metrics_of(comparison_of([dpo, *kinds]))["settings"]
    groups = paper_figures.by_alpha(settings)
    assert [[s["name"] for s in group] for group in groups] == [
        ["selm 0.001", "selm 0.01"],
        ["xpo 0.001", "xpo 0.01"],
    ]
    axes = paper_figures.against_alpha(settings, "").axes[0]
    ((_, level),) = lines(axes, "_reference")
    assert level == [settings[0]["iterations"][-1]["reward_mean"]] * 2
    assert "//" not in [text.get_text() for text in axes.texts]


def test_without_two_alphas_there_is_no_picture_of_alpha():
    _, found = of_two()
    assert "alpha.png" not in found


def test_distributions_are_shares_of_all_seeds_and_prompts_in_the_order_of_alpha():
    comparison, found = of_alphas()
    panels = found["rewards_by_setting.png"].axes
    by_name = {setting.name: setting for setting in comparison.settings}
    for axes, name in zip(panels, ("alpha 0", "alpha 0.0001", "alpha 0.001"), strict=True):
        values = comparison.rewards(by_name[name], 2)
        filled, outline = axes.patches
        shares, edges, _ = filled.get_data()
        assert shares.sum() == pytest.approx(100)
        bins = pairwise(edges)
        expected = [100 * ((values >= low) & (values < high)).mean() for low, high in bins]
        assert shares[:-1] == pytest.approx(expected[:-1])  # the last bin is closed on both sides
        assert outline.get_data().values.sum() == pytest.approx(100)
        (mean,) = axes.get_lines()
        assert mean.get_xdata() == [pytest.approx(values.mean())] * 2


def test_the_best_settings_iterations_have_a_row_each():
    comparison, found = of_two()
    figure = found["rewards_by_iteration.png"]
    assert "Rewards of selm" in texts(figure)
    means = [float(axes.get_lines()[0].get_xdata()[0]) for axes in figure.axes]
    selm = comparison.settings[1]
    assert means == pytest.approx([comparison.rewards(selm, t).mean() for t in (0, 1, 2)])


def test_implicit_rewards_are_sorted_each_by_itself():
    figure = of_two()[1]["implicit_rewards.png"]
    axes = figure.axes[0]
    places = [12.5, 37.5, 62.5, 87.5]
    assert lines(axes, "chosen") == [(places, [-1.0, 0.5, 2.0, 3.0])]
    assert lines(axes, "rejected") == [(places, [-2.0, 0.0, 1.0, 4.0])]
    assert "chosen\nmean +1.12\n75% above 0" in texts(figure)
    assert "Implicit reward: selm minus dpo" in texts(figure)


@pytest.mark.parametrize(
    ("settings", "seeds"),
    [
        (DPO_AND_SELM[:1], (1,)),
        (DPO_AND_SELM, (1,)),
        ([(f"{LONG} {k}", {"k": k, "training.alpha": 0.1**k}) for k in range(12)], (1, 2)),
    ],
    ids=["one", "two", "twelve with long names"],
)
def test_every_picture_is_written_of_a_size_that_a_page_can_show(settings, seeds, tmp_path: Path):
    comparison = comparison_of(settings, seeds)
    found = draw(comparison, metrics_of(comparison), tmp_path)
    assert [file for file, _ in found] == [file for file in CAPTIONS if (tmp_path / file).exists()]
    assert {path.name for path in tmp_path.iterdir()} == {file for file, _ in found}
    compared = {"differences.png", "grid.png"} & {file for file, _ in found}
    assert len(compared) == (2 if len(settings) > 1 else 0)
    for file, caption in found:
        assert caption == CAPTIONS[file]
        with Image.open(tmp_path / file) as picture:
            assert max(picture.size) < 2000, file


def test_identical_rewards_can_be_drawn(tmp_path: Path, recwarn):
    comparison = comparison_of(ALPHAS)
    for setting in comparison.settings:
        for run in setting.runs:
            for evaluation in run.evaluations.values():
                for row in evaluation:
                    row["reward"] = -3.0
    metrics = metrics_of(comparison)
    for entry in metrics["settings"]:
        for step in entry["iterations"]:
            step["reward_ci95"] = None  # a single prompt has no interval
    assert len(draw(comparison, metrics, tmp_path)) == len(CAPTIONS) - 1
    assert not [str(warning.message) for warning in recwarn]


def level_texts(figure: Any) -> list[tuple[Any, Any]]:
    """Texts in the picture that are not turned, and their boxes, a little smaller."""
    figure.canvas.draw()
    beyond = {
        id(text)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        for text in (tick.label1, tick.label2)
    }
    visible = [axes for axes in figure.axes if axes.get_visible()]
    every = [*figure.texts, *(text for axes in visible for text in axes.findobj(plt.Text))]
    shown = [text for text in every if text.get_visible() and text.get_text().strip()]
    level = [text for text in shown if text.get_rotation() == 0 and id(text) not in beyond]
    return [(text, text.get_window_extent().padded(-1.5)) for text in level]


@pytest.mark.parametrize("count", [2, 5, 12])
def test_no_texts_overlap_and_none_is_smaller_than_8_points(count: int):
    settings = [(f"{LONG} {k}", {"training.alpha": 0.001 * 2**k}) for k in range(count)]
    for file, figure in drawn(comparison_of(settings, seeds=(1,))).items():
        found = level_texts(figure)
        assert found
        for k, (text, box) in enumerate(found):
            assert text.get_fontsize() >= 8, (file, text.get_text())
            over = [other.get_text() for other, its in found[:k] if box.overlaps(its)]
            assert not over, (file, text.get_text(), over)


def test_the_first_setting_is_dark_and_twelve_can_be_told_apart():
    found = looks.looks([str(k) for k in range(13)])
    assert found["0"].colour == looks.INK
    assert len({(look.colour, look.dashes, look.marker) for look in found.values()}) == 13


def test_names_that_are_too_long_keep_both_ends():
    short = looks.label(f"first {LONG} last", width=20)
    assert short.startswith("first") and short.endswith("last") and short.count("\n") == 1
    assert max(map(len, short.split("\n"))) <= 20
    assert looks.label("a name", width=20) == "a name"
    assert looks.label("", width=20) == ""


@pytest.mark.parametrize("wanted", [[0.0, 0.0, 0.0], [3.0, 1.0, 1.05], [5.0], []])
def test_labels_are_moved_apart_in_their_order_and_not_farther_than_needed(wanted):
    found = looks.spread(wanted, gap=0.5)
    assert np.mean(found or [0]) == pytest.approx(np.mean(wanted or [0]))
    rising = np.array(found)[np.argsort(wanted, kind="stable")]
    assert (np.diff(rising) >= 0.5 - 1e-9).all()
    assert looks.spread([0.0, 2.0], gap=0.5) == [0.0, 2.0]


def test_the_subtitle_names_prompts_and_ranker():
    comparison, found = of_two()
    assert about(comparison) == "40 held-out prompts, a ranker"
    expected = "40 held-out prompts, a ranker; bars: 95% interval; thin lines: seeds"
    assert expected in texts(found["rewards.png"])
