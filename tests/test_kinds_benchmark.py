"""A benchmark is one description: with that alone the plan, the stages and the checks know it."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from counting_benchmark import COUNTING, PROMPTS

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import answer as answer_script
import benchmark as benchmark_script

from selm.cost.benchmarks import cost, start_seconds
from selm.data.parquet import read_rows
from selm.errors import UserError
from selm.evaluation.kinds import BENCHMARKS
from selm.recipe.loading import load_recipe
from selm.run import artifacts, benchmark_plan
from selm.run.lineage import recipe_part
from selm.run.plan import Run


@pytest.fixture(autouse=True)
def _it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BENCHMARKS, "counting", COUNTING)


def words_of(tiny_recipe: str, tmp_path: Path) -> list[str]:
    return [tiny_recipe, "benchmarks.names=[counting]", f"output_dir={tmp_path / 'runs'}"]


def test_it_is_answered_and_measured(
    tiny_recipe: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = words_of(tiny_recipe, tmp_path)
    recipe = load_recipe(words[0], words[1:])
    monkeypatch.setattr("selm.cli.log_to", lambda *where: None)
    of_base = ["script", *words, "--iteration", "0"]
    monkeypatch.setattr(sys, "argv", [*of_base, "--benchmark", "counting"])
    answer_script.main()
    monkeypatch.setattr(sys, "argv", of_base)
    benchmark_script.main()
    folder = artifacts.folder(recipe, "benchmarks/counting/results", 0)
    assert f"{folder}: written, 2 rows, length " in capsys.readouterr().out
    answers = read_rows(artifacts.folder(recipe, "benchmarks/counting/answers", 0) / "test.parquet")
    assert [row["prompt"][0]["content"] for row in answers] == list(PROMPTS)
    lengths = [len(row["responses"][0]) for row in answers]
    assert [row["score"] for row in read_rows(folder / "test.parquet")] == lengths
    found = json.loads((folder / "results.json").read_text())
    assert found["measures"] == {"length": {"value": sum(lengths) / 2, "standard_error": None}}
    assert (found["benchmark"], found["iteration"], found["n"]) == ("counting", 0, 2)
    assert (folder / "a.txt").read_text() == "b"

    benchmark_script.main()
    assert f"{folder}: already done" in capsys.readouterr().out
    monkeypatch.setitem(BENCHMARKS, "counting", replace(COUNTING, revision=2))
    state = artifacts.state(recipe, "benchmarks/counting/results", 0)
    assert state.why == "recipe changed: benchmarks.counting.revision (1 -> 2)"


def test_a_key_of_the_judge_leaves_the_answers_alone(
    tiny_recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BENCHMARKS, "counting", replace(COUNTING, judged=True))
    words = words_of(tiny_recipe, tmp_path)
    one = load_recipe(words[0], [*words[1:], "benchmarks.judge={ranker: random}"])
    other = load_recipe(words[0], [*words[1:], "benchmarks.judge={ranker: pairrm}"])
    parts = {
        part: [recipe_part(recipe, f"benchmarks/counting/{part}", 0) for recipe in (one, other)]
        for part in ("answers", "results")
    }
    assert parts["answers"][0] == parts["answers"][1]
    assert parts["results"][0] != parts["results"][1]


def test_the_plan_has_a_command_for_each_policy(tiny_recipe: str, tmp_path: Path) -> None:
    words = words_of(tiny_recipe, tmp_path)
    run = Run(load_recipe(words[0], words[1:]), words[0], tuple(words[1:]))
    lines = benchmark_plan.script(run).splitlines()
    commands = [line for line in lines if line.startswith("python")]
    count = len(run.recipe.iterations) + 1
    of_benchmarks = f"python scripts/benchmark.py {tiny_recipe} --iteration 0 --benchmark counting"
    assert commands[0].startswith(of_benchmarks)
    assert len(commands) == count + 1 and commands[-1].startswith("python scripts/report.py")
    tokens = 2 * (9 + run.recipe.generation.max_tokens)
    said = f"# counting: 2 questions, {tokens} tokens; "
    assert sum(line.startswith(said) for line in lines) == 1


def test_benchmarks_of_one_process_load_the_policy_once() -> None:
    path = "recipes/zephyr-7b-sft/selm.yaml"
    tasks = ["arc_challenge", "openbookqa"]
    recipe = load_recipe(
        path, [f"benchmarks.names=[{','.join(tasks)}]", "benchmarks.iterations=[0]"]
    )
    alone = sum(cost(recipe, name).seconds for name in tasks)
    (minutes,) = re.findall(r"# estimate: (\d+) min,", benchmark_plan.script(Run(recipe, path)))
    assert int(minutes) == round((alone - start_seconds(recipe)) / 60)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("benchmarks.names=[countin]", "benchmarks.names: 'countin' is not one of .*'counting'"),
        ("benchmarks.names=[counting,counting]", "counting stands there twice"),
        ("benchmarks.judge={ranke: random}", "benchmarks.judge.ranke: unknown key in .*ranker"),
        ("benchmarks.judge={judge: {bas_url: x}}", "judge.judge.bas_url: unknown .*base_url"),
        ("benchmarks.iterations=[0,9]", "benchmarks.iterations: 9 is not one of 0.."),
        ("benchmarks.data=nowhere", "benchmarks.data: no such file: nowhere"),
        ("benchmarks.judge={ranker: reward_model}", "benchmarks.judge.name_or_path: missing"),
    ],
)
def test_a_mistake_is_named(tiny_recipe: str, override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_recipe(tiny_recipe, [override])
