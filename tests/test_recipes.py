"""The recipes hold the paper's numbers, use every row once and plan the right commands.

The tables below are written from the paper (arXiv 2405.19332, appendix C) and the authors' public
code, not from the recipes.
"""

import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from selm.cost.devices import device_of
from selm.cost.estimate import fits, run_cost, stage_cost
from selm.cost.training import fullest_batch
from selm.data.counting import portion
from selm.recipe.loading import as_yaml, load_recipe
from selm.recipe.schema import Recipe
from selm.run.plan import Run, script
from selm.run.stages import stages
from selm.training.batch import gradient_accumulation_steps
from selm.training.objective import TERMS

REPOSITORY = Path(__file__).resolve().parents[1]
RECIPES = [*REPOSITORY.glob("recipes/*/*.yaml"), *REPOSITORY.glob("recipes/*/grid/*.yaml")]
ALL = sorted(str(path.relative_to(REPOSITORY)) for path in RECIPES if path.name != "paper.yaml")
GRIDS = ("zephyr-7b-sft", "smollm2-135m-instruct")
GRID = [path for path in ALL if "/grid/" in path]
ROWS = 61_135


class Paper(NamedTuple):
    """One column of the paper's table."""

    model: str
    offline_first: bool  # iteration 1 is DPO on the pairs as they are
    learning_rates: tuple[float, ...]
    global_batch: int
    per_device: int
    accumulation: int  # on 8 GPUs
    alpha: float
    portion_sizes: tuple[int, ...]
    steps: int  # optimizer steps of each iteration


PAPER = {
    "zephyr-7b-sft": Paper(
        model="HuggingFaceH4/mistral-7b-sft-beta",
        offline_first=True,
        learning_rates=(5e-7, 5e-7, 5e-7, 1e-7),
        global_batch=256,
        per_device=8,
        accumulation=4,
        alpha=1e-3,
        portion_sizes=(15_283, 15_284, 15_284, 15_284),
        steps=60,
    ),
    "llama-3-8b-instruct": Paper(
        model="meta-llama/Meta-Llama-3-8B-Instruct",
        offline_first=False,
        learning_rates=(5e-7, 3e-7, 1e-7),
        global_batch=128,
        per_device=4,
        accumulation=4,
        alpha=1e-4,
        portion_sizes=(20_378, 20_378, 20_379),
        steps=160,
    ),
    "phi-3-mini-4k-instruct": Paper(
        model="microsoft/Phi-3-mini-4k-instruct",
        offline_first=False,
        learning_rates=(5e-7, 3e-7, 1e-7),
        global_batch=128,
        per_device=4,
        accumulation=4,
        alpha=1e-3,
        portion_sizes=(20_378, 20_378, 20_379),
        steps=160,
    ),
}
OTHER_TERMS = ("xpo", "geb", "vpo")

PAPER_RECIPES = [(model, kind) for model in PAPER for kind in ("selm", "dpo")]
OBJECTIVE = {"selm": "selm", "dpo": "online_dpo"}


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def load(model: str, kind: str) -> Recipe:
    return load_recipe(f"recipes/{model}/{kind}.yaml")


def plan(path: str, *overrides: str) -> str:
    return script(Run(load_recipe(path, overrides), path, overrides))


def commands(text: str) -> list[str]:
    """The commands that run a stage, without what follows if one may fail."""
    lines = [line for line in text.splitlines() if line.startswith(("python ", "accelerate "))]
    return [line.removesuffix(' || goes_on "$?"') for line in lines]


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)


def test_the_recipes_of_the_make_targets_are_there() -> None:
    wanted = {f"recipes/{model}/{kind}.yaml" for model, kind in PAPER_RECIPES}
    wanted |= {f"recipes/qwen3-1.7b/{kind}.yaml" for kind in ("selm", "dpo")}
    kinds = ("selm", "dpo", "random", *OTHER_TERMS)
    wanted |= {f"recipes/smollm2-135m-instruct/{kind}.yaml" for kind in kinds}
    assert wanted <= set(ALL)


@pytest.mark.parametrize("path", ALL)
def test_recipe_loads_and_survives_being_saved(path: str, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    saved = tmp_path / "recipe.yaml"
    saved.write_text(as_yaml(recipe), encoding="utf-8")
    assert load_recipe(saved) == recipe


def test_run_names_are_unique() -> None:
    names = [load_recipe(path).run_name for path in ALL]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("model", "kind"), PAPER_RECIPES)
def test_paper_recipe_equals_the_papers_table(model: str, kind: str) -> None:
    paper, recipe = PAPER[model], load(model, kind)
    objectives = [OBJECTIVE[kind]] * len(paper.learning_rates)
    if paper.offline_first:
        objectives[0] = "dpo"
    assert recipe.model.name_or_path == paper.model
    assert recipe.model.dtype == "bfloat16"
    assert [iteration.objective for iteration in recipe.iterations] == objectives
    assert tuple(iteration.learning_rate for iteration in recipe.iterations) == paper.learning_rates
    assert recipe.training.global_batch_size == paper.global_batch
    assert recipe.training.per_device_train_batch_size == paper.per_device
    assert gradient_accumulation_steps(recipe, 8) == paper.accumulation
    assert recipe.training.alpha == paper.alpha
    assert recipe.training.beta == 0.01
    assert recipe.training.max_length == 1024
    assert recipe.training.reference == "previous"
    assert recipe.seed == 42


@pytest.mark.parametrize(("model", "kind"), PAPER_RECIPES)
def test_paper_recipe_has_the_papers_data_generation_and_ranker(model: str, kind: str) -> None:
    recipe = load(model, kind)
    data, generation, ranking = recipe.data, recipe.generation, recipe.ranking
    assert data.name_or_path == "HuggingFaceH4/ultrafeedback_binarized"
    assert (data.train_split, data.test_split) == ("train_prefs", "test_prefs")
    assert (data.train_rows, data.limit) == (ROWS, None)
    assert (generation.engine, generation.num_samples, generation.temperature) == ("vllm", 1, 0.0)
    assert generation.max_tokens == 1024
    assert (ranking.ranker, ranking.name_or_path) == ("pairrm", "llm-blender/PairRM")
    assert ranking.update_rule == "best_worst"
    assert recipe.training.accelerate_config == "accelerate_configs/zero3.yaml"
    assert recipe.evaluation.every_iteration
    assert recipe.evaluation.limit == 500
    assert recipe.training.trl_overrides() == {
        "gradient_checkpointing": False,  # its gradients are the same
        "num_train_epochs": 1.0,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "logging_steps": 1.0,
    }


@pytest.mark.parametrize(("model", "kind"), PAPER_RECIPES)
def test_portions_cover_the_split_once_in_the_papers_sizes(model: str, kind: str) -> None:
    recipe = load(model, kind)
    last = len(recipe.iterations)
    portions = [portion(ROWS, t, last) for t in range(1, last + 1)]
    assert tuple(map(len, portions)) == PAPER[model].portion_sizes
    assert [row for rows in portions for row in rows] == list(range(ROWS))


@pytest.mark.parametrize("path", ALL)
def test_plan_is_valid_bash_that_stops_at_the_first_failure(path: str) -> None:
    text = plan(path)
    checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "\nset -eE -o pipefail\n" in text


@pytest.mark.parametrize("path", ALL)
def test_plan_names_only_scripts_and_files_that_it_is_given(path: str) -> None:
    for line in commands(plan(path, "seed=7")):
        words = shlex.split(line)
        (stage,) = [word for word in words if word.startswith("scripts/")]
        assert stage.split("/")[1] in {
            *("generate.py", "rank.py", "train.py", "answer.py", "evaluate.py", "report.py")
        }
        assert words[words.index(stage) + 1] == path
        assert words[-1] == "seed=7"


@pytest.mark.parametrize("kind", ["selm", "dpo"])
def test_plan_of_zephyr_is_one_offline_iteration_and_three_online_ones(kind: str) -> None:
    path = f"recipes/zephyr-7b-sft/{kind}.yaml"
    launch = (
        "accelerate launch --config_file accelerate_configs/zero3.yaml --quiet scripts/train.py"
    )
    expected = [
        f"python scripts/answer.py {path} --iteration 0",
        f"python scripts/evaluate.py {path} --iteration 0",
        f"{launch} {path} --iteration 1",
        f"python scripts/answer.py {path} --iteration 1",
        f"python scripts/evaluate.py {path} --iteration 1",
        f"python scripts/report.py {path} --so-far",
    ]
    for t in (2, 3, 4):
        expected += [
            f"python scripts/generate.py {path} --iteration {t}",
            f"python scripts/rank.py {path} --iteration {t}",
            f"{launch} {path} --iteration {t}",
            f"python scripts/answer.py {path} --iteration {t}",
            f"python scripts/evaluate.py {path} --iteration {t}",
            f"python scripts/report.py {path} --so-far",
        ]
    assert commands(plan(path)) == [*expected[:-1], f"python scripts/report.py {path}"]


@pytest.mark.parametrize("path", [path for path in ALL if "zephyr" not in path or path in GRID])
def test_plan_of_the_others_explores_in_every_iteration_but_those_of_offline_dpo(path: str) -> None:
    recipe = load_recipe(path)
    launch = f"accelerate launch --config_file {recipe.training.accelerate_config} --quiet"
    expected = [
        f"python scripts/answer.py {path} --iteration 0",
        f"python scripts/evaluate.py {path} --iteration 0",
    ]
    for t, iteration in enumerate(recipe.iterations, 1):
        if iteration.objective != "dpo":
            generate = f"python scripts/generate.py {path} --iteration {t}"
            initial = [f"{generate} --policy initial"] if "xpo" in path and t > 1 else []
            expected += [
                generate,
                *initial,
                f"python scripts/rank.py {path} --iteration {t}",
            ]
        expected += [
            f"{launch} scripts/train.py {path} --iteration {t}",
            f"python scripts/answer.py {path} --iteration {t}",
            f"python scripts/evaluate.py {path} --iteration {t}",
            f"python scripts/report.py {path} --so-far",
        ]
    assert commands(plan(path)) == [*expected[:-1], f"python scripts/report.py {path}"]


@pytest.mark.parametrize("model", GRIDS)
def test_a_grid_has_dpo_yaml_and_what_differs_from_it_in_one_thing(model: str) -> None:
    """1 to 5 online iterations, three ways that learning rates go, the pairs as they are."""
    dpo = load(model, "dpo")
    grid = {Path(path).stem: load_recipe(path) for path in GRID if model in path}
    counts, rates = {_online(dpo)}, {_way_of_rates(dpo)}
    for name, recipe in grid.items():
        assert recipe.model_dump(exclude={"run_name", "iterations"}) == dpo.model_dump(
            exclude={"run_name", "iterations"}
        )
        assert recipe.run_name == f"{dpo.run_name}-{name}"
        if name.startswith("iterations-"):
            assert name == f"iterations-{_online(recipe)}"
            assert [each.objective for each in recipe.iterations[::-1]][: _online(recipe)] == [
                "online_dpo"
            ] * _online(recipe)
            assert _way_of_rates(recipe) == _way_of_rates(dpo) or _online(recipe) == 1
            counts.add(_online(recipe))
        elif name.startswith("rate-"):
            assert name == f"rate-{_way_of_rates(recipe)}"
            assert _objectives(recipe) == _objectives(dpo)
            rates.add(_way_of_rates(recipe))
        else:
            assert name == "stepwise"
            assert _objectives(recipe) == ["dpo"] * len(dpo.iterations)
            assert _rates(recipe) == _rates(dpo)
    assert counts == {1, 2, 3, 4, 5}
    assert rates == {"constant", "linear", "last-decayed"}


def _objectives(recipe: Recipe) -> list[str]:
    return [iteration.objective for iteration in recipe.iterations]


def _online(recipe: Recipe) -> int:
    return _objectives(recipe).count("online_dpo")


def _rates(recipe: Recipe) -> list[float]:
    return [iteration.learning_rate for iteration in recipe.iterations]


def _way_of_rates(recipe: Recipe) -> str:
    """How the learning rate goes over the iterations; steps are equal to a tenth of the whole."""
    rates = _rates(recipe)
    falls = [(a - b) / rates[0] for a, b in pairwise(rates)]
    if not any(falls):
        return "constant"
    if not any(falls[:-1]) and len(falls) > 1:
        return "last-decayed"
    assert max(falls) - min(falls) < 0.1
    return "linear"


@pytest.mark.parametrize("model", GRIDS)
def test_the_page_on_the_grid_names_every_recipe_of_it(model: str) -> None:
    page = Path("docs/baseline_grid.md").read_text(encoding="utf-8")
    assert f"recipes/{model}/grid/*.yaml" in page
    for path in GRID:
        if model in path:
            assert f"`{Path(path).name}`" in page


@pytest.mark.parametrize(("model", "kind"), PAPER_RECIPES)
def test_plan_shows_portions_learning_rates_alpha_and_batch_arithmetic(
    model: str, kind: str
) -> None:
    paper, text = PAPER[model], plan(f"recipes/{model}/{kind}.yaml")
    rows = paper.per_device * paper.accumulation
    assert f"global batch {paper.global_batch} = 8 processes x {rows} rows, in " in text
    pattern = (
        r"# iteration (\d) of (\d): (\w+), lr (\S+), alpha (\S+), "
        r"rows (\d+)\.\.(\d+) of 61,135 \((\S+) rows, (\d+) optimizer steps\)"
    )
    shown = re.findall(pattern, text)
    last, first_row = len(paper.learning_rates), 0
    assert len(shown) == last
    for t, (number, of, objective, rate, alpha, start, stop, count, steps) in enumerate(shown, 1):
        size = paper.portion_sizes[t - 1]
        assert (int(number), int(of)) == (t, last)
        assert float(rate) == paper.learning_rates[t - 1]
        assert float(alpha) == (paper.alpha if objective == "selm" else 0.0)
        assert (int(start), int(stop)) == (first_row, first_row + size - 1)
        assert (int(count.replace(",", "")), int(steps)) == (size, paper.steps)
        first_row += size
    assert first_row == ROWS


@pytest.mark.parametrize("model", [*PAPER, "qwen3-1.7b", "smollm2-135m-instruct"])
def test_selm_and_dpo_differ_only_in_objectives_and_run_name(model: str) -> None:
    assert _without_objectives(load(model, "selm")) == _without_objectives(load(model, "dpo"))
    selm, dpo = (load(model, kind).iterations for kind in ("selm", "dpo"))
    pairs = {(a.objective, b.objective) for a, b in zip(selm, dpo, strict=True)}
    assert pairs <= {("selm", "online_dpo"), ("dpo", "dpo")}
    assert ("selm", "online_dpo") in pairs


def _without_objectives(recipe: Recipe) -> dict[str, Any]:
    tree = recipe.model_dump()
    del tree["run_name"]
    for iteration in tree["iterations"]:
        del iteration["objective"]
    return tree


@pytest.mark.parametrize("kind", ["selm", "dpo"])
def test_qwen3_trains_an_adapter_on_one_consumer_gpu(kind: str) -> None:
    recipe = load("qwen3-1.7b", kind)
    assert recipe.model.name_or_path == "Qwen/Qwen3-1.7B"
    assert [iteration.objective for iteration in recipe.iterations] == [OBJECTIVE[kind]] * 3
    assert recipe.training.lora.r == 64
    assert gradient_accumulation_steps(recipe, 1) == 32
    assert [len(portion(18_000, t, 3)) for t in (1, 2, 3)] == [6_000] * 3
    device = device_of(recipe)
    assert device.memory_gb == 24
    assert all(fits(recipe, *stage) for stage in stages(recipe))


@pytest.mark.parametrize("path", ALL)
def test_every_recipe_fits_the_hardware_that_it_names(path: str) -> None:
    text = plan(path, "estimate.memory_gb=24" if "135m" in path else "seed=7")
    assert "WARNING" not in text


@pytest.mark.parametrize("kind", OTHER_TERMS)
def test_other_terms_differ_in_nothing_else_and_are_as_strong(kind: str) -> None:
    selm, other = (load("smollm2-135m-instruct", each) for each in ("selm", kind))
    assert selm.model_dump(exclude={"run_name", "training"}) == (
        other.model_dump(exclude={"run_name", "training"})
    )
    changing = {"alpha", "optimism"} | ({"reference"} if kind == "xpo" else set())
    assert selm.training.model_dump(exclude=changing) == other.training.model_dump(exclude=changing)
    assert other.training.optimism == kind
    gradients = []
    for training in (selm.training, other.training):
        logps = torch.tensor([-80.0], requires_grad=True)  # of a text
        term = TERMS[training.optimism].loss(logps, torch.zeros(1), training.alpha, training.beta)
        term.sum().backward()
        gradients.append(logps.grad)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=0)


def test_random_control_differs_only_in_who_ranks_the_training_pairs() -> None:
    selm, control = (load("smollm2-135m-instruct", kind) for kind in ("selm", "random"))
    changing = {"run_name", "ranking", "evaluation"}
    assert selm.model_dump(exclude=changing) == control.model_dump(exclude=changing)
    assert control.ranking.ranker == "random"
    assert control.held_out_ranking().model_dump() == selm.held_out_ranking().model_dump()
    assert control.evaluation.limit == selm.evaluation.limit
    assert control.ranking.update_rule == selm.ranking.update_rule


def test_plan_script_prints_the_plan() -> None:
    done = run_python("scripts/plan.py", "recipes/zephyr-7b-sft/selm.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == plan("recipes/zephyr-7b-sft/selm.yaml")


@pytest.mark.parametrize(
    "folder", ["zephyr-7b-sft", "llama-3-8b-instruct", "phi-3-mini-4k-instruct", "qwen3-1.7b"]
)
def test_the_page_of_a_recipe_has_the_plans_estimate(folder: str) -> None:
    said = plan(f"recipes/{folder}/selm.yaml")
    hours, disk_gb, memory_gb = re.findall(
        r"# estimate: ([\d.]+ \w+), (\d+) GB of disk, training takes ([\d.]+) GB", said
    )[0]
    hours = hours.replace(" h", " hours").replace(" min", " minutes")
    page = (REPOSITORY / "recipes" / folder / "README.md").read_text(encoding="utf-8")
    assert hours in page
    assert re.search(rf"\b{disk_gb} GB\b", page)
    assert re.search(rf"[Tt]raining takes {memory_gb} (GB )?of", page)
    checkpointed = plan(f"recipes/{folder}/selm.yaml", "training.gradient_checkpointing=true")
    less_gb = re.findall(r"training takes ([\d.]+) GB", checkpointed)[0]
    assert less_gb == memory_gb or f"or {less_gb} GB with" in page


@pytest.mark.parametrize(("model", "kind"), PAPER_RECIPES)
def test_a_micro_batch_of_a_paper_recipe_never_takes_more_than_its_budget(
    model: str, kind: str
) -> None:
    """And trains below 72 of 80 GB, on the path that the plan names."""
    recipe = load(model, kind)
    longest = 1 + 3 * (recipe.training.max_length - 1)  # a prompt of one token
    assert recipe.training.tokens_per_micro_batch >= longest
    last = len(recipe.iterations)
    assert fullest_batch(recipe, explores=True) == recipe.training.tokens_per_micro_batch
    assert stage_cost(recipe, "checkpoint", last).memory.total < 72e9
    padded = load_recipe(f"recipes/{model}/{kind}.yaml", ["training.forward=padded"])
    memory = stage_cost(padded, "checkpoint", last).memory
    assert memory.total < 72e9, "where the self-check may lead"
    on_four = load_recipe(f"recipes/{model}/{kind}.yaml", ["training.num_processes=4"])
    assert fits(on_four, "checkpoint", last), "as its README says"


def test_the_plan_of_zephyr_takes_the_hours_and_memory_that_the_docs_say() -> None:
    page = (REPOSITORY / "docs/performance.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (?:`([^`]*)` )?\| ([\d.]+) \| (\d+) \|", page, re.MULTILINE)
    assert len(table) == 4
    for overrides, hours, memory_gb in table:
        said = plan("recipes/zephyr-7b-sft/selm.yaml", *overrides.split())
        assert f"# estimate: {hours} h, " in said
        assert f"training takes {memory_gb} GB" in said
    assert float(table[-1][1]) <= 2.2


def test_plan_script_imports_no_torch() -> None:
    done = run_python("-X", "importtime", "scripts/plan.py", "recipes/zephyr-7b-sft/selm.yaml")
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert done.returncode == 0
    assert "pydantic" in imported
    assert imported.isdisjoint({"torch", "transformers", "trl", "datasets", "vllm", "ray"})


@pytest.mark.parametrize(
    "stage", ["generate", "rank", "train", "evaluate", "report", "check", "plan"]
)
def test_a_stage_reads_its_arguments_before_it_imports_libraries_that_take_seconds(
    stage: str,
) -> None:
    """Those read when they are imported whether their telemetry is off, which `selm.cli` says."""
    done = run_python("-X", "importtime", f"scripts/{stage}.py", "--help")
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert done.returncode == 0
    assert imported.isdisjoint({"torch", "transformers", "trl", "datasets", "huggingface_hub"})


@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), (["-h"], 0), ([], 2)])
def test_run_sh_says_how_it_is_used(words: list[str], code: int) -> None:
    done = subprocess.run(
        ["bash", "scripts/run.sh", *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (code, "")
    assert "bash scripts/run.sh recipes/" in done.stdout


@pytest.mark.parametrize("script", ["run.sh", "setup.sh", "launch_node.sh"])
def test_scripts_find_their_own_folder_though_there_is_one_of_the_name(
    script: str, tmp_path: Path
) -> None:
    """bash's CDPATH names it; `cd` would go there and print where it went."""
    (tmp_path / "scripts").mkdir()
    done = subprocess.run(
        ["bash", f"scripts/{script}", "--help"],
        env=os.environ | {"CDPATH": str(tmp_path), "PYTHON": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (0 if script == "run.sh" else 2), done.stderr
    assert str(tmp_path) not in done.stdout + done.stderr


@pytest.mark.parametrize("path", ALL)
def test_header_says_how_to_launch_and_what_it_takes(path: str) -> None:
    header = Path(path).read_text(encoding="utf-8").split("run_name:")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    if path in GRID:
        assert f"#   bash scripts/run.sh {path}\n" in header
        assert "docs/baseline_grid.md" in header
    else:
        assert re.search(r"make (quickstart|\w+-(selm|dpo|random|xpo|geb|vpo))\b", header)
    assert "README.md" in header


@pytest.mark.parametrize("path", [path for path in ALL if "135m" not in path])
def test_header_has_the_plans_estimate(path: str) -> None:
    header = Path(path).read_text(encoding="utf-8").split("run_name:")[0]
    recipe = load_recipe(path)
    cost = run_cost(recipe, stages(recipe))
    (hours,) = re.findall(r"About ([\d.]+) hours", header)
    (disk_gb,) = re.findall(r"(\d+) GB of disk", header)
    assert float(hours) == pytest.approx(cost.seconds / 3600, abs=0.051)
    assert int(disk_gb) == round((cost.disk_bytes + cost.scratch_bytes) / 1e9)
    for memory_gb in re.findall(r"training takes (\d+) GB", header):
        assert int(memory_gb) == round(cost.memory.total / 1e9)


@pytest.mark.parametrize("model", [*PAPER, "qwen3-1.7b", "smollm2-135m-instruct"])
def test_readme_says_what_to_see_and_where_it_differs(model: str) -> None:
    readme = Path("recipes", model, "README.md").read_text(encoding="utf-8")
    assert "## What you should see" in readme
    assert "## Where this differs from the paper" in readme
    for target in re.findall(r"^    make (\S+)", readme, re.MULTILINE):
        listed = subprocess.run(["make", "-n", target], capture_output=True, text=True)
        assert listed.returncode == 0, listed.stderr
