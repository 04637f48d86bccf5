"""The academic benchmarks against the lm-eval that is installed: its tasks, and its scores."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean

import lm_eval_questions
import pytest
import yaml
from lm_eval.tasks._yaml_loader import load_yaml

from selm.errors import UserError
from selm.evaluation import lm_eval_requests
from selm.evaluation.base import Measured, Measuring
from selm.evaluation.lm_eval import BENCHMARKS_OF_LM_EVAL, TASKS
from selm.evaluation.lm_eval_requests import portions
from selm.evaluation.lm_eval_run import DEFINITIONS
from selm.generation.kinds import KINDS
from selm.recipe.loading import load_recipe

# Our name, lm-eval's, examples, metric: as the paper's table 2 says, which gives no metrics.
PAPER = [
    ("gsm8k", "gsm8k_cot", 8, "exact_match,strict-match"),
    ("hellaswag", "hellaswag", 10, "acc_norm,none"),
    ("arc_challenge", "arc_challenge", 25, "acc_norm,none"),
    ("truthfulqa", "truthfulqa_mc2", 0, "acc,none"),
    ("eq_bench", "eq_bench", 0, "eqbench,none"),
    ("openbookqa", "openbookqa", 10, "acc_norm,none"),
]

# A kind of requests, examples drawn by a seed, and prompts that the tiny model has to cut, each.
COMPARED = ("arc_challenge", "gsm8k", "truthfulqa")


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In a folder whose name is a pattern for `datasets`."""
    return lm_eval_questions.write(tmp_path_factory.mktemp("questions") / "a[1]")


@pytest.fixture
def measuring(tiny_recipe: str, questions: Path, tmp_path: Path) -> Measuring:
    recipe = load_recipe(tiny_recipe, [f"benchmarks.data={questions}", "generation.shard_size=8"])
    return Measuring(
        recipe=recipe,
        t=0,
        policy=recipe.model.name_or_path,
        folder=tmp_path / "partial",
        what="test",
        answers={},
        verdicts=tmp_path / "verdicts",
    )


def with_benchmarks(measuring: Measuring, **changed: object) -> Measuring:
    benchmarks = measuring.recipe.benchmarks.model_copy(update=changed)
    recipe = measuring.recipe.model_copy(update={"benchmarks": benchmarks})
    return replace(measuring, recipe=recipe)


def measure(name: str, measuring: Measuring) -> Measured:
    folder = measuring.folder / name
    return BENCHMARKS_OF_LM_EVAL[name].measure(replace(measuring, folder=folder))


@pytest.fixture(scope="session")
def of_the_command_line(
    tiny_model: str, questions: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict:
    """What lm-eval's own command writes for the same questions."""
    folder = tmp_path_factory.mktemp("command-line")
    for name in COMPARED:
        task = TASKS[name]
        files = (questions / name).glob("*.jsonl")
        changed = {
            "include": str(DEFINITIONS / task.file),
            "task": f"local_{task.task}",
            "num_fewshot": task.shots,
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {
                "data_files": {file.stem: str(file).replace("[", "[[]") for file in files},
                "cache_dir": str(folder / "cache"),
            },
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu"]
    command += ["--model_args", f"pretrained={tiny_model},dtype=float32", "--batch_size", "4"]
    command += ["--tasks", *(str(folder / f"{name}.yaml") for name in COMPARED)]
    command += ["--output_path", str(folder / "results"), "--log_samples"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    (file,) = (folder / "results").glob("**/results_*.json")
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", COMPARED)
def test_the_scores_are_those_of_the_command_line(
    name: str, measuring: Measuring, of_the_command_line: dict
) -> None:
    task, found = TASKS[name], measure(name, measuring)
    theirs = of_the_command_line["results"][f"local_{task.task}"]
    assert list(found.measures) == list(task.metrics)
    for ours, key in task.metrics.items():
        metric, chosen = key.split(",")
        measured = found.measures[ours]
        assert measured["value"] == pytest.approx(100 * theirs[key], rel=1e-3)
        error = theirs[f"{metric}_stderr,{chosen}"]
        assert measured["standard_error"] == pytest.approx(100 * error, rel=1e-3)
    hashes = of_the_command_line["task_hashes"]
    assert found.facts["samples_hash"] == hashes[f"local_{task.task}"]


@pytest.mark.parametrize(("name", "task", "shots", "metric"), PAPER)
def test_every_task_is_lm_evals_own(
    name: str, task: str, shots: int, metric: str, measuring: Measuring
) -> None:
    found = measure(name, measuring)
    facts = found.facts
    assert (facts["task"], facts["shots"], facts["metric"]) == (task, shots, metric)
    assert facts["lm_eval"] == "0.4.13" and facts["task_version"] > 0
    assert facts["questions"] == {"original": 12, "effective": 12}
    headline = next(iter(found.measures.values()))
    assert len(found.rows) == len({row["prompt_id"] for row in found.rows}) == 12
    assert mean(row["score"] for row in found.rows) == pytest.approx(headline["value"])
    assert all(0 <= each["value"] <= 100 for each in found.measures.values())
    assert found.judge is None and found.tokens > 1000
    assert found.notes[0] == "Its questions are those of benchmarks.data, not the published ones."


def test_the_table_is_what_lm_eval_defines() -> None:
    assert list(TASKS) == [name for name, *_ in PAPER]
    for task in TASKS.values():
        defined = load_yaml(DEFINITIONS / task.file, resolve_func=False)
        assert defined["task"] == task.task
        assert defined.get("num_fewshot") in (None, task.shots)
        listed = {each["metric"] for each in defined["metric_list"]}
        filters = {each["name"] for each in defined.get("filter_list", [{"name": "none"}])}
        for key in task.metrics.values():
            metric, chosen = key.split(",")
            assert metric in listed and chosen in filters
        assert task.splits[-1] == (defined.get("test_split") or defined["validation_split"])
        training = defined.get("training_split") if task.shots else None
        assert list(task.splits[:-1]) == ([training] if training else [])


def test_the_policy_is_loaded_once_for_all_tasks(
    measuring: Measuring, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    kind = KINDS["transformers"]

    def counted(*arguments: object) -> object:
        loads.append(arguments[0])
        return kind.harness(*arguments)

    monkeypatch.setitem(KINDS, "transformers", replace(kind, harness=counted))
    lm_eval_requests.forget()
    for name in ("truthfulqa", "openbookqa"):
        measure(name, measuring)
    assert loads == [measuring.policy]


# In a process of its own: recipe, folder, overrides.
OPENBOOKQA = """
import json, sys
from pathlib import Path
from selm.evaluation.base import Measuring
from selm.evaluation.lm_eval import BENCHMARKS_OF_LM_EVAL
from selm.recipe.loading import load_recipe
recipe = load_recipe(sys.argv[1], sys.argv[3:])
folder = Path(sys.argv[2])
found = BENCHMARKS_OF_LM_EVAL["openbookqa"].measure(
    Measuring(recipe=recipe, t=0, policy=recipe.model.name_or_path, folder=folder, what="test",
              answers={}, verdicts=folder / "verdicts"))
print(json.dumps([found.measures, found.rows, found.tokens]))
"""


def test_a_killed_measurement_goes_on_where_it_was(
    measuring: Measuring, tiny_recipe: str, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = measuring.folder / "openbookqa"
    overrides = [f"benchmarks.data={questions}", "generation.shard_size=2"]
    measuring = replace(measuring, recipe=load_recipe(tiny_recipe, overrides))
    command = [sys.executable, "-c", OPENBOOKQA, tiny_recipe, str(folder), *overrides]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while len(list(folder.glob("loglikelihood/shard-*.parquet"))) < 2:
        assert running.poll() is None and time.monotonic() < until
        time.sleep(0.005)
    running.kill()
    running.wait()
    kept = len(list(folder.glob("loglikelihood/shard-*.parquet")))
    assert 2 <= kept < 24

    lm_eval_requests.forget()
    asked = []
    answer = lm_eval_requests._answer
    monkeypatch.setattr(
        lm_eval_requests,
        "_answer",
        lambda shard, *rest: asked.extend(shard) or answer(shard, *rest),
    )
    continued = measure("openbookqa", measuring)
    assert len(asked) == 48 - 2 * kept
    whole = measure("openbookqa", replace(measuring, folder=measuring.folder / "another"))
    assert whole.measures == continued.measures and whole.rows == continued.rows
    assert whole.tokens == continued.tokens


def test_two_workers_measure_as_one_does(measuring: Measuring) -> None:
    generation = measuring.recipe.generation.model_copy(update={"workers": 2})
    recipe = measuring.recipe.model_copy(update={"generation": generation})
    alone = measure("openbookqa", measuring)
    two = replace(measuring, recipe=recipe, folder=measuring.folder / "two")
    together = measure("openbookqa", two)
    assert len(list(two.folder.glob("openbookqa/*/worker-*.log"))) == 2
    assert together.measures == alone.measures and together.rows == alone.rows


@pytest.mark.vllm
def test_vllm_measures_what_transformers_does(
    measuring: Measuring, tiny_recipe: str, questions: Path, tmp_path: Path
) -> None:
    temporary = {"TMPDIR": str(tmp_path)}  # a stage has a folder of its own for that
    overrides = [f"benchmarks.data={questions}", "generation.engine=vllm"]
    command = [sys.executable, "-c", OPENBOOKQA, tiny_recipe, str(measuring.folder), *overrides]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | temporary
    )
    assert ended.returncode == 0, ended.stderr
    measures, rows, tokens = json.loads(ended.stdout.splitlines()[-1])
    theirs = measure("openbookqa", measuring)
    assert measures == theirs.measures and tokens == theirs.tokens
    for row, other in zip(rows, theirs.rows, strict=True):
        replies, others = (json.loads(each["details"])["replies"] for each in (row, other))
        for (log_prob, _), (expected, _) in zip(replies, others, strict=True):
            assert log_prob == pytest.approx(expected, rel=1e-4)


def test_nothing_is_loaded_if_all_is_there(
    measuring: Measuring, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measure("truthfulqa", measuring)
    lm_eval_requests.forget()
    monkeypatch.setitem(KINDS, "transformers", replace(KINDS["transformers"], harness=None))
    again = measure("truthfulqa", measuring)
    assert again.measures == first.measures and again.tokens == first.tokens


def test_only_the_first_questions_are_asked(measuring: Measuring) -> None:
    limited = with_benchmarks(measuring, limit=3)
    found = measure("truthfulqa", limited)
    assert [row["prompt_id"] for row in found.rows] == ["0", "1", "2"]
    assert "Asked the first 3 of 12 questions." in found.notes
    assert BENCHMARKS_OF_LM_EVAL["truthfulqa"].workload(limited.recipe).questions == 3


def test_the_chat_template_is_off_unless_the_recipe_wants_it(
    measuring: Measuring, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[bool, str] = {}
    answer = lm_eval_requests._answer
    for wanted in (False, True):

        def looked_at(shard: list, *rest: object, wanted: bool = wanted) -> list:
            seen[wanted] = shard[0]["context"]
            return answer(shard, *rest)

        monkeypatch.setattr(lm_eval_requests, "_answer", looked_at)
        there = replace(measuring, folder=measuring.folder / str(wanted))
        found = measure("eq_bench", with_benchmarks(there, chat_template=wanted, limit=1))
        assert any("chat" in note for note in found.notes) == wanted
        assert found.measures["eqbench"]["standard_error"] is None  # of one question
    assert seen[False].startswith("Ann: ")
    assert "<|im_start|>user\nAnn: " in seen[True]
    assert seen[True].endswith("<|im_start|>assistant\n")


def test_prompts_that_are_cut_are_counted(measuring: Measuring) -> None:
    """The tiny model sees 512 tokens: fewer than 25 examples have, more than none."""
    cut = r"(\d+) prompts did not fit"
    (note,) = (note for note in measure("arc_challenge", measuring).notes if re.match(cut, note))
    assert re.match(cut, note)[1] == "48"
    assert not any(re.match(cut, note) for note in measure("eq_bench", measuring).notes)


def test_it_is_quiet_but_for_one_bar(
    measuring: Measuring, capfd: pytest.CaptureFixture[str]
) -> None:
    measure("hellaswag", measuring)  # loads the policy, if no other test has
    capfd.readouterr()
    there = replace(measuring, folder=measuring.folder / "again", what="hellaswag of iteration 0")
    measure("hellaswag", there)
    said = capfd.readouterr()
    assert said.out == ""
    updates = [line for line in re.split(r"[\r\n]+", said.err) if line]
    assert updates and all(line.startswith("hellaswag of iteration 0: ") for line in updates)


def refusal(name: str, measuring: Measuring) -> str:
    with pytest.raises(UserError) as caught:
        measure(name, measuring)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_folder_that_lacks_a_task_is_refused(measuring: Measuring, tmp_path: Path) -> None:
    (tmp_path / "arc_challenge").mkdir()
    (tmp_path / "arc_challenge" / "test.jsonl").touch()
    there = with_benchmarks(measuring, data=str(tmp_path))
    benchmark = BENCHMARKS_OF_LM_EVAL["arc_challenge"]
    said = refusal("arc_challenge", there)
    assert said.startswith(f"benchmarks.data: {tmp_path / 'arc_challenge'} lacks train.jsonl; ")
    for function in (benchmark.check, benchmark.files, benchmark.workload):
        with pytest.raises(UserError, match=r"benchmarks\.data: .* lacks train\.jsonl"):
            function(there.recipe)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "no JSON"),
        ('{"question": "?"}', "no column answer"),
        ('{"question": null, "answer": "1"}', "no column question"),
        ("3", "no column question and answer"),
        ("", "has 0 rows"),
    ],
)
def test_a_bad_row_is_named(line: str, what: str, measuring: Measuring, tmp_path: Path) -> None:
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl").write_text(f"\n{line}\n", encoding="utf-8")
    said = refusal("gsm8k", with_benchmarks(measuring, data=str(tmp_path)))
    assert said.startswith("benchmarks.data: ") and what in said
    assert not line or "test.jsonl line 2" in said


@pytest.mark.parametrize(
    ("split", "choices"),
    [("test", "ABCD"), ("test", {"text": ["yes"]}), ("train", {"text": [], "label": []})],
)
def test_rows_of_another_form_are_refused(
    split: str, choices: object, measuring: Measuring, tmp_path: Path
) -> None:
    lm_eval_questions.write(tmp_path)
    path = tmp_path / "openbookqa" / f"{split}.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows[1:]:
        row["choices"] = choices
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    said = refusal("openbookqa", with_benchmarks(measuring, data=str(tmp_path)))
    assert said.startswith("benchmarks.data: the rows of ") and "on the Hub: " in said


def test_too_few_rows_for_the_examples_are_refused(
    measuring: Measuring, questions: Path, tmp_path: Path
) -> None:
    lm_eval_questions.write(tmp_path)
    train = tmp_path / "arc_challenge" / "train.jsonl"
    train.write_text("".join(train.read_text().splitlines(keepends=True)[:24]))
    said = refusal("arc_challenge", with_benchmarks(measuring, data=str(tmp_path)))
    assert "train.jsonl has 24 rows; arc_challenge needs 25 or more" in said


def test_without_network_and_local_questions_the_way_is_named(measuring: Measuring) -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    said = refusal("hellaswag", with_benchmarks(measuring, data=None))
    assert said.startswith("benchmarks.data: the questions of hellaswag cannot be read from the ")
    assert said.endswith("hellaswag/train.jsonl and hellaswag/validation.jsonl")


def test_a_missing_package_is_named(measuring: Measuring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = refusal("gsm8k", measuring)
    assert said.startswith("benchmarks.names: lm_eval is not installed; run `make setup`, or ")


def test_an_engine_without_a_harness_is_refused(
    measuring: Measuring, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = replace(KINDS["transformers"], harness=type(KINDS["vllm"]).harness)
    monkeypatch.setitem(KINDS, "transformers", another)
    lm_eval_requests.forget()
    assert refusal("truthfulqa", measuring).startswith("generation.engine: lm-eval has no model ")


def test_the_content_of_local_questions_counts(measuring: Measuring, questions: Path) -> None:
    files = BENCHMARKS_OF_LM_EVAL["openbookqa"].files(measuring.recipe)
    assert files == {
        f"openbookqa/{split}.jsonl": questions / "openbookqa" / f"{split}.jsonl"
        for split in ("train", "test")
    }
    from_hub = with_benchmarks(measuring, data=None).recipe
    assert BENCHMARKS_OF_LM_EVAL["openbookqa"].files(from_hub) == {}
    assert BENCHMARKS_OF_LM_EVAL["openbookqa"].workload(from_hub).questions == 500


@pytest.mark.parametrize("tokens", [None, 0, 10, 1000])
def test_every_text_is_read_once(tokens: int | None) -> None:
    lengths = [3, 9, 4, 2, 9, 1]
    found = portions(lengths, tokens)
    assert sorted(i for part in found for i in part) == list(range(6))
    if tokens is not None:
        padded = [len(part) * max(lengths[i] for i in part) for part in found if len(part) > 1]
        assert all(size <= tokens for size in padded)
