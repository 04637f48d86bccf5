"""Sweeps: combinations and their names, the plan, what is shared, parts of it, refusals."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from selm.cost.estimate import run_cost, stage_cost
from selm.errors import UserError
from selm.recipe.loading import load_recipe
from selm.run import plan, sweep, sweep_plan
from selm.run.lineage import inputs
from selm.run.plan import size_text, time_text
from selm.run.stages import Entry, stages

REPOSITORY = Path(__file__).parents[1]
ZEPHYR = "recipes/zephyr-7b-sft/selm.yaml"
ZEPHYR_DPO = "recipes/zephyr-7b-sft/dpo.yaml"


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def commands(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(("python ", "accelerate "))]


def script_of(command: str) -> str:
    return re.findall(r"scripts/(\w+)\.py", command)[0]


def stage_commands(text: str) -> list[str]:
    beside = ("check", "link", "compare")
    found = [line for line in commands(text) if "--so-far" not in line]  # no stage of its own
    return [line for line in found if script_of(line) not in beside]


def names(words: Sequence[str]) -> list[str]:
    return [member.name for member in sweep.of(words).members]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.005,0.001", ["0.005", "0.001"]),
        ("0.005", ["0.005"]),
        ("[sigmoid, sft],sigmoid", ["[sigmoid, sft]", "sigmoid"]),
        ("{a: [1, 2], b: 3},{a: 1}", ["{a: [1, 2], b: 3}", "{a: 1}"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ('["a,]", b],c', ['["a,]", b]', "c"]),
        ("it's,that's", ["it's", "that's"]),
        ("train[:10%],train[10%:]", ["train[:10%]", "train[10%:]"]),
        ("null,3", ["null", "3"]),
        ("", [""]),
    ],
)
def test_commas_separate_values_but_not_in_brackets_or_quotes(text: str, values: list[str]) -> None:
    assert sweep.split(text) == values


def test_every_combination_is_a_run_and_seeds_are_outermost(tiny_recipe: str) -> None:
    found = sweep.of([tiny_recipe, "training.alpha=0.1,0.2", "seed=1,2", "training.beta=0.3"])
    assert [member.name for member in found.members] == [
        "tiny-alpha0.1-seed1",
        "tiny-alpha0.2-seed1",
        "tiny-alpha0.1-seed2",
        "tiny-alpha0.2-seed2",
    ]
    settings = [
        (m.run.recipe.training.alpha, m.run.recipe.seed, m.run.recipe.training.beta)
        for m in found.members
    ]
    assert settings == [(0.1, 1, 0.3), (0.2, 1, 0.3), (0.1, 2, 0.3), (0.2, 2, 0.3)]
    folders = {member.run.recipe.output_dir for member in found.members}
    assert folders == {str(Path(load_recipe(tiny_recipe).output_dir) / "tiny-sweep")}
    assert found.members[3].differs == {"training.alpha": "0.2", "seed": "2"}
    by_hand = load_recipe(tiny_recipe, found.members[3].run.overrides)
    assert by_hand == found.members[3].run.recipe


def test_without_seeds_the_order_is_as_given(tiny_recipe: str) -> None:
    words = [tiny_recipe, "training.beta=0.3,0.1", "training.alpha=2,1", "seed=7"]
    assert names(words) == [
        "tiny-beta0.3-alpha2",
        "tiny-beta0.3-alpha1",
        "tiny-beta0.1-alpha2",
        "tiny-beta0.1-alpha1",
    ]


def test_several_recipes_are_one_more_value(tmp_path: Path) -> None:
    found = sweep.of([ZEPHYR, ZEPHYR_DPO, "seed=1,2", f"output_dir={tmp_path}"])
    assert [member.name for member in found.members] == [
        "zephyr-7b-selm-seed1",
        "zephyr-7b-dpo-seed1",
        "zephyr-7b-selm-seed2",
        "zephyr-7b-dpo-seed2",
    ]
    assert found.folder == tmp_path
    assert found.members[1].differs == {"recipe": ZEPHYR_DPO, "seed": "1"}


def test_names_hold_any_value_within_what_a_run_name_allows() -> None:
    assert sweep.name_of("a", {"loss_type": "[sigmoid, sft]"}) == "a-loss_typesigmoid-sft"
    assert sweep.name_of("a", {"name_or_path": "Some/model"}) == "a-name_or_pathSome-model"
    assert sweep.name_of("a", {"x": "-1"}) != sweep.name_of("a", {"x": "1"})
    long, other = (sweep.name_of("a" * 70, {"alpha": f"0.0000000000{i}"}) for i in (1, 2))
    assert len(long) == len(other) == 80
    assert long != other
    pattern = r"[A-Za-z0-9][A-Za-z0-9._-]*"
    for name in (long, sweep.name_of("a", {"k": "{x: 'ä, $HOME/..'}\n"})):
        assert re.fullmatch(pattern, name)


def test_keys_are_as_short_as_they_can_be_told_apart() -> None:
    keys = ["ranking.ranker", "evaluation.ranking.ranker", "training.alpha"]
    assert sweep.short_keys(keys) == {
        "ranking.ranker": "ranking.ranker",
        "evaluation.ranking.ranker": "evaluation.ranking.ranker",
        "training.alpha": "alpha",
    }
    rates = ["iterations.0.learning_rate", "iterations.1.learning_rate"]
    assert sweep.short_keys(rates) == {rate: rate for rate in rates}
    assert sweep.short_keys(rates[:1]) == {rates[0]: "learning_rate"}


def test_a_run_has_the_commands_of_its_own_plan(tiny_recipe: str) -> None:
    found = sweep.of([tiny_recipe, "training.alpha=0.1,0.2"])
    text = sweep_plan.script(found)
    own = [line for m in found.members for line in stage_commands(plan.script(m.run))]
    assert stage_commands(text) == own
    order = [script_of(line) for line in commands(text)]
    assert order[:2] == ["check", "link"]
    assert order.count("check") == 1
    assert order.count("link") == 2
    assert order[-1] == "compare"
    last = shlex.split(commands(text)[-1])
    folders = [str(found.folder / member.name) for member in found.members]
    assert last == [
        *("python", "scripts/compare.py", *folders),
        *("--out", str(found.folder / "compare")),
    ]
    for line in commands(text):
        assert str(found.folder) in line
    checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def entry_of(line: str) -> Entry:
    """The stage of a command, by hand."""
    stage = {
        "generate": "responses",
        "rank": "preferences",
        "train": "checkpoint",
        "answer": "answers",
        "evaluate": "evaluation",
    }[script_of(line)]
    return stage, int(re.findall(r"--iteration (\d+)", line)[0])


OF_ALPHA = [("answers", 0), ("evaluation", 0), ("responses", 1), ("preferences", 1)]
AFTER_DPO = [
    *[("answers", 0), ("evaluation", 0), ("checkpoint", 1), ("answers", 1), ("evaluation", 1)],
    *[("responses", 2), ("preferences", 2)],
]


@pytest.mark.parametrize(
    ("words", "made_once", "artifacts"),
    [
        (["training.alpha=0.1,0.2"], OF_ALPHA, 24),
        (["training.alpha=0.1,0.2", "iterations.0.objective=dpo"], AFTER_DPO, 20),
        (["seed=1,2"], [], 24),
        (
            ["generation.num_samples=1,2", "generation.temperature=1"],
            [("answers", 0), ("evaluation", 0)],
            24,
        ),
    ],
)
def test_the_plan_says_what_is_shared_and_counts_it_once(
    tiny_recipe: str, words: list[str], made_once: list[Entry], artifacts: int
) -> None:
    found = sweep.of([tiny_recipe, *words])
    first, second = found.members
    assert sweep.shared(found.members) == {(second.name, e): first.name for e in made_once}
    text = sweep_plan.script(found)
    lines = text.splitlines()
    noted = [
        entry_of(after)
        for line, after in pairwise(lines)
        if line.endswith(f"shared with {first.name}")
    ]
    assert noted == made_once
    assert f"sharing: {len(made_once)} of {artifacts} artifacts" in text

    costs = [run_cost(m.run.recipe, stages(m.run.recipe)) for m in found.members]
    once = [stage_cost(first.run.recipe, *entry) for entry in made_once]
    seconds = sum(c.seconds for c in costs) - sum(c.seconds for c in once)
    disk = sum(c.disk_bytes for c in costs) - sum(c.disk_bytes for c in once)
    disk += max(c.scratch_bytes for c in costs)
    assert f"# estimate: {time_text(seconds)}, {size_text(disk)} of disk for all runs" in text
    saved = time_text(sum(c.seconds for c in once))
    assert f"which saves {saved} and" in text


def test_a_download_of_the_base_model_counts_once() -> None:
    (disk_gb,) = re.findall(
        r"# estimate: .*?, (\d+) GB of disk", sweep_plan.script(sweep.of([ZEPHYR, "seed=1,2"]))
    )
    one = load_recipe(ZEPHYR)
    cost = run_cost(one, stages(one))
    of_stages = sum(stage_cost(one, *entry).disk_bytes for entry in stages(one))
    download = cost.disk_bytes - of_stages
    assert download > 14e9
    wanted = 2 * of_stages + download + cost.scratch_bytes
    assert float(disk_gb) == pytest.approx(wanted / 1e9, abs=1)


def test_a_combination_without_artifacts_of_its_own_is_left_out(tmp_path: Path) -> None:
    """Alpha decides nothing of DPO."""
    words = [ZEPHYR, ZEPHYR_DPO, "training.alpha=0.005,0.001", f"output_dir={tmp_path}"]
    found = sweep.of(words)
    assert [member.name for member in found.members] == [
        "zephyr-7b-selm-alpha0.005",
        "zephyr-7b-selm-alpha0.001",
        "zephyr-7b-dpo-alpha0.005",
    ]
    assert found.repeated == {"zephyr-7b-dpo-alpha0.001": "zephyr-7b-dpo-alpha0.005"}
    assert "those of zephyr-7b-dpo-alpha0.005: zephyr-7b-dpo-alpha0.001" in sweep_plan.script(found)
    with pytest.raises(UserError, match=r"the same as zephyr-7b-dpo-alpha0\.005"):
        sweep_plan.script(found, only="zephyr-7b-dpo-alpha0.001")


def test_parts_for_several_machines_make_the_whole(tiny_recipe: str) -> None:
    found = sweep.of([tiny_recipe, "training.alpha=0.1,0.2", "seed=1,2"])
    whole = sweep_plan.script(found)
    parts = [sweep_plan.script(found, only=str(i + 1)) for i in range(4)]
    assert [line for part in parts for line in stage_commands(part)] == stage_commands(whole)
    assert parts[2] == sweep_plan.script(found, only=found.members[2].name).replace(
        found.members[2].name + "'", "3'"
    ).replace(f"this part: run {found.members[2].name}", "this part: run 3")
    for part, member in zip(parts, found.members, strict=True):
        assert not [line for line in commands(part) if script_of(line) == "compare"]
        assert {script_of(line) for line in commands(part)} >= {"check", "link"}
        assert f"--sweep {' '.join(found.words)} --only" in part
        assert all(f"run_name={member.name}" in line for line in commands(part))


def test_the_shared_part_is_what_several_runs_need_and_nothing_else(tiny_recipe: str) -> None:
    found = sweep.of([tiny_recipe, "training.alpha=0.1,0.2", "seed=1,2"])
    part = stage_commands(sweep_plan.script(found, only="shared"))
    first = {
        member.name: [entry_of(line) for line in part if f"run_name={member.name}" in line.split()]
        for member in found.members
    }
    assert first == {
        "tiny-alpha0.1-seed1": OF_ALPHA,
        "tiny-alpha0.2-seed1": [],
        "tiny-alpha0.1-seed2": OF_ALPHA,
        "tiny-alpha0.2-seed2": [],
    }
    recipe = found.members[0].run.recipe
    for position, entry in enumerate(OF_ALPHA):
        assert set(inputs(recipe, *entry)) <= set(OF_ALPHA[:position])


def test_the_shared_part_may_be_empty(tiny_recipe: str) -> None:
    text = sweep_plan.script(sweep.of([tiny_recipe, "seed=1,2"]), only="shared")
    assert commands(text) == []
    assert "no two runs of the sweep share an artifact" in text


@pytest.mark.parametrize("only", ["0", "5", "tiny", "-1", ""])
def test_an_unknown_part_is_refused(tiny_recipe: str, only: str) -> None:
    found = sweep.of([tiny_recipe, "training.alpha=0.1,0.2", "seed=1,2"])
    with pytest.raises(UserError, match=r"runs 1 to 4, from tiny-alpha0\.1-seed1"):
        sweep_plan.script(found, only=only)


def test_finished_runs_are_one_line_and_finished_stages_are_left_out(tiny_recipe: str) -> None:
    found = sweep.of([tiny_recipe, "training.alpha=0.1,0.2"])
    first, second = found.members
    done = {
        first.name: dict.fromkeys(stages(first.run.recipe), "done"),
        second.name: dict.fromkeys(OF_ALPHA, "it is there"),
    }
    text = sweep_plan.script(found, done)
    assert f"echo '{found.folder / first.name}: already done, 13 stages'" in text.splitlines()
    left = [line for line in commands(text) if script_of(line) != "compare"]
    assert all(f"run_name={second.name}" in line for line in left), "the finished run is left out"
    assert text.count("echo 'it is there'") == len(OF_ALPHA)
    assert len(stage_commands(text)) == 13 - len(OF_ALPHA)

    done[second.name] = dict.fromkeys(stages(second.run.recipe), "done")
    nothing = sweep_plan.script(found, done)
    assert [script_of(line) for line in commands(nothing)] == ["compare"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seed=1,1"], "seed=1 and seed=1 are the same combination"),
        (["training.alpha=0.1,1e-1"], "training.alpha=0.1 and training.alpha=1e-1 are the same"),
        (["training.alhpa=1,2"], "training.alhpa: unknown key in training; did you mean alpha?"),
        (["training.alpha=1,-2"], r"\(in the combination training.alpha=-2\)"),
        (["seed=1,2", "training.alpha=1,x"], r"\(in the combination seed=1 training.alpha=x\)"),
        (["seed=1,2", "seed=3"], "seed: given twice"),
        (["seed=1,,2"], "seed: an empty value between commas"),
        (["run_name=a,b"], "run_name: the runs of a sweep are named after what differs"),
        (["run_name=a"], "run_name: the runs of a sweep are named after what differs"),
        (["output_dir=a,b"], "output_dir: the runs of a sweep .* lie in one folder"),
        (["seed"], "'seed': wanted a recipe"),
        (["nowhere.yaml"], "nowhere.yaml: no such recipe file"),
    ],
)
def test_what_cannot_be_swept_is_refused_in_one_line(
    tiny_recipe: str, words: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        sweep.of([tiny_recipe, *words])
    assert len(str(caught.value).splitlines()) == 1


def test_two_combinations_of_one_name_are_refused(tmp_path: Path, tiny_recipe: str) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(f"extends: {tiny_recipe}\ntraining: {{alpha: 0.5}}\n", encoding="utf-8")
    with pytest.raises(UserError, match="would both have the run_name tiny-seed1"):
        sweep.of([tiny_recipe, str(other), "seed=1,2"])


def test_no_recipe_is_refused() -> None:
    with pytest.raises(UserError, match="a sweep needs a recipe"):
        sweep.of(["seed=1,2"])


def run_script(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/sweep.py", *words],
        cwd=REPOSITORY,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_script_keeps_the_plan_and_the_list_of_all_sweeps(
    tiny_recipe: str, tmp_path: Path
) -> None:
    words = [tiny_recipe, f"output_dir={tmp_path}"]
    first = run_script("--keep", *words, "training.alpha=0.1,0.2")
    assert (first.returncode, first.stderr) == (0, "")
    assert (tmp_path / "sweep.sh").read_text(encoding="utf-8") == first.stdout
    (tmp_path / "tiny-alpha0.1" / "report").mkdir(parents=True)  # the other one is not finished

    second = run_script("--keep", "--only", "2", *words, "training.alpha=0.3,0.4")
    assert (second.returncode, second.stderr) == (0, "")
    listed = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))["runs"]
    assert [run["name"] for run in listed] == [f"tiny-alpha0.{i}" for i in (1, 2, 3, 4)]
    for run in listed:
        alpha = float(run["differs"]["training.alpha"])
        recipe = load_recipe(run["recipe"], run["overrides"])
        assert (recipe.run_name, recipe.training.alpha) == (run["name"], alpha)
    kept = (tmp_path / "sweep.sh").read_text(encoding="utf-8")
    compared = re.findall(r"tiny-alpha0\.\d", commands(kept)[-1])
    assert compared == ["tiny-alpha0.1", "tiny-alpha0.3", "tiny-alpha0.4"]
    assert "# without runs that are not finished: tiny-alpha0.2" in kept
    assert all("run_name=tiny-alpha0.4" in line for line in stage_commands(second.stdout))


def test_a_run_of_an_earlier_sweep_is_not_written_over(tiny_recipe: str, tmp_path: Path) -> None:
    words = [tiny_recipe, f"output_dir={tmp_path}", "seed=1,2"]
    assert run_script("--keep", *words, "training.alpha=0.1").returncode == 0
    again = run_script("--keep", *words, "training.alpha=0.1", "generation.batch_size=1")
    assert again.returncode == 0, "the key decides nothing"
    other = run_script("--keep", *words, "training.alpha=0.2")
    assert other.returncode == 2
    assert "tiny-seed1: an earlier sweep made it from" in other.stderr
    assert "training.alpha=0.1" in other.stderr


def test_a_later_sweep_leaves_out_what_an_earlier_one_made_under_another_name(
    tiny_recipe: str, tmp_path: Path
) -> None:
    words = [tiny_recipe, f"output_dir={tmp_path}"]
    assert run_script("--keep", *words, "training.alpha=0.1,0.2").returncode == 0
    found = sweep.of([*words, "training.alpha=0.10,0.3"])
    assert [member.name for member in found.members] == ["tiny-alpha0.3"]
    assert found.repeated == {"tiny-alpha0.10": "tiny-alpha0.1"}
    folders = sweep_plan.run_folders(found)
    assert [folder.name for folder in folders] == ["tiny-alpha0.3", "tiny-alpha0.1"]
    with pytest.raises(UserError, match="it has these runs as"):
        sweep.of([*words, "training.alpha=0.10,0.20"])


def test_a_damaged_list_is_said(tiny_recipe: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text('{"runs": [{}]}', encoding="utf-8")
    done = run_script("--keep", tiny_recipe, f"output_dir={tmp_path}", "seed=1,2")
    assert done.returncode == 2
    assert "sweep.json: damaged; delete it" in done.stderr


def test_nothing_is_selected_before_the_runs_are_finished(tiny_recipe: str, tmp_path: Path) -> None:
    done = run_script("--select", tiny_recipe, f"output_dir={tmp_path}", "seed=1,2")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "2 of 2 runs are not" in line
    assert "bash scripts/run.sh --sweep" in line


def test_the_plan_of_a_sweep_imports_no_torch() -> None:
    command = ["-X", "importtime", "scripts/sweep.py", ZEPHYR, "seed=1,2", "--remaining"]
    done = subprocess.run(
        [sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert done.returncode == 0
    assert "pydantic" in imported
    assert imported.isdisjoint({"torch", "transformers", "trl", "datasets", "vllm", "ray"})
