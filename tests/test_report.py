"""The report's arithmetic and text, on small values written by hand. No model, no run."""

import re
import runpy
import textwrap
from collections import Counter
from pathlib import Path

import pytest
import yaml

from selm import markdown
from selm.hub import cards
from selm.recipe.loading import load_recipe
from selm.report import figures, statistics
from selm.report.metrics import metrics
from selm.report.page import page, spread_ids
from selm.report.results import Results, training_steps


def row(prompt_id: str, reward: float, reward_of_base: float, response: str = "fine") -> dict:
    return {
        "prompt_id": prompt_id,
        "prompt": [{"role": "user", "content": f"ask {prompt_id}"}],
        "response": response,
        "finish_reason": "stop",
        "num_tokens": 4,
        "reward": reward,
        "reward_of_base": reward_of_base,
    }


BASE = [row("a", 0.0, 0.0), row("b", 0.5, 0.5), row("c", 1.0, 1.0), row("d", 0.2, 0.2)]
# In another order: a win, a tie, a loss, a win.
LATER = [row("d", 1.0, 0.2), row("c", 0.5, 1.0), row("b", 0.5, 0.5), row("a", 1.0, 0.0)]


def test_bootstrap_interval_of_a_coin_is_that_of_the_binomial_distribution():
    low, high = statistics.bootstrap_ci95([0.0, 1.0] * 50)
    # mean 0.5, standard error sqrt(0.25 / 100) = 0.05, so 0.5 +- 1.96 * 0.05
    assert low == pytest.approx(0.402, abs=0.015)
    assert high == pytest.approx(0.598, abs=0.015)


def test_bootstrap_interval_is_the_same_every_time_and_a_point_without_spread():
    values = [0.1, 0.4, 0.35, 0.8, 0.0]
    assert statistics.bootstrap_ci95(values) == statistics.bootstrap_ci95(values)
    assert statistics.bootstrap_ci95([0.3] * 7) == [0.3, 0.3]


def test_ties_are_half_a_win():
    assert statistics.win_rate([1.0, 0.5, 0.5, 1.0], [0.0, 0.5, 1.0, 0.2]) == (1 + 0.5 + 0 + 1) / 4
    assert statistics.win_rate([0.5, 0.5], [0.5, 0.5]) == 0.5


def test_differences_are_joined_by_prompt_id():
    assert statistics.paired_differences(LATER, BASE, pairwise=False) == [0.8, -0.5, 0.0, 1.0]


def test_a_prompt_that_only_one_side_answered_has_no_difference():
    assert statistics.paired_differences(LATER, BASE[:2], pairwise=False) == [0.0, 1.0]


def test_a_pairwise_score_is_compared_with_that_of_its_own_comparison():
    rows = [row("a", 0.7, -0.7), row("b", -0.1, 0.1)]
    base = [row("a", 9.0, 9.0), row("b", 9.0, 9.0)]
    assert statistics.paired_differences(rows, base, pairwise=True) == pytest.approx([1.4, -0.2])


def test_summaries_of_the_trainer_are_no_steps():
    log = [{"step": 1, "loss": 0.7}, {"step": 1, "train_runtime": 9.0, "train_loss": 0.7}]
    assert [step["loss"] for step in training_steps(log)] == [0.7]


def test_without_an_optimism_term_the_loss_is_dpos():
    log = [{"step": 1, "loss": 0.7}, {"step": 2, "loss": 0.7, "loss/dpo": 0.6}]
    assert [step["loss/dpo"] for step in training_steps(log)] == [0.7, 0.6]


def test_steps_of_iterations_follow_one_another():
    logs = {
        1: [{"step": 1, "loss": 0.7}, {"step": 3, "loss": 0.6, "x": 5.0}],
        2: [{"step": 2, "loss": 0.5}],
    }
    assert figures.one_after_another(logs, "loss") == [[(1, 0.7), (3, 0.6)], [(5, 0.5)]]
    assert figures.one_after_another(logs, "x") == [[(3, 5.0)]]


def test_running_mean_is_shorter_at_the_ends():
    assert figures.smooth([0.0, 3.0, 6.0, 9.0], width=3).tolist() == [1.5, 3.0, 6.0, 7.5]


def test_a_cell_of_a_table_cannot_break_the_table():
    lines = markdown.table(["word", "n"], [["a|b\nc", "12"]]).split("\n")
    assert lines == ["| word      |  n |", "| --------- | -: |", "| a\\|b<br>c | 12 |"]


def test_a_fence_is_longer_than_any_inside():
    assert markdown.fenced("hi").startswith("```text\n")
    assert markdown.fenced("see:\n````\ncode\n````").startswith("`````text\n")


def test_wrapping_keeps_every_newline_of_the_answer():
    text = "one\n\n* two\n  * three " + "word " * 40
    lines = markdown.wrapped(text).split("\n")
    assert lines[:3] == ["one", "", "* two"]
    assert lines[3].startswith("  * three word")
    assert max(map(len, lines)) <= 96


def test_example_prompts_are_spread_and_none_is_shown_twice():
    assert spread_ids(list("fedcba")) == ["b", "d", "f"]
    assert spread_ids(["a", "b"]) == ["a", "b"]
    assert spread_ids(["a"]) == ["a"]


def test_the_conclusion_depends_on_whether_the_interval_holds_zero():
    assert "better" in statistics.conclusion([0.01, 0.2])
    assert "worse" in statistics.conclusion([-0.2, -0.01])
    assert "no difference" in statistics.conclusion([-0.1, 0.1])


@pytest.fixture
def recipe(tmp_path: Path):
    """dpo, then selm: iteration 1 has no preferences and no optimism term."""
    for file in ("data.jsonl", "reward.py"):
        (tmp_path / file).touch()
    accelerate = 'distributed_type: "NO"\nnum_processes: 1\n'
    (tmp_path / "accelerate.yaml").write_text(accelerate, encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(
        textwrap.dedent(f"""\
        run_name: tiny
        model: {{name_or_path: a/model}}
        data: {{name_or_path: {tmp_path}/data.jsonl}}
        iterations:
          - {{objective: dpo, learning_rate: 1.0}}
          - {{objective: selm, learning_rate: 1.0}}
        ranking: {{ranker: function, name_or_path: "{tmp_path}/reward.py:reward"}}
        training: {{accelerate_config: {tmp_path}/accelerate.yaml}}
        """),
        encoding="utf-8",
    )
    return load_recipe(tmp_path / "recipe.yaml")


@pytest.fixture
def results():
    manifest = {
        "rows": 4,
        "tokens": 0,
        "seconds": 1.5,
        "git_commit": None,
        "versions": {"torch": "1"},
    }
    entries = [("evaluation", 0), ("checkpoint", 1), ("evaluation", 2)]
    manifests = {entry: manifest | {"dropped": {"too_long": 2}} for entry in entries}
    ranked = {
        "rows": 5,
        "explored_against": {"chosen": {"won": 3, "tied": 1, "lost": 1}},
        "scores": {"chosen": [0.0, 0.1, 0.2, 0.3, 0.4], "policy": [0.0, 0.2, 0.3, 0.4, 0.9]},
        "length_correlation": -0.25,
        "agreement": [{"rankers": ["the dataset", "function f"], "pairs": 8, "alike": 6}],
    }
    manifests["preferences", 2] = manifests["evaluation", 2] | {
        "summary": ranked,
        "rankers": {"judge me": {"verdicts": 12, "flip_rate": 0.25}},
    }
    log = {"step": 1, "loss": 0.7, "rewards/chosen": 0.1, "rewards/rejected": 0.0}
    optimism = {"loss/dpo": 0.7, "loss/optimism": 0.01, "rewards/explored": 0.1}
    return Results(
        evaluations={0: BASE, 2: LATER},
        roles={2: Counter(chosen=3, neither=1)},
        logs={1: [log], 2: [log | optimism]},
        manifests=manifests,
    )


def test_metrics_have_one_entry_per_evaluated_iteration(recipe, results):
    found = metrics(recipe, results)
    assert found["seconds"] == {"evaluate": 3.0, "train": 1.5, "rank": 1.5}
    base, last = found["iterations"]
    assert (base["iteration"], base["objective"], base["win_rate_vs_base"]) == (0, "base", None)
    assert (last["iteration"], last["objective"], last["n"]) == (2, "selm", 4)
    assert last["reward_mean"] == 0.75
    assert last["win_rate_vs_base"] == 0.625
    assert last["paired_difference_vs_base"] == pytest.approx((0.8 - 0.5 + 0 + 1) / 4)
    low, high = last["paired_difference_ci95"]
    assert low < last["paired_difference_vs_base"] < high


def test_the_report_says_what_happened(recipe, results):
    text = page(recipe, metrics(recipe, results), results)
    assert "0.425 (base) -> 0.750 (iteration 2), paired difference +0.325" in text
    assert "| 2         |  75.0% |     0.0% |   25.0% |     4 |" in text
    assert "| 2         |        70.0% | not in the pool |            -0.25 |    5 |" in text
    assert "| the dataset | function f |         2 | 75.0% |     8 |" in text
    assert "judge me: 12 verdicts, 0.25 flip_rate" in text
    assert "2 too_long" in text
    assert "> ask a" in text


def test_one_prompt_has_no_interval_and_shows_nothing(recipe, results, tmp_path):
    for t, rows in results.evaluations.items():
        results.evaluations[t] = [row for row in rows if row["prompt_id"] == "a"]
    found = metrics(recipe, results)
    text = page(recipe, found, results)
    assert [entry["reward_ci95"] for entry in found["iterations"]] == [None, None]
    assert "paired difference +1.000, n = 1. A single prompt shows no difference" in text
    assert " to 1.000" not in text and "better" not in text
    figures.draw(found, results, tmp_path)


def test_one_measurement_of_speed_has_no_range():
    spread = runpy.run_path(str(Path(__file__).parents[1] / "bench" / "tables.py"))["spread"]
    assert spread("1.29", 1.29, 1.29) == "1.29"
    assert spread("1.29", 1.2, 1.31) == "1.29, 1.20 to 1.31"


PICTURES = ("reward_mean", "rewards", "lengths", "scores", "training")


def test_every_picture_that_the_report_shows_is_drawn(recipe, results, tmp_path):
    found = metrics(recipe, results)
    figures.draw(found, results, tmp_path)
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {f"{name}.png" for name in PICTURES}
    text = page(recipe, found, results)
    assert all(f"]({name})" in text for name in drawn)


EVIL = (
    "\x1b[31m </details><img src=http://evil/x> ![x](http://evil/x.png)\n# Forged\n```\n| a | b |"
)


def test_no_text_of_others_reaches_the_report_raw(recipe, results):
    for rows in results.evaluations.values():
        for one in rows:
            one |= {"response": EVIL, "prompt": [{"role": "user", "content": EVIL}]}
    manifest = results.manifests["preferences", 2]
    manifest["rankers"] = {EVIL: {"verdicts": 12}}
    manifest["dropped"] = {EVIL: 3}
    manifest["summary"]["agreement"][0]["rankers"] = ["the dataset", EVIL]
    manifest["versions"] = {"torch": EVIL}
    text = page(recipe, metrics(recipe, results), results)
    assert "\x1b" not in text
    outside = re.sub(r"^(`{4,})text\n.*?\n\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert "Forged" in outside
    for raw in ("<img", "</details>", "](http://evil", "\n# Forged", "\n> # Forged", "| a | b |"):
        assert not re.search(rf"(?<!\\){re.escape(raw)}", outside), raw


def test_no_text_of_others_reaches_a_card_raw(recipe):
    changes = {"name_or_path": 'a/model"\n: [x](http://evil) ```'}
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update=changes)})
    manifest = {
        **{"rows": 4, "seconds": 1.5, "dropped": {EVIL: 2}, "git_commit": None},
        **{"versions": {"torch": EVIL}, "command": f"train '{EVIL}'", "inputs": {}},
        "recipe": {"seed": 1, "data": {"name_or_path": EVIL}},
    }
    for card in (
        cards.model_card(recipe, 1, manifest, [{"loss": 0.7}], {}),
        cards.dataset_card(recipe, "preferences", {2: (manifest, {})}, has_report=False),
    ):
        assert "\x1b" not in card
        assert yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))["tags"][0] == "selm"
        outside = re.sub(r"^(`{3,})\w+\n.*?\n\1$", "", card, flags=re.DOTALL | re.MULTILINE)
        outside = re.sub(r"(`+)[^`].*?[^`]\1(?!`)", "", outside)
        assert "Forged" in outside
        for raw in ("<img", "</details>", "](http://evil", "\n# Forged"):
            assert not re.search(rf"(?<!\\){re.escape(raw)}", outside), raw


def test_a_name_with_two_dollars_is_no_formula(recipe, results, tmp_path):
    found = metrics(recipe, results) | {"run_name": "a $\\badcommand$ b"}
    figures.draw(found, results, tmp_path)
    assert (tmp_path / "reward_mean.png").stat().st_size > 0
