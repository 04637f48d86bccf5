"""What the report says of benchmarks, on results written by hand; and the paper's numbers."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from selm.errors import UserError
from selm.recipe.loading import load_recipe
from selm.report import benchmarks, figures, paper, statistics, win_rates
from selm.report.measures import paired_ci95
from selm.report.metrics import metrics
from selm.report.page import page
from selm.report.results import Results

REPOSITORY = Path(__file__).resolve().parents[1]
ZEPHYR = "recipes/zephyr-7b-sft/selm.yaml"
PAPER_JUDGE = "judge openai/gpt-4-1106-preview"
OTHER_JUDGE = "judge Qwen/Qwen3-32B"


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def result(values, n=4, judge=None, notes=(), facts=None):
    """A results.json; a value is a number or a pair of number and standard error."""
    pairs = {key: v if isinstance(v, tuple) else (v, None) for key, v in values.items()}
    measures = {key: {"value": v, "standard_error": e} for key, (v, e) in pairs.items()}
    return {"measures": measures, "n": n, "judge": judge, "notes": list(notes)} | {
        "facts": facts or {}
    }


def alpaca(lc, judge=OTHER_JUDGE, n=805, notes=(), **facts):
    """A result as the paper's, but for the judge."""
    values = {"lc_win_rate": (lc, 0.5), "win_rate": lc, "length": 1000.0}
    return result(values, n, judge, notes, {"prompts": "alpaca-eval", "regularised": True} | facts)


def said(found, overrides=(), path=ZEPHYR):
    return "\n\n".join(benchmarks.sections(load_recipe(path, overrides), found, paper.beside(path)))


def row_of(text, label):
    """The cells after the first of the table row with this label."""
    return rows_of(text, label)[0]


def rows_of(text, label):
    lines = [line[2:-2].split(" | ") for line in text.split("\n") if line.startswith("| ")]
    return [[cell.strip() for cell in row[1:]] for row in lines if row[0].strip() == label]


# Tables


def test_our_number_the_papers_and_the_difference_stand_in_three_rows():
    text = said({"alpaca_eval": {0: alpaca(9.0), 2: alpaca(20.0)}})
    # 1.96 standard errors of 0.5 are 0.98; the paper's are 8.01, 4.63 and 916
    assert row_of(text, "base") == ["9.00 ± 0.98", "9.00", "1000", OTHER_JUDGE]
    judge = "gpt-4-1106-preview"
    assert row_of(text, "paper: Zephyr-7B-SFT") == ["8.01", "4.63", "916", judge]
    assert row_of(text, "2 (selm)")[0] == "20.00 ± 0.98"
    assert row_of(text, "paper: SELM Iter 1 (Zephyr)")[0] == "20.52"
    assert rows_of(text, "difference") == [
        ["+0.99†", "+4.37†", "+84", ""],
        ["-0.52†", "+2.77†", "-624", ""],
    ]
    assert "Zephyr-7B-DPO" not in text  # iteration 1 was not measured


def test_the_baseline_stands_beside_the_papers_baseline():
    found = {"gsm8k": {2: result({"exact_match": 45.0}, 1319)}}
    assert row_of(said(found), "paper: SELM Iter 1 (Zephyr)") == ["46.3"]
    own = said(found, path="recipes/zephyr-7b-sft/dpo.yaml")
    assert row_of(own, "paper: DPO Iter 1 (Zephyr)") == ["45.5"]


TASKS = {
    "gsm8k": 1319,
    "hellaswag": 10042,
    "arc_challenge": 1172,
    "truthfulqa": 817,
    "eq_bench": 171,
    "openbookqa": 500,
}


def test_the_average_is_over_the_tasks_that_are_there():
    found = {"gsm8k": {0: result({"exact_match": (40.0, 3.0)})}}
    found["arc_challenge"] = {0: result({"acc_norm": (60.0, 4.0)}), 1: result({"acc_norm": 61.0})}
    text = said(found)
    # sqrt(3^2 + 4^2) / 2 = 2.5 and 1.96 * 2.5 = 4.9; the paper: (43.8 + 57.4) / 2 = 50.6
    assert row_of(text, "base") == ["40.0 ± 5.9", "60.0 ± 7.8", "50.0 ± 4.9"]
    assert row_of(text, "paper: Zephyr-7B-SFT") == ["43.8", "57.4", "50.6"]
    assert row_of(text, "1 (dpo)") == ["", "61.0", ""]


def test_with_all_six_tasks_the_papers_average_is_the_printed_one():
    found = {name: {1: result({"acc": 50.0}, n)} for name, n in TASKS.items()}
    # their mean is 57.05, of rounded numbers; the paper prints 57.0
    assert row_of(said(found), "paper: Zephyr-7B-DPO")[-1] == "57.0"


def test_mt_bench_has_a_table_of_its_categories():
    values = {"average": 6.0, "first_turn": 7.0, "second_turn": 5.0, "writing": (8.0, 0.5)}
    text = said({"mt_bench": {0: result(values, 80, OTHER_JUDGE)}})
    assert row_of(text, "base") == ["6.00", "7.00", "5.00", OTHER_JUDGE]
    assert row_of(text, "writing") == ["8.00 ± 0.98"]
    assert "means of three runs" in text


def test_every_other_measure_is_shown_too():
    found = {"own_test": {1: result({"passed": (50.0, 5.0), "tries": 3.0}, judge="judge me")}}
    text = said(found)
    wanted = [["passed", "50.00 ± 9.80", "judge me"], ["tries", "3.00", "judge me"]]
    assert rows_of(text, "own_test") == wanted
    assert "The paper's numbers" not in text


def test_notes_are_said_once_and_counts_by_iteration_where_they_differ():
    notes = ["Asked in a chat.", "Greedy."]
    found = {0: result({"acc": 1.0}, 805, notes=notes), 1: result({"acc": 1.0}, 804, notes=notes)}
    text = said({"own_test": found})
    line = "- `own_test`: 805 (base), 804 (iteration 1) questions. Asked in a chat. Greedy."
    assert line in text.split("\n")


# What can be compared with the paper


def reasons(found, overrides=()):
    return re.findall(r"^- (.*): AlpacaEval 2 LC win rate", said(found, overrides), re.MULTILINE)


def test_what_was_measured_as_in_the_paper_has_no_mark():
    text = said({"alpaca_eval": {0: alpaca(9.0, judge=PAPER_JUDGE)}})
    assert "†" not in text and "not comparable" not in text
    assert "measured as the paper's" in text


@pytest.mark.parametrize(
    ("change", "overrides", "why"),
    [
        ({"judge": OTHER_JUDGE}, (), "another judge, where the paper has gpt-4-1106-preview"),
        ({"judge": f"{PAPER_JUDGE}-mini"}, (), "another judge"),
        ({"judge": None}, (), "another judge"),
        ({"n": 804}, (), "804 questions, where the paper has 805"),
        ({"n": 9}, ("benchmarks.limit=9",), "9 questions because of benchmarks.limit=9"),
        ({"regularised": False}, (), "win rate is not regularised"),
        ({"prompts": None}, (), "asked in other words than alpaca-eval's"),
        ({}, ("model.name_or_path=another/model",), "another base model"),
        ({}, ("data.limit=100",), "trained on a part of the data"),
        (
            {},
            ("benchmarks.names=[]", "benchmarks.data=recipes"),
            "the questions of benchmarks.data",
        ),
        ({}, ("iterations=[{objective: dpo, learning_rate: 1.0}]",), "iterations: 1, where"),
    ],
)
def test_what_was_measured_otherwise_is_marked_and_the_reason_named(change, overrides, why):
    found = {"alpaca_eval": {1: alpaca(9.0, **{"judge": PAPER_JUDGE} | change)}}
    (reason,) = reasons(found, overrides)
    assert why in reason
    assert row_of(said(found, overrides), "difference")[0].endswith("†")


def test_a_base_model_is_the_same_whatever_is_trained_from_it():
    found = {"alpaca_eval": {0: alpaca(9.0, judge=PAPER_JUDGE)}}
    assert not reasons(found, ("data.limit=100", "model.name_or_path=/copy/mistral-7b-sft-beta"))


def test_a_chat_template_and_a_length_are_told_apart():
    on = ("benchmarks.chat_template=true",)
    text = said({"gsm8k": {0: result({"exact_match": 40.0}, 1319)}}, on)
    assert row_of(text, "difference") == ["-3.8†"]
    assert "- the chat template is on, unlike the paper's: GSM8K" in text
    # the answers to AlpacaEval always have it, and no judge says how long they are
    judged = said({"alpaca_eval": {0: alpaca(9.0)}}, on)
    assert "chat template" not in judged
    assert row_of(judged, "difference")[2] == "+84"


def test_a_win_rate_that_is_not_regularised_has_another_heading():
    found = {"alpaca_eval": {0: alpaca(9.0, regularised=False)}}
    assert "AlpacaEval 2: LC win rate, not regularised" in said(found)
    note = "lc_win_rate is not regularised: a table is missing."
    values = {"lc_win_rate": 9.0, "win_rate": 9.0}
    found = {"alpaca_eval": {0: result(values, 805, OTHER_JUDGE, [note])}}
    assert "AlpacaEval 2: LC win rate, not regularised" in said(found)
    assert "not regularised" not in said({"alpaca_eval": {0: alpaca(9.0)}})


def test_without_numbers_of_the_paper_there_is_no_comparison():
    found = {"gsm8k": {0: result({"exact_match": 40.0}, 1319)}}
    text = said(found, path="recipes/phi-3-mini-4k-instruct/selm.yaml")
    assert "arXiv 2405.19332 has no results for this model." in text
    text = said(found, path="recipes/qwen3-1.7b/selm.yaml")
    assert "paper:" not in text and "arXiv" not in text


# The matrix of win rates


def against(**rates):
    return result({key: (value, 2.0) for key, value in rates.items()}, judge=OTHER_JUDGE)


MATRIX = {
    0: result({}),
    1: against(win_rate_vs_0=60.0, lc_win_rate_vs_0=55.0),
    2: against(win_rate_vs_0=70.0, lc_win_rate_vs_0=65.0, win_rate_vs_1=52.5),
}


def test_what_one_side_does_not_win_the_other_wins():
    found = win_rates.matrices({"pairwise": MATRIX})
    assert found.iterations == (0, 1, 2) and found.judges == (OTHER_JUDGE,)
    half = pytest.approx(1.96 * 2.0)
    assert found.cells["win rate"][0, 2] == (30.0, half)
    assert found.cells["win rate"][2, 1] == (52.5, half)
    assert (1, 2) not in found.cells["length-controlled win rate"]
    assert all((t, t) not in cells for cells in found.cells.values() for t in (0, 1, 2))


def test_the_matrix_is_a_table_of_both_triangles():
    text = said({"pairwise": MATRIX})
    wanted = [["", "40.0 ± 3.9", "30.0 ± 3.9"], ["", "45.0 ± 3.9", "35.0 ± 3.9"]]
    assert rows_of(text, "base") == wanted
    assert rows_of(text, "iteration 2") == [
        ["70.0 ± 3.9", "52.5 ± 3.9", ""],
        ["65.0 ± 3.9", "", ""],
    ]
    assert "according to `judge Qwen/Qwen3-32B`" in text
    assert "win_rate_vs_0" not in text and "benchmarks.png" not in text


def test_a_base_model_alone_is_no_matrix():
    assert win_rates.matrices({"pairwise": {0: result({})}}) is None
    assert win_rates.matrices({"gsm8k": {0: result({"exact_match": 1.0})}}) is None


# The page, metrics.json and pictures


def evaluated(t):
    prompt = [{"role": "user", "content": "Hi"}]
    answer = {"response": "Hello", "finish_reason": "stop", "num_tokens": 2}
    reward = {"reward": float(t), "reward_of_base": 0.0}
    return {"prompt_id": "a", "prompt": prompt, **answer, **reward}


def run_with(found):
    manifest = {"rows": 1, "tokens": 0, "seconds": 1.0, "git_commit": None, "versions": {}}
    step = {"step": 1, "loss": 0.7, "loss/dpo": 0.7, "rewards/chosen": 0.1, "rewards/rejected": 0.0}
    return Results(
        evaluations={t: [evaluated(t)] for t in (0, 1)},
        roles={1: Counter(chosen=1)},
        logs={1: [step]},
        manifests={("evaluation", 0): manifest | {"dropped": {}}},
        benchmarks=found,
    )


def written(found, folder, overrides=()):
    """metrics.json and report.md as the stage writes them, and the pictures in the folder."""
    recipe, results = load_recipe(ZEPHYR, overrides), run_with(found)
    numbers = metrics(recipe, results)
    figures.draw(numbers, results, folder)
    return numbers, page(recipe, numbers, results, paper.beside(ZEPHYR))


ALL = {"gsm8k": {0: result({"exact_match": (40.0, 1.0)}, 1319)}, "pairwise": MATRIX}


def test_a_run_without_benchmarks_has_the_report_that_it_always_had(tmp_path):
    numbers, text = written({}, tmp_path)
    recipe, before = load_recipe(ZEPHYR), run_with({})
    assert "benchmarks" not in numbers and "## Benchmarks" not in text
    assert page(recipe, numbers, before) == text
    headings = ["Iterations", "Rewards and lengths", "Training", "Three prompts", "Stages"]
    assert re.findall("^## (.*)$", text, re.MULTILINE) == [*headings, "How it was made"]
    assert not {"benchmarks.png", "win_rates.png"} & {path.name for path in tmp_path.iterdir()}
    # With benchmarks there is one more section, and nothing else changes.
    more_numbers, more = written(ALL, tmp_path)
    own = "\n\n".join(benchmarks.sections(recipe, ALL, paper.beside(ZEPHYR))) + "\n\n"
    assert own in more and more.replace(own, "") == text
    assert {key: more_numbers[key] for key in numbers} == numbers


def test_the_section_stands_before_the_training_and_shows_pictures_that_are_drawn(tmp_path):
    _, text = written(ALL, tmp_path)
    assert re.search(r"lengths\.png\)\n\n## Benchmarks\n(.|\n)*\n\n## Training\n", text)
    shown = set(re.findall(r"\]\((\w+\.png)\)", text))
    assert {"benchmarks.png", "win_rates.png"} <= shown
    assert shown == {path.name for path in tmp_path.iterdir()}


def test_metrics_json_has_every_measure_and_no_number_that_json_lacks(tmp_path):
    found = {"gsm8k": {2: result({"exact_match": (41.0, float("nan"))}), 0: ALL["gsm8k"][0]}}
    numbers, _ = written(found, tmp_path)
    entries = json.loads(json.dumps(numbers, allow_nan=False))["benchmarks"]["gsm8k"]
    assert entries == [
        {
            "iteration": t,
            "measures": {"exact_match": {"value": value, "standard_error": error}},
            "n": n,
            "judge": None,
            "difference_ci95": None,
        }
        for t, value, error, n in ((0, 40.0, 1.0, 1319), (2, 41.0, None, 4))
    ]


EVIL = "\x1b[31m <img src=http://evil/x> ![x](http://evil/x.png)\n# Forged\n| a | b | $\\bad$ x$y"


def test_no_text_of_others_reaches_the_section_or_a_picture_raw(tmp_path):
    found = {
        "alpaca_eval": {0: alpaca(9.0, judge=EVIL, notes=[EVIL])},
        "pairwise": {1: against(win_rate_vs_0=60.0) | {"judge": EVIL}},
        "own": {0: result({EVIL: 1.0}, judge=EVIL)},
    }
    _, text = written(found, tmp_path)
    section = text.split("## Benchmarks")[1].split("## Training")[0]
    assert "\x1b" not in section
    outside = re.sub(r"(`+)[^`].*?[^`]\1(?!`)", "", section)
    assert "Forged" in outside
    for raw in ("<img", "](http://evil", "\n# Forged", "| a | b |"):
        assert not re.search(rf"(?<!\\){re.escape(raw)}", outside), raw
    assert all((tmp_path / f"{name}.png").stat().st_size for name in ("benchmarks", "win_rates"))


@pytest.mark.parametrize("iterations", [(0,), (3,), (0, 3), tuple(range(6))])
def test_pictures_are_drawn_for_any_number_of_iterations(iterations, tmp_path):
    many = {
        f"a_benchmark_with_a_long_name_{k}": {t: result({"m" * 60: (k, k)}) for t in iterations}
        for k in range(9)
    }
    pairs = {
        t: against(**{f"win_rate_vs_{i}": 50.0 for i in iterations if i < t}) for t in iterations
    }
    numbers, results = metrics(load_recipe(ZEPHYR), run_with({})), run_with(many)
    results.benchmarks["pairwise"] = pairs
    figures.draw(numbers, results, tmp_path)
    drawn = {path.name for path in tmp_path.iterdir()}
    assert "benchmarks.png" in drawn
    assert ("win_rates.png" in drawn) == (len(iterations) > 1)


# A line for the terminal


def test_the_terminal_shows_every_policy_and_who_judged():
    found = {
        "gsm8k": {t: result({"exact_match": 1.2 * (t + 1)}) for t in (0, 1)},
        "alpaca_eval": {0: alpaca(9.0, judge="judge \x1b me")},
        "pairwise": MATRIX,
        "nothing": {0: result({})},
    }
    lines = benchmarks.terminal_table(benchmarks.entries(found, {}))
    assert [line.split("  ")[0] for line in lines] == [
        "95% intervals",
        "gsm8k exact_match",
        "alpaca_eval lc_win_rate (judge \\x1b me)",
        f"pairwise win_rate_vs_0 ({OTHER_JUDGE})",
        "nothing",
    ]
    assert "1.20" in lines[1] and "2.40" in lines[1] and lines[1].endswith("+1.20")
    assert lines[0].index("iteration 1") == lines[1].index("2.40")
    assert benchmarks.terminal_table({}) == []


def scored(value, scores):
    rows = [{"prompt_id": str(k), "part": "", "score": s} for k, s in enumerate(scores)]
    return {"value": value, "standard_error": None}, rows


def test_a_difference_is_paired_by_question_in_the_measures_own_unit():
    base, later = [0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0]
    wanted = statistics.bootstrap_ci95([100.0, 0.0, 0.0, 0.0])
    assert paired_ci95(scored(75.0, later), scored(50.0, base)) == wanted
    assert paired_ci95(scored(0.75, later), scored(0.5, base)) == [w / 100 for w in wanted]


def test_a_difference_is_that_of_each_policy_from_the_first():
    pairs = {0: scored(50.0, [0.0, 1.0]), 1: scored(0.0, [0.0, 0.0]), 3: scored(100.0, [1.0, 1.0])}
    rows = {"gsm8k": {t: each[1] for t, each in pairs.items()}}
    found = {t: result({"exact_match": each[0]["value"]}) for t, each in pairs.items()}
    entries = benchmarks.entries({"gsm8k": found}, rows)["gsm8k"]
    wanted = [None, *(statistics.bootstrap_ci95(d) for d in ([0.0, -100.0], [100.0, 0.0]))]
    assert [entry["difference_ci95"] for entry in entries] == wanted
    assert benchmarks.terminal_table({"gsm8k": entries})[1].endswith("+50.00 [+0.00, +100.00]")


def test_a_measure_that_is_no_mean_of_scores_has_no_interval():
    assert paired_ci95(scored(71.0, [1.0, 1.0, 0.0, 1.0]), scored(48.0, [0.0, 1.0])) is None
    assert paired_ci95(scored(71.0, [1.0, 0.0]), scored(50.0, [0.0, 1.0])) is None
    assert paired_ci95(scored(50.0, [1.0, 0.0]), scored(0.0, [0.0])) is None  # other questions


# paper.yaml

PAPERS = ("zephyr-7b-sft", "llama-3-8b-instruct")


@pytest.mark.parametrize("folder", [*PAPERS, "phi-3-mini-4k-instruct"])
@pytest.mark.parametrize("kind", ["selm", "dpo"])
def test_the_file_belongs_to_the_recipes_beside_it(folder, kind):
    path = f"recipes/{folder}/{kind}.yaml"
    recipe, numbers = load_recipe(path), paper.beside(path)
    assert numbers.model == recipe.model.name_or_path
    assert numbers.iterations == len(recipe.iterations)
    found = [numbers.policy(recipe, t) for t in range(len(recipe.iterations) + 1)]
    assert all(found) if folder in PAPERS else not any(found)


@pytest.mark.parametrize("folder", PAPERS)
def test_the_numbers_are_those_of_the_recipes_page(folder):
    page_text = (REPOSITORY / "recipes" / folder / "README.md").read_text(encoding="utf-8")
    pattern = r"^\| (?:base|iteration (\d)).*?\| ([\d.]+) / ([\d.]+) \| ([\d.]+) / ([\d.]+) \|$"
    rows = re.findall(pattern, page_text, re.MULTILINE)
    numbers = paper.beside(f"recipes/{folder}/selm.yaml")
    assert len(rows) == numbers.iterations + 1
    for t, *values in rows:
        for k, kind in enumerate(("selm", "dpo")):
            policy = numbers.policy(load_recipe(f"recipes/{folder}/{kind}.yaml"), int(t or 0))
            found = policy.alpaca_eval["lc_win_rate"], policy.mt_bench["average"]
            assert found == tuple(map(float, values[2 * k : 2 * k + 2])), policy.name


@pytest.mark.parametrize("folder", PAPERS)
def test_every_policy_has_every_number_and_they_agree_with_one_another(folder):
    for policy in paper.beside(f"recipes/{folder}/selm.yaml").results:
        tasks = dict(policy.tasks)
        average = tasks.pop("average")
        assert set(tasks) == set(TASKS)
        # Rounded to 0.1 and 0.01: a mean can be off by as much as it is rounded by, twice.
        assert sum(tasks.values()) / 6 == pytest.approx(average, abs=0.1 + 1e-9), policy.name
        turns = policy.mt_bench["first_turn"] + policy.mt_bench["second_turn"]
        assert turns / 2 == pytest.approx(policy.mt_bench["average"], abs=0.01 + 1e-9), policy.name
        assert set(policy.alpaca_eval) == {"lc_win_rate", "win_rate", "length"}


@pytest.mark.parametrize(
    ("folder", "lc", "mt"), [("zephyr-7b-sft", 16.24, 2.31), ("llama-3-8b-instruct", 11.75, 0.32)]
)
def test_the_gains_are_those_that_the_paper_states(folder, lc, mt):
    path = f"recipes/{folder}/selm.yaml"
    numbers, recipe = paper.beside(path), load_recipe(path)
    base, last = numbers.policy(recipe, 0), numbers.policy(recipe, numbers.iterations)
    gained = last.alpaca_eval["lc_win_rate"] - base.alpaca_eval["lc_win_rate"]
    assert gained == pytest.approx(lc)
    assert last.mt_bench["average"] - base.mt_bench["average"] == pytest.approx(mt)


def test_a_file_that_is_not_of_this_form_is_refused_in_one_line(tmp_path):
    recipe = tmp_path / "selm.yaml"
    assert paper.beside(recipe) is None
    (tmp_path / "paper.yaml").write_text("source: a\nmodel: b\niterations: x\nresults: []\n")
    with pytest.raises(UserError, match=r"paper.yaml: iterations: .*correct it or delete"):
        paper.beside(recipe)
    (tmp_path / "paper.yaml").write_text("source: a\nmodel: b\niterations: 1\nresutls: []\n")
    with pytest.raises(UserError, match=r"paper.yaml: (results|resutls): "):
        paper.beside(recipe)
    (tmp_path / "paper.yaml").write_text("{")
    with pytest.raises(UserError, match=r"paper.yaml: not valid YAML"):
        paper.beside(recipe)
