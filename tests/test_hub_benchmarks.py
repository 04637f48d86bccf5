"""Benchmarks on the Hub: one dataset for all, and the results on the card of the right model."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from counting_benchmark import COUNTING, measure
from huggingface_hub import DatasetCard, EvalResult, ModelCard, constants
from loopback_hub import LoopbackHub, User

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import answer as answer_script
import benchmark as benchmark_script

from selm.data.parquet import read_rows
from selm.data.schemas import BenchmarkRow, ResponseRow, described
from selm.errors import OutsideError
from selm.evaluation.base import Measured, Measuring
from selm.evaluation.kinds import BENCHMARKS
from selm.hub import exchange, model_results
from selm.huggingface import API
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Recipe
from selm.run import artifacts, on_hub
from selm.run.artifacts import state
from selm.run.on_hub import Place, place
from selm.run.plan import Run
from selm.run.stages import stages
from selm.run.writing import writing

TOKEN = "hf_me"
DATASET = ("datasets", "me/tiny-benchmarks")
MODEL = ("models", "me/tiny-iter-1")
ANSWERS, RESULTS = "benchmarks/counting/answers", "benchmarks/counting/results"
PUSHED = ("hub.push=true", "hub.namespace=me")


def judged(asked: Measuring) -> Measured:
    found = measure(asked)
    length = found.measures["length"]["value"] + asked.t  # for the policies here are the same
    measures = {
        "length": {"value": length, "standard_error": 0.25},
        "half": {"value": length / 2, "standard_error": None},
    }
    return replace(found, measures=measures, judge="a *judge*", notes=["Only <two> questions."])


@pytest.fixture(autouse=True)
def _it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BENCHMARKS, "counting", replace(COUNTING, measure=judged))
    monkeypatch.setattr("selm.cli.log_to", lambda *where: None)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """This process's own client talks to it, by LFS."""
    started = LoopbackHub([User("me", TOKEN)]).start()
    settings = {
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "ENDPOINT": started.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(
            constants.ENDPOINT, started.endpoint
        ),
    }
    for key, value in settings.items():
        monkeypatch.setattr(constants, key, value)
    monkeypatch.setattr(API, "endpoint", started.endpoint)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    on_hub.tags.cache_clear()
    yield started
    on_hub.tags.cache_clear()
    started.stop()


Machine = Callable[..., Run]


@pytest.fixture
def machine(tiny_recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """An empty machine, on which a test goes on."""

    def make(name: str, *overrides: str) -> Run:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / name / "hub"))
        on_hub.tags.cache_clear()
        words = (f"output_dir={tmp_path / name}", "benchmarks.names=[counting]", *overrides)
        return Run(load_recipe(tiny_recipe, words), tiny_recipe, words)

    return make


def rank(run: Run, t: int) -> None:
    """What the stages before the training of iteration t leave, without rows."""
    for stage in ("responses", "preferences"):
        with writing(run, stage, t):
            pass


def train(run: Run, t: int, loss: float = 0.5) -> None:
    """What a training leaves; the model is the one that it starts from."""
    with writing(run, "checkpoint", t) as record:
        shutil.copytree(run.recipe.model.name_or_path, record.folder, dirs_exist_ok=True)
        log = json.dumps([{"loss": loss}])
        (record.folder / "training_log.json").write_text(log, encoding="utf-8")


def call(monkeypatch: pytest.MonkeyPatch, run: Run, t: int, *scripts: str) -> None:
    """The main functions of `answer.py` or `benchmark.py`, one after the other."""
    words = ["script", run.path, *run.overrides, "--iteration", str(t), "--benchmark", "counting"]
    for script in scripts:
        monkeypatch.setattr(sys, "argv", words)
        {"answer": answer_script, "benchmark": benchmark_script}[script].main()


@pytest.fixture
def first(hub: LoopbackHub, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A machine that has measured the base model and iteration 1, and pushed everything."""
    run = machine("first", *PUSHED)
    rank(run, 1)
    train(run, 1)
    for t in (0, 1):
        call(monkeypatch, run, t, "answer", "benchmark")
    return run


def results_of(run: Run, t: int) -> dict:
    path = artifacts.folder(run.recipe, RESULTS, t) / "results.json"
    return json.loads(path.read_text(encoding="utf-8"))


def model_card(hub: LoopbackHub) -> ModelCard:
    return ModelCard(hub.files(*MODEL)["README.md"].decode())


def test_all_benchmarks_are_in_one_dataset(tiny_recipe: str) -> None:
    recipe = load_recipe(tiny_recipe, PUSHED)
    where = place(recipe, "benchmarks/gsm8k/results", 2)
    repo = "me/tiny-benchmarks"
    assert where == Place(repo, "dataset", "iter-2/gsm8k/results", "iter-2-gsm8k-results")
    assert where.path("a.txt") == "iter-2/gsm8k/results/a.txt"
    parts = ("answers", "results")
    places = {place(recipe, f"benchmarks/{n}/{p}", t) for n in "ab" for p in parts for t in (0, 1)}
    assert len(places) == 8 and {each.repo for each in places} == {repo}


def test_each_part_is_one_commit_and_one_tag(first: Run, hub: LoopbackHub) -> None:
    tags = [f"iter-{t}-counting-{part}" for t in (0, 1) for part in ("answers", "results")]
    repo = hub.repos[DATASET]
    assert sorted(repo.tags) == tags and repo.private
    titles = [f"{tag}: {tag.rpartition('-')[-1]}" for tag in tags]
    assert hub.commits(*DATASET) == ["initial", *titles]
    for stage, t in ((ANSWERS, 0), (RESULTS, 0), (ANSWERS, 1), (RESULTS, 1)):
        where = place(first.recipe, stage, t)
        there = hub.files(*DATASET, where.tag)
        for path in artifacts.folder(first.recipe, stage, t).iterdir():
            assert there[where.path(path.name)] == path.read_bytes()


READ_BACK = """
from datasets import load_dataset
for t in (0, 1):
    for part in ("answers", "results"):
        rows = load_dataset("me/tiny-benchmarks", f"counting-{part}", split=f"iter_{t}")
        print(rows.num_rows, ",".join(rows.column_names))
loaded = load_dataset("me/tiny-benchmarks", "counting-results", revision="iter-1-counting-results")
print(*loaded)
print(*loaded["iter_1"]["score"])
"""


def test_datasets_loads_each_part_and_iteration(first: Run, hub, tmp_path: Path) -> None:
    online = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "reader"), "HF_TOKEN": TOKEN}
    online |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", READ_BACK]
    done = subprocess.run(command, env=os.environ | online, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    columns = {
        part: ",".join(name for name, *_ in described(row) if name != "tools")
        for part, row in (("answers", ResponseRow), ("results", BenchmarkRow))
    }
    *parts, splits, scores = done.stdout.splitlines()
    assert parts == [f"2 {columns['answers']}", f"2 {columns['results']}"] * 2
    assert splits == "iter_0 iter_1"
    rows = read_rows(artifacts.folder(first.recipe, RESULTS, 1) / "test.parquet")
    assert [float(score) for score in scores.split()] == [row["score"] for row in rows]


def test_the_datasets_card_shows_the_results_and_how_they_were_made(first: Run, hub) -> None:
    card = DatasetCard(hub.files(*DATASET)["README.md"].decode())
    configs = {each["config_name"]: each["data_files"] for each in card.data.configs}
    assert configs == {
        f"counting-{part}": [
            {"split": f"iter_{t}", "path": f"iter-{t}/counting/{part}/test.parquet"} for t in (0, 1)
        ]
        for part in ("answers", "results")
    }
    values = [results_of(first, t)["measures"]["length"]["value"] for t in (0, 1)]
    cells = [cell.strip() for cell in line_with(card.text, "| counting ").strip("|").split(" | ")]
    assert cells[:4] == ["counting", "length", r"a \*judge\*", "2"]
    assert cells[4:6] == [f"{value:.2f} ± 0.25" for value in values]
    assert r"- `counting`: Only \<two\> questions." in card.text
    for row in (ResponseRow, BenchmarkRow):
        for name, kind, meaning in described(row):
            assert f"| `{name}` | {kind} | {meaning} |" in card.text
    section = card.text[card.text.index("## counting, results of iteration 1") :]
    commits = [hub.repos[DATASET].tags["iter-1-counting-answers"], hub.repos[MODEL].tags["iter-1"]]
    assert "me/tiny-benchmarks, config `counting-answers`, split `iter_1`]" in section
    assert all(f"at commit `{commit}`" in section for commit in commits)
    assert "scripts/benchmark.py" in section and "selm 0." in section
    assert "revision: 1" in section, "the settings name the benchmark's revision"


def line_with(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def test_a_models_card_has_what_measured_it(first: Run, hub: LoopbackHub) -> None:
    card, measures = model_card(hub), results_of(first, 1)["measures"]
    found = {entry.metric_type: entry for entry in card.data.eval_results}
    assert {name: entry.metric_value for name, entry in found.items()} == {
        name: each["value"] for name, each in measures.items()
    }
    entry = found["length"]
    assert entry.metric_name == "length, 2 questions, judged by a *judge*"
    assert entry.metric_args == {"standard_error": 0.25} and found["half"].metric_args is None
    assert (entry.dataset_name, entry.dataset_type) == ("counting", "me/tiny-benchmarks")
    where = (entry.dataset_config, entry.dataset_split, entry.dataset_revision)
    assert where == ("counting-results", "iter_1", "iter-1-counting-results")
    assert entry.source_url == place(first.recipe, RESULTS, 1).url
    cells = [cell.strip() for cell in line_with(card.text, "| counting ").strip("|").split(" | ")]
    value = f"{measures['length']['value']:.2f} ± 0.25"
    assert cells == ["counting", "length", r"a \*judge\*", "2", value]
    assert card.text.index("## Benchmarks") < card.text.index("## Citation")
    assert ("iter-0", "tiny-iter-0") not in hub.repos, "the base model is nobody's repository"


def test_a_second_push_changes_nothing(first: Run, hub, monkeypatch, capsys) -> None:
    before = {key: hub.commits(*key) for key in hub.repos}
    tagged = hub.repos[MODEL].tags["iter-1"]
    assert before[MODEL] == ["initial", "iter-1: checkpoint", "iter-1: results of benchmarks"]
    capsys.readouterr()
    call(monkeypatch, first, 1, "benchmark")
    assert "already done" in capsys.readouterr().out
    model_results.attach(first.recipe, 1)
    assert {key: hub.commits(*key) for key in hub.repos} == before
    assert hub.repos[MODEL].tags == {"iter-1": tagged}
    assert hub.repos[MODEL].resolve("iter-1").title == "iter-1: checkpoint"


def test_what_others_wrote_on_the_card_stays(first: Run, hub: LoopbackHub) -> None:
    """Also where they have removed the place of the table."""
    card = model_card(hub)
    theirs = EvalResult("text-generation", "cais/mmlu", "MMLU", "acc", 0.5)
    card.data.eval_results, card.data.license = [theirs], "mit"
    card.text = "\n# Mine\n"
    files = hub.files(*MODEL) | {"README.md": str(card).encode()}
    tree = {path: hub.blob(path, data) for path, data in files.items()}
    hub.repos[MODEL].add_commit("main", tree, "by hand")
    model_results.attach(first.recipe, 1)
    found = model_card(hub)
    assert found.data.license == "mit" and found.text.startswith("\n# Mine\n")
    assert found.data.eval_results[0] == theirs and len(found.data.eval_results) == 3
    assert found.text.count("## Benchmarks") == 1
    assert hub.commits(*MODEL)[-2:] == ["by hand", "iter-1: results of benchmarks"]


def test_a_model_that_is_pushed_after_its_results_has_them(first: Run, hub) -> None:
    card = hub.files(*MODEL)["README.md"]
    del hub.repos[MODEL]
    on_hub.tags.cache_clear()
    exchange.push(first, "checkpoint", 1)
    assert hub.commits(*MODEL) == ["initial", "iter-1: checkpoint"]
    assert hub.files(*MODEL)["README.md"] == card


def test_another_checkpoint_has_nothing_of_these_results(first: Run, hub) -> None:
    del hub.repos[MODEL]
    on_hub.tags.cache_clear()
    shutil.rmtree(artifacts.folder(first.recipe, "checkpoint", 1))
    train(first, 1, loss=0.6)
    exchange.push(first, "checkpoint", 1)
    card = model_card(hub)
    assert card.data.eval_results is None and "## Benchmarks" not in card.text
    model_results.attach(first.recipe, 1)
    assert hub.commits(*MODEL) == ["initial", "iter-1: checkpoint"]


@pytest.mark.parametrize("changed", ["results/results.json", "answers/manifest.json"])
def test_results_that_are_not_as_they_were_made_are_on_no_card(first, hub, changed: str) -> None:
    """A damaged upload; results of answers that are others now."""
    path, repo = f"iter-1/counting/{changed}", hub.repos[DATASET]
    files = hub.files(*DATASET) | {path: hub.files(*DATASET)[path] + b"\n"}
    tree = {name: hub.blob(name, data) for name, data in files.items()}
    repo.tags["iter-1-counting-answers"] = repo.add_commit("main", tree, "change").oid
    on_hub.tags.cache_clear()
    model_results.attach(first.recipe, 1)
    assert model_card(hub).data.eval_results is None
    assert "## Benchmarks" not in model_card(hub).text


def test_what_another_process_has_pushed_is_not_pushed_again(first: Run, hub) -> None:
    """Such as the one that answers, between this one's looks at the Hub."""
    repo = hub.repos[DATASET]
    commit = repo.tags.pop("iter-1-counting-answers")
    on_hub.tags.cache_clear()
    assert not artifacts.is_pushed(first.recipe, ANSWERS, 1)
    repo.tags["iter-1-counting-answers"] = commit
    commits, seen = hub.commits(*DATASET), len(hub.log)
    exchange.push(first, ANSWERS, 1)
    assert hub.commits(*DATASET) == commits and repo.tags["iter-1-counting-answers"] == commit
    assert not [line for line in hub.log[seen:] if line.startswith("POST")]


def test_results_count_only_when_the_card_has_them(machine, hub, monkeypatch, capsys) -> None:
    """The tag comes last: a push that was stopped before it is made up for."""
    run = machine("first", *PUSHED)
    rank(run, 1)
    train(run, 1)
    call(monkeypatch, run, 1, "answer")
    hub.fail("POST .*/tiny-iter-1/commit/main", status=403)
    with pytest.raises(OutsideError, match="writing results to the card of me/tiny-iter-1: 403"):
        call(monkeypatch, run, 1, "benchmark")
    assert list(hub.repos[DATASET].tags) == ["iter-1-counting-answers"]
    on_hub.tags.cache_clear()
    call(monkeypatch, run, 1, "benchmark")
    assert "results: already done" in capsys.readouterr().out
    assert list(hub.repos[DATASET].tags) == ["iter-1-counting-answers", "iter-1-counting-results"]
    assert len(model_card(hub).data.eval_results) == 2
    assert len(hub.commits(*DATASET)) == 3


def test_another_machine_finds_them_done(first: Run, hub, machine, monkeypatch, capsys) -> None:
    second, commits = machine("second", *PUSHED), hub.commits(*DATASET)
    capsys.readouterr()
    call(monkeypatch, second, 1, "benchmark")
    folder = artifacts.folder(second.recipe, RESULTS, 1)
    where = "on the Hub in me/tiny-benchmarks (iter-1-counting-results)"
    assert capsys.readouterr().out == f"{folder}: already done, {where}\n"
    assert not folder.exists() and hub.commits(*DATASET) == commits
    done = artifacts.done(second.recipe, benchmarks=True)
    assert list(done) == [("report", None), (RESULTS, 0), (RESULTS, 1)]


def test_another_machine_pulls_the_answers_and_no_model(
    machine: Machine, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    run = machine("first", *PUSHED)
    rank(run, 1)
    train(run, 1)
    call(monkeypatch, run, 1, "answer")
    second = machine("second", *PUSHED)
    call(monkeypatch, second, 1, "benchmark")
    said = capsys.readouterr().out
    assert f"{ANSWERS}: pulled from me/tiny-benchmarks (iter-1-counting-answers)" in said
    assert f"{RESULTS}: pushed to " in said
    assert not artifacts.folder(second.recipe, "checkpoint", 1).exists()
    assert len(model_card(hub).data.eval_results) == 2


def test_a_benchmark_that_asks_the_policy_pulls_the_model(
    machine: Machine, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """It has no answers; its results name the checkpoint themselves."""

    def asks(asked: Measuring) -> Measured:
        size = (Path(asked.policy) / "model.safetensors").stat().st_size
        row = {"prompt_id": "a", "part": "", "score": float(size), "details": "{}"}
        return Measured({"bytes": {"value": float(size), "standard_error": None}}, [row])

    asking = replace(COUNTING, answer=None, measure=asks)
    monkeypatch.setitem(BENCHMARKS, "counting", asking)
    run = machine("first", *PUSHED)
    rank(run, 1)
    train(run, 1)
    exchange.push(run, "checkpoint", 1)
    second = machine("second", *PUSHED)
    call(monkeypatch, second, 1, "benchmark")
    assert "checkpoint: pulled from me/tiny-iter-1 (iter-1)" in capsys.readouterr().out
    (entry,) = model_card(hub).data.eval_results
    assert entry.metric_name == "bytes, 1 question, no judge"
    assert list(hub.repos[DATASET].tags) == ["iter-1-counting-results"]


def test_a_report_is_pushed_with_the_results_that_it_has(
    machine: Machine, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything was made without the Hub; another machine knows the report for current."""
    alone = machine("first")
    for stage, t in stages(alone.recipe):
        if stage == "checkpoint":
            train(alone, t)
        elif stage != "report":
            with writing(alone, stage, t):
                pass
    call(monkeypatch, alone, 1, "answer", "benchmark")
    with writing(alone, "report", None):
        pass
    pushing = replace(alone, recipe=pushed(alone.recipe))
    exchange.push(pushing, "report", None)
    assert "iter-1-counting-results" in hub.repos[DATASET].tags
    second = machine("second", *PUSHED)
    found = state(second.recipe, "report", None)
    assert found.current and found.pushed == on_hub.find(place(second.recipe, "report", None))


def pushed(recipe: Recipe) -> Recipe:
    hub = recipe.hub.model_copy(update={"push": True, "namespace": "me"})
    return recipe.model_copy(update={"hub": hub})
