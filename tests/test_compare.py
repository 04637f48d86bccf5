"""Runs are read, grouped and compared; the numbers are those of the parquet files."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from compared_runs import PROMPTS, drawn, rows_of, write_manifest, write_run
from loopback_hub import Blob, LoopbackHub, Repo, User
from written_runs import runs_in

from selm.compare import page
from selm.compare.grouping import without_seed
from selm.compare.metrics import metrics, win_rates
from selm.compare.runs import load
from selm.errors import UserError
from selm.recipe.loading import as_yaml
from selm.run.on_hub import place
from selm.run.plan import Run

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def make(tmp_path: Path, tiny_recipe: str, tiny_data: str) -> Callable[..., Run]:
    return runs_in(tmp_path, tiny_recipe, tiny_data)


Runs = Callable[..., Path]


@pytest.fixture
def finished(make: Callable[..., Run]) -> Runs:
    """Name, overrides, and what the rewards gain in, a run's folder out."""

    def write(name: str, *overrides: str, seed: int = 1, gain: float = 0.0, **more: int) -> Path:
        run = make(f"run_name={name}-seed{seed}", f"seed={seed}", *overrides)
        return write_run(run, drawn(seed, gain), **more)

    return write


def refusal(*paths: Path | str) -> str:
    with pytest.raises(UserError) as caught:
        load(list(map(str, paths)))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def compare(*words: Path | str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/compare.py", *map(str, words)],
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_runs_that_differ_in_seed_and_execution_alone_are_one_setting(finished):
    finished("a", "training.alpha=0.1", seed=2)
    finished("b", "training.alpha=0.1", "generation.batch_size=7", "estimate.device=h100", seed=1)
    folder = finished("a", "training.alpha=0.2").parent
    comparison = load([str(folder)])
    assert [(each.name, each.seeds) for each in comparison.settings] == [
        ("alpha 0.2", [1]),
        ("alpha 0.1", [1, 2]),
    ]
    assert comparison.settings[1].differs == {"training.alpha": 0.1}
    assert comparison.rewards(comparison.settings[1], 2).shape == (2, PROMPTS)


def test_settings_are_named_by_what_differs(finished):
    dpo = ["iterations.0.objective=dpo", "iterations.1.objective=dpo"]
    folder = finished("dpo", *dpo, "training.alpha=7").parent
    finished("mixed", dpo[0])
    finished("selm", "training.alpha=0.3")
    assert {each.name: each.differs["training.alpha"] for each in load([str(folder)]).settings} == {
        "2 x dpo": 0.0,
        "dpo, selm, alpha 0.01": 0.01,
        "2 x selm, alpha 0.3": 0.3,
    }
    names = [each.name for each in load([f"{folder}/selm-seed1", f"{folder}/mixed-seed1"]).settings]
    assert names == ["2 x selm, alpha 0.3", "dpo, selm, alpha 0.01"]


def test_settings_that_differ_in_much_have_their_runs_names(finished):
    keys = ["training.beta=0.3", "training.max_length=64", "generation.top_p=0.5", "data.limit=9"]
    folder = finished("one", *keys).parent
    finished("other", "training.alpha=0.3")
    assert [each.name for each in load([str(folder)]).settings] == ["one", "other"]
    assert [without_seed(name) for name in ("a-seed3-x", "a_seed12", "seeds")] == [
        "a-x",
        "a",
        "seeds",
    ]


def test_the_same_run_or_the_same_seed_twice_is_refused(finished):
    one = finished("one")
    other = finished("other")
    assert "the same run twice" in refusal(one, one.parent)
    assert refusal(one, other) == (
        f"seed: {one} and {other} are both seed 1 of one setting (one); leave one of them out"
    )


def test_a_run_that_shares_all_evaluations_of_another_is_left_out(finished, make):
    dpo = ["iterations.0.objective=dpo", "iterations.1.objective=dpo"]
    one = finished("one", *dpo, "training.alpha=0.1")
    two = make("run_name=two", *dpo, "training.alpha=0.2").recipe
    other = one.parent / "two"
    shutil.copytree(one, other, copy_function=os.link)
    (other / "recipe.yaml").unlink()
    (other / "recipe.yaml").write_text(as_yaml(two), encoding="utf-8")
    comparison = load([str(one), str(other)])
    assert comparison.runs[0].folder == one
    assert comparison.without == (f"{other} is left out: its evaluations are those of {one}",)


def test_what_is_no_run_is_refused(tmp_path, finished):
    (tmp_path / "empty").mkdir()
    assert "not a run's folder" in refusal(tmp_path / "empty")
    assert "no such folder" in refusal(tmp_path / "nothing" / "there")
    one = finished("one")
    (one / "recipe.yaml").write_text("run_name: [\n", encoding="utf-8")
    assert "recipe.yaml: " in refusal(one)
    (one / "recipe.yaml").write_text("run_name: one\n", encoding="utf-8")
    assert "recipe.yaml: model" in refusal(one)


def test_rewards_of_another_ranker_are_refused(tmp_path, finished):
    one = finished("one")
    other = finished("other", "evaluation.ranking.ranker=random")
    assert "ranking.ranker (function -> random)" in refusal(one, other)
    (tmp_path / "reward.py").write_text(
        "def reward(prompt, candidates):\n    return [0.0 for _ in candidates]\n", encoding="utf-8"
    )
    changed = finished("changed", seed=2)
    assert "the content of ranking" in refusal(one, changed)


def test_only_prompts_that_all_have_are_compared(make):
    rewards = drawn(1)
    one = write_run(make("run_name=one"), rewards)
    fewer = {t: values[:5] for t, values in rewards.items()}
    other = write_run(make("run_name=other", "evaluation.limit=5"), fewer)
    comparison = load([str(one), str(other)])
    assert (len(comparison.prompts), comparison.left_out) == (5, PROMPTS - 5)
    assert comparison.rewards(comparison.settings[0], 1).tolist() == [fewer[1]]


def test_no_common_prompt_is_refused(make, monkeypatch):
    one = write_run(make("run_name=one"), drawn(1))

    def of_other_data(rewards, of_base):
        rows = rows_of(rewards, of_base)
        return [row | {"prompt": [{"role": "user", "content": "another"}]} for row in rows]

    monkeypatch.setattr("compared_runs.rows_of", of_other_data)
    other = write_run(make("run_name=other", "seed=2"), drawn(2))
    assert "no held-out prompt" in refusal(one, other)


def test_a_damaged_evaluation_is_refused(finished):
    one = finished("one")
    path = one / "iter-1" / "evaluation" / "test.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert "iter-1/evaluation: damaged: test.parquet has changed" in refusal(one)


def test_files_that_a_recipe_names_may_be_gone(tmp_path, finished):
    folder = finished("one").parent
    finished("one", seed=2)
    there = tmp_path / "elsewhere"
    shutil.move(folder, there)
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "reward.py").unlink()
    for checkpoint in there.glob("*/iter-*/checkpoint"):
        shutil.rmtree(checkpoint)
    (setting,) = load([str(there)]).settings
    assert (setting.name, setting.seeds) == ("one", [1, 2])


def test_of_runs_that_are_not_finished_what_is_there_is_used(finished):
    alone = finished("alone", "training.alpha=0.5", until=1)
    finished("one", seed=1)
    late = finished("one", seed=2, until=0)
    never = finished("one", seed=3, until=-1)
    comparison = load([str(alone.parent)])
    first, second = comparison.settings
    assert (comparison.iterations(first), second.seeds) == ([0, 1], [1])
    assert first.runs[0].missing == ("iter-2/evaluation is not there",)
    assert [line.split(" is left out")[0] for line in comparison.without] == [str(late), str(never)]
    assert "iter-0/evaluation is not there" in refusal(never)


def test_an_evaluation_of_an_older_recipe_is_not_used(make):
    run = make("run_name=one")
    folder = write_run(run, drawn(1))
    changed = make("run_name=one", "training.beta=0.7")
    write_run(changed, drawn(1), until=0)  # recipe.yaml and nothing that depends on beta
    (found,) = load([str(folder)]).runs
    assert sorted(found.evaluations) == [0]
    assert "training.beta (0.1 -> 0.7)" in found.missing[0]


def test_an_evaluation_of_answers_that_were_written_again_is_not_used(make):
    run = make("run_name=one")
    folder = write_run(run, drawn(1))
    manifest = folder / "iter-1" / "answers" / "manifest.json"
    other = write_run(make("run_name=other"), drawn(1)) / "iter-1" / "answers" / "manifest.json"
    manifest.write_bytes(other.read_bytes())
    (found,) = load([str(folder)]).runs
    assert sorted(found.evaluations) == [0, 2]
    assert "iter-1/answers, which was written again" in found.missing[0]


def test_a_win_is_one_a_tie_one_half_over_all_pairs_of_seeds(make):
    few = {0: [0.0, 1.0], 1: [0.0, 0.0], 2: [1.0, 1.0]}
    more = {0: [0.0, 1.0], 1: [0.0, 0.0], 2: [0.0, 2.0]}
    one = write_run(make("run_name=a-seed1", "seed=1"), few)
    other = write_run(make("run_name=a-seed2", "seed=2"), more)
    found = win_rates(load([str(one), str(other)]))
    assert found["labels"] == ["base", "a, iteration 1", "a, iteration 2"]
    # Iteration 2 against the base model: win, tie; tie, win. Against iteration 1: all win but one.
    assert found["matrix"][2] == [75.0, 87.5, 50.0]
    assert found["matrix"][0] == [50.0, 75.0, 25.0]


@pytest.mark.parametrize("pairwise", [False, True])
def test_all_numbers_are_those_of_an_independent_recomputation(finished, tmp_path, pairwise):
    ranker = ["evaluation.ranking.ranker=judge", "evaluation.ranking.name_or_path=m"] * pairwise
    for alpha, seeds, gain in ((0.1, (1, 2, 3), 0.2), (0.2, (1, 2, 3), 0.5), (0.4, (1, 5), 0.1)):
        for seed in seeds:
            folder = finished(
                f"a{alpha}", f"training.alpha={alpha}", *ranker, seed=seed, gain=gain
            ).parent
    finished("dpo", "iterations.0.objective=dpo", *ranker, seed=9)
    found = metrics(load([str(folder)]))
    assert found["pairwise"] == pairwise
    path = tmp_path / "compare.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    recompute = runpy.run_path(str(REPOSITORY / "bench" / "recompute.py"))["main"]
    check = recompute(path)
    assert not check.wrong
    assert check.count == 196
    found["settings"][0]["iterations"][1]["reward_ci95"][0] += 1e-4
    path.write_text(json.dumps(found), encoding="utf-8")
    assert len(recompute(path).wrong) == 1


def test_the_report_says_what_can_be_told_apart(finished):
    for alpha, gain in ((0.1, 0.0), (0.2, 2.0), (0.4, 2.02)):
        for seed in (1, 2, 3):
            name = f"a{alpha}"
            folder = finished(name, f"training.alpha={alpha}", seed=seed, gain=gain).parent
    found = metrics(load([str(folder)]))
    text = page.headline(found)
    best, near = sorted(("alpha 0.2", "alpha 0.4"), key=lambda name: f"mean: {name}" not in text)
    assert text.startswith(f"The highest mean: {best}: ")
    assert f"cannot be told apart from {near} (" in text
    assert "It is better than alpha 0.1 (" in text
    assert "It is better than the base model (" in text
    assert page.conclusion(found).endswith(f"not distinguishable from {near}")
    assert page.warnings(found) == []
    assert [each["alpha"] for each in found["against_alpha"]] == [0.1, 0.2, 0.4]


def test_a_single_seed_is_said_to_be_one(finished):
    finished("one", "training.alpha=0.1")
    folder = finished("two", "training.alpha=0.2", gain=2.0).parent
    found = metrics(load([str(folder)]))
    assert "A single seed: alpha 0.1 and alpha 0.2." in page.warnings(found)[0]
    assert page.conclusion(found).endswith("on these prompts; the seeds' variance is unknown")


def test_different_base_models_are_named(finished, tmp_path, tiny_model):
    shutil.copytree(tiny_model, tmp_path / "copy")
    one = finished("one")
    other = finished("two", f"model.name_or_path={tmp_path}/copy")
    comparison = load([str(one), str(other)])
    found = metrics(comparison)
    text = page.page(comparison, found, [], "x")
    assert "different base models" in text
    assert str(tiny_model) in text
    assert f"{tmp_path}/copy" in text


def test_no_name_reaches_the_report_raw(finished):
    one = finished("one")
    comparison = load([str(one)])
    manifest = comparison.runs[0].manifests[2]
    manifest["versions"] = {"torch": "<img src=x>"}
    manifest["command"] = "evaluate `x` <b>"
    found = metrics(comparison)
    found["settings"][0]["name"] = "a | <img src=x> ![y](http://z)"
    text = page.page(comparison, found, [("a.png", "b ](http://c)")], "x")
    outside = text.replace("\\<", "").replace("``evaluate `x` <b>``", "")
    assert not [raw for raw in ("<img", "<b>", "![y]", "](http://") if raw in outside]


def test_the_script_writes_the_same_bytes_again(finished, tmp_path):
    finished("one", "training.alpha=0.1", gain=0.1)
    folder = finished("two", "training.alpha=0.2").parent
    done = compare(folder)
    assert (done.returncode, done.stderr) == (0, "")
    out = folder / "compare"
    assert done.stdout.splitlines()[-1].startswith(f"{out}/report.md: alpha 0.")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert {"report.md", "report.html", "compare.json", "rewards.png"} <= set(before)
    assert compare(folder).stdout == done.stdout
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    twice = compare(folder, folder / "one-seed1")
    assert twice.returncode == 2
    assert len(twice.stderr.splitlines()) == 1


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    running = LoopbackHub([User("me", "hf_me")]).start()
    yield running
    running.stop()


def push(hub: LoopbackHub, folder: Path, run: Run) -> None:
    """Put what compare.py reads where a push puts it: folders, tags, the report."""
    with_hub = run.recipe.model_copy(
        update={"hub": run.recipe.hub.model_copy(update={"namespace": "me"})}
    )
    for path in sorted(folder.glob("**/manifest.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        where = place(with_hub, facts["stage"], facts["iteration"])
        kind = f"{where.repo_type}s"
        repo = hub.repos.setdefault((kind, where.repo), Repo(kind, where.repo, private=True))
        tree = dict(repo.branches["main"][-1].tree) if repo.branches else {}
        for file in path.parent.iterdir():
            tree[where.path(file.name)] = Blob(file.read_bytes())
        repo.tags[where.tag] = repo.add_commit("main", tree, where.tag).oid


def test_a_run_on_the_hub_is_compared_as_one_on_the_disk(hub, make, tmp_path):
    runs = [make(f"run_name=a-seed{seed}", f"seed={seed}") for seed in (1, 2)]
    here, pushed = (write_run(run, drawn(run.recipe.seed)) for run in runs)
    environment = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": "hf_me",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
    out = tmp_path / "out"
    push(hub, pushed, runs[1])
    refused = compare(here, "me/a-seed2", "--out", out, **environment)
    assert refused.returncode == 2
    assert "there is no report in the dataset me/a-seed2-evaluation" in refused.stderr
    write_report(runs[1], pushed)
    push(hub, pushed, runs[1])
    on_disk = compare(here, pushed, "--out", tmp_path / "disk")
    done = compare(here, "me/a-seed2", "--out", out, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    found, wanted = (
        json.loads((folder / "compare.json").read_text(encoding="utf-8"))
        for folder in (out, tmp_path / "disk")
    )
    assert on_disk.returncode == 0
    assert found["runs"][1]["folder"] == "me/a-seed2"
    assert {k: v for k, v in found.items() if k != "runs"} == {
        k: v for k, v in wanted.items() if k != "runs"
    }


def write_report(run: Run, folder: Path) -> None:
    """The report's artifact, as far as it is read."""
    (folder / "report").mkdir()
    shutil.copy(folder / "recipe.yaml", folder / "report" / "recipe.yaml")
    write_manifest(run, "report", None)


def test_means_are_those_of_the_rewards(make):
    """The one number that everything rests on, by hand."""
    rewards = {0: [0.0, 1.0, 2.0], 1: [1.0, 1.0, 1.0], 2: [1.0, 2.0, 6.0]}
    folder = write_run(make("run_name=one"), rewards)
    last = metrics(load([str(folder)]))["settings"][0]["iterations"][-1]
    assert (last["reward_mean"], last["difference_from_base"]) == (3.0, 2.0)
    half = 4.302653 * float(np.std([1, 2, 6], ddof=1)) / 3**0.5
    assert last["reward_ci95"] == pytest.approx([3 - half, 3 + half], abs=1e-5)
    assert last["response_tokens_mean"] == 6.0
