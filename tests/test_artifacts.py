"""What is current, what is stale and why, and that nothing half-written is ever seen."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pairrm_weights as small
import pytest
from damages import DAMAGES
from written_runs import REWARD, runs_in, write, write_all

from selm.errors import UserError
from selm.run import artifacts, fingerprint, hashes, lineage, manifest, plan
from selm.run.artifacts import folder, partial_folder, require_inputs, state
from selm.run.hashes import sha256
from selm.run.lineage import recipe_part
from selm.run.plan import Run
from selm.run.stages import name, stages
from selm.run.writing import writing


@pytest.fixture
def run_with(tiny_recipe: str, tiny_data: str, tmp_path: Path):
    return runs_in(tmp_path, tiny_recipe, tiny_data)


def stale(run: Run) -> set[str]:
    entries = stages(run.recipe)
    return {name(kind, t) for kind, t in entries if not state(run.recipe, kind, t).current}


EVALUATIONS = {"iter-0/evaluation", "iter-1/evaluation", "iter-2/evaluation", "report"}
ANSWERS = EVALUATIONS | {"iter-0/answers", "iter-1/answers", "iter-2/answers"}
AFTER_CHECKPOINT_2 = {"iter-2/checkpoint", "iter-2/answers", "iter-2/evaluation", "report"}
AFTER_PREFERENCES_2 = AFTER_CHECKPOINT_2 | {"iter-2/preferences"}
AFTER_CHECKPOINT_1 = AFTER_PREFERENCES_2 | {
    *("iter-1/checkpoint", "iter-1/answers", "iter-1/evaluation", "iter-2/responses")
}
AFTER_PREFERENCES_1 = AFTER_CHECKPOINT_1 | {"iter-1/preferences"}
AFTER_RESPONSES_1 = AFTER_PREFERENCES_1 | {"iter-1/responses"}
EVERYTHING = AFTER_RESPONSES_1 | ANSWERS

# What each change makes stale. Both iterations are selm.
TABLE = {
    "seed=2": EVERYTHING,
    "model.dtype=bfloat16": EVERYTHING,
    "model.revision=other": EVERYTHING,
    "data.revision=other": EVERYTHING,
    "data.limit=10": AFTER_RESPONSES_1,
    "data.train_split=test": AFTER_RESPONSES_1,
    "data.test_split=train": ANSWERS,
    "data.train_rows=24": set(),
    "generation.temperature=0.5": AFTER_RESPONSES_1,
    "generation.max_tokens=9": EVERYTHING,
    "generation.shard_size=2": set(),
    "generation.batch_size=2": set(),
    "generation.workers=2": set(),
    "generation.vllm.quantization=fp8": set(),  # the engine is another one
    "ranking.update_rule=replace": AFTER_PREFERENCES_1,
    "ranking.min_margin=0.5": AFTER_PREFERENCES_1,
    "ranking={ranker: random}": AFTER_PREFERENCES_1 | EVALUATIONS,
    "ranking.shard_size=2": set(),
    "ranking.tokens_per_batch=7": set(),
    "training.alpha=0.5": AFTER_CHECKPOINT_1,
    "training.beta=0.5": AFTER_CHECKPOINT_1,
    "training.max_length=60": AFTER_CHECKPOINT_1,
    "training.global_batch_size=8": AFTER_CHECKPOINT_1,
    "training.warmup_steps=0.1": AFTER_CHECKPOINT_1,
    "training.reference=initial": AFTER_CHECKPOINT_1,
    "training.optimism=selm": set(),
    "training.optimism=geb": AFTER_CHECKPOINT_1,
    "training.optimism=none": AFTER_CHECKPOINT_1,
    "training.lora={target_modules: [q_proj, v_proj]}": AFTER_CHECKPOINT_1,
    "training.per_device_train_batch_size=1": set(),
    "training.tokens_per_micro_batch=100": set(),
    "training.logging_steps=2": set(),
    "training.save_steps=3": set(),
    "training.gradient_checkpointing=true": set(),
    "iterations.0.learning_rate=0.5": AFTER_CHECKPOINT_1,
    "iterations.1.learning_rate=0.5": AFTER_CHECKPOINT_2,
    "iterations.1.objective=online_dpo": AFTER_CHECKPOINT_2,
    "evaluation.limit=3": ANSWERS,
    "evaluation.ranking={ranker: random}": EVALUATIONS,
    "hub.namespace=me": set(),
    "hub.private=false": set(),
    "estimate.device=cpu": set(),
    "estimate.prompt_tokens=9": set(),
}


def test_everything_is_missing_then_current(run_with) -> None:
    run = run_with()
    assert stale(run) == EVERYTHING
    assert state(run.recipe, "responses", 1).why == "missing"
    write_all(run)
    assert stale(run_with()) == set()
    manifest = artifacts.read_manifest(run.recipe, "responses", 1)
    assert (manifest["rows"], manifest["dropped"]) == (3, {"tie": 1})
    assert manifest["command"].startswith("python scripts/generate.py")


def test_a_list_in_a_recipe_is_the_list_in_the_manifest(run_with) -> None:
    """A manifest is JSON, which has no tuples: what was just trained is not stale at once."""
    overrides = ["training.lora={target_modules: [q_proj, v_proj]}", "training.loss_type=[ipo]"]
    write_all(run_with(*overrides))
    assert stale(run_with(*overrides)) == set()


@pytest.mark.parametrize(
    "overrides",
    [
        ["training.lora={target_modules: [q_proj]}", "training.adam_beta1=0.8", "data.limit=8"],
        ["generation.engine=vllm", "generation.vllm={hf_overrides: {1: [2, 3]}}"],
        ["ranking.ranker=judge", "ranking.judge.base_url=http://h/v1"],
        ["ranking={ranker: ensemble, rankers: [{ranker: pairrm}, {ranker: random}]}"],
    ],
    ids=["training", "engine", "judge", "ensemble"],
)
def test_the_part_of_a_recipe_is_what_its_manifest_gives_back(run_with, overrides) -> None:
    recipe = run_with(*overrides).recipe
    for entry in stages(recipe):
        part = recipe_part(recipe, *entry)
        assert json.loads(json.dumps(part)) == part, entry


def test_the_remaining_plan_says_of_done_stages_that_they_are_done(run_with) -> None:
    """A stage that is not done keeps its command, and so does all that depends on it."""
    run = run_with()
    write_all(run)
    shutil.rmtree(folder(run.recipe, "preferences", 2))
    lines = plan.script(run, artifacts.done(run.recipe)).splitlines()
    commands = [line for line in lines if line.startswith(("python", "accelerate"))]
    assert [line.split("scripts/")[1].split(".py")[0] for line in commands] == [
        *("rank", "train", "answer", "evaluate", "report")
    ]
    assert sum(line.startswith("echo") for line in lines) == len(stages(run.recipe)) - 5


def test_a_changed_key_makes_exactly_its_dependents_stale(run_with) -> None:
    write_all(run_with())
    assert {change: stale(run_with(change)) for change in TABLE} == TABLE
    assert stale(run_with()) == set()


@pytest.mark.parametrize("objective", ["dpo", "online_dpo"])
@pytest.mark.parametrize("override", ["alpha=0.5", "optimism=geb", "optimism=vpo", "optimism=none"])
def test_no_optimism_setting_decides_an_iteration_without_optimism(
    run_with, objective: str, override: str
) -> None:
    plain = [f"iterations.{i}.objective={objective}" for i in range(2)]
    write_all(run_with(*plain))
    assert stale(run_with(*plain, f"training.{override}")) == set()


def test_no_term_is_a_term_of_no_weight(run_with) -> None:
    write_all(run_with("training.alpha=0"))
    for term in ("none", "xpo", "geb", "vpo"):
        assert stale(run_with("training.alpha=0", f"training.optimism={term}")) == set()
    assert stale(run_with("training.optimism=none")) == set()


XPO = ("training.optimism=xpo", "training.reference=initial")


def test_the_initial_policy_explores_after_the_first_iteration(run_with) -> None:
    """Its responses depend on the base model and on no checkpoint, nor on the number of samples."""
    write_all(run_with())
    assert stale(run_with(*XPO)) == AFTER_CHECKPOINT_1 | {"iter-2/initial_responses"}
    write_all(run_with(*XPO))
    assert stale(run_with(*XPO)) == set()
    inputs = artifacts.read_manifest(run_with(*XPO).recipe, "preferences", 2)["inputs"]
    assert list(inputs) == ["iter-2/responses", "iter-2/initial_responses"]
    initial = "iter-2/initial_responses"
    assert initial in stale(run_with(*XPO, "generation.max_tokens=9"))
    assert initial in stale(run_with(*XPO, "data.limit=10"))
    more = run_with(*XPO, "generation.num_samples=2", "generation.temperature=0.5")
    same = run_with(*XPO, "generation.temperature=0.5")
    assert recipe_part(more.recipe, "initial_responses", 2) == (
        recipe_part(same.recipe, "initial_responses", 2)
    )
    assert initial not in stale(run_with(*XPO, "training.alpha=0.5"))


def test_the_command_of_the_initial_responses_names_the_policy(run_with) -> None:
    run = run_with(*XPO)
    line = plan.command(run, "initial_responses", 2)
    assert line.endswith(f"--iteration 2 --policy initial {' '.join(XPO)}")
    assert line in plan.script(run).splitlines()


def test_log_probs_depend_on_the_policy_and_the_held_out_pairs_alone(run_with) -> None:
    """Beta and the seed reach them by the checkpoint only, so the base model's stay current."""
    run = run_with()
    write_all(run)
    for t in (0, 1, 2):
        write(run, "logps", t)
    assert ("logps", 0) not in stages(run.recipe)

    def why(*overrides: str) -> list[str]:
        recipe = run_with(*overrides).recipe
        return [state(recipe, "logps", t).why for t in (0, 1, 2)]

    assert why() == ["", "", ""]
    assert why("generation.temperature=0.5", "iterations.1.learning_rate=0.5")[:1] == [""]
    for change in ("training.beta=0.5", "training.alpha=0.5", "seed=2"):
        base, *others = why(change)
        assert base == ""
        assert all("its input" in each and "checkpoint is not current" in each for each in others)
    for key in ("training.max_length=60", "evaluation.limit=3", "model.dtype=bfloat16"):
        assert all(key.partition("=")[0] in each for each in why(key)), key
    for change in ("training.tokens_per_micro_batch=99", "generation.workers=2", "hub.private=0"):
        assert why(change) == ["", "", ""], change
    write(run, "checkpoint", 2, "another policy")
    assert why() == ["", "", "its input iter-2/checkpoint was written again"]


def test_alpha_is_nothing_to_an_iteration_without_optimism(run_with) -> None:
    offline = "iterations.0.objective=dpo"
    write_all(run_with(offline))
    assert stale(run_with(offline, "training.alpha=0.5")) == AFTER_CHECKPOINT_2
    assert stale(run_with(offline, "generation.temperature=0.5")) == AFTER_PREFERENCES_2 | {
        "iter-2/responses"
    }


def test_options_of_vllm_count_where_they_change_what_it_answers(run_with) -> None:
    vllm = "generation.engine=vllm"
    write_all(run_with(vllm))
    for option in ("gpu_memory_utilization=0.5", "enable_prefix_caching=false"):
        assert stale(run_with(vllm, f"generation.vllm.{option}")) == set()
    for option in ("quantization=fp8", "max_model_len=64"):
        assert stale(run_with(vllm, f"generation.vllm.{option}")) == EVERYTHING


def test_another_number_of_iterations_is_another_portion(run_with) -> None:
    write_all(run_with())
    run = run_with("iterations=[{objective: selm, learning_rate: 1.0e-3}]")
    assert stale(run) == {*("iter-1/responses", "iter-1/preferences", "iter-1/checkpoint")} | {
        *("iter-1/answers", "iter-1/evaluation", "report")
    }


def test_a_stale_artifact_says_what_changed(run_with) -> None:
    write_all(run_with())
    changed = run_with("training.alpha=0.5").recipe
    assert state(changed, "checkpoint", 1).why == "recipe changed: training.alpha (0.01 -> 0.5)"
    assert "input iter-1/checkpoint is not current" in state(changed, "responses", 2).why


def test_an_evaluation_of_an_older_format_says_that_alone(run_with, monkeypatch) -> None:
    with monkeypatch.context() as before:
        before.setattr(lineage, "FORMATS", {})
        write_all(run_with())
    found = state(run_with().recipe, "evaluation", 0)
    assert (found.current, found.why) == (False, "recipe changed: format (3 -> 4)")
    assert stale(run_with()) == EVALUATIONS


def test_changed_content_of_data_and_reward_files_counts(run_with, tmp_path: Path) -> None:
    write_all(run_with())
    (tmp_path / "reward.py").write_text(REWARD.replace("len(text)", "-len(text)"), encoding="utf-8")
    assert stale(run_with()) == AFTER_PREFERENCES_1 | EVALUATIONS
    why = state(run_with().recipe, "preferences", 1).why
    assert why == "recipe changed: the content of ranking"
    (tmp_path / "reward.py").write_text(REWARD, encoding="utf-8")
    assert stale(run_with()) == set()
    train = tmp_path / "data" / "train.jsonl"
    train.write_text(train.read_text(encoding="utf-8").replace("Paris", "Perth"), encoding="utf-8")
    assert {"iter-1/responses", "iter-2/responses"} <= stale(run_with())
    assert state(run_with().recipe, "responses", 1).why == "recipe changed: the content of data"


def test_what_a_judge_is_asked_counts_and_not_where_or_how_fast(run_with, tmp_path: Path) -> None:
    template = tmp_path / "judge.txt"
    template.write_text("{prompt} {response_a} {response_b}", encoding="utf-8")
    judge = ["ranking.ranker=judge", "ranking.name_or_path=m", f"ranking.judge.template={template}"]
    write_all(run_with(*judge))
    ways = ["base_url=http://other:1/v1", "concurrency=1", "timeout_seconds=1", "api_key_env=KEY"]
    for change in (*ways, "requests_per_minute=1"):
        assert stale(run_with(*judge, f"ranking.judge.{change}")) == set(), change
    stale_by = {
        change: stale(run_with(*judge, f"ranking.{change}"))
        for change in ("name_or_path=n", "judge.temperature=1", "judge.max_tokens=7")
    }
    assert set(map(frozenset, stale_by.values())) == {frozenset(AFTER_PREFERENCES_1 | EVALUATIONS)}
    template.write_text("{prompt} {response_a} {response_b}!", encoding="utf-8")
    why = state(run_with(*judge).recipe, "preferences", 1).why
    assert why == "recipe changed: the content of ranking.judge.template"


def test_the_content_of_a_reward_models_folder_counts(run_with, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    model = ["ranking.ranker=reward_model", f"ranking.name_or_path={tmp_path / 'model'}"]
    write_all(run_with(*model))
    assert stale(run_with(*model, "ranking.tokens_per_batch=7")) == set()
    for change in ("dtype=bfloat16", "output_key=score", "trust_remote_code=true"):
        assert stale(run_with(*model, f"ranking.{change}")) == AFTER_PREFERENCES_1 | EVALUATIONS
    (tmp_path / "model" / "config.json").write_text("{ }", encoding="utf-8")
    assert state(run_with(*model).recipe, "preferences", 1).why.endswith("the content of ranking")


def test_the_members_of_an_ensemble_count(run_with, tmp_path: Path) -> None:
    function = f"{{ranker: function, name_or_path: '{tmp_path}/reward.py:reward'}}"
    ensemble = [f"ranking={{ranker: ensemble, rankers: [{{ranker: random}}, {function}]}}"]
    write_all(run_with(*ensemble))
    assert stale(run_with(*ensemble)) == set()
    (tmp_path / "reward.py").write_text(REWARD + "\n", encoding="utf-8")
    assert stale(run_with(*ensemble)) == AFTER_PREFERENCES_1 | EVALUATIONS
    why = state(run_with(*ensemble).recipe, "preferences", 1).why
    assert why == "recipe changed: the content of ranking.rankers.1"


def test_changed_content_of_the_chat_template_counts(run_with, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{{ messages }}", encoding="utf-8")
    override = f"model.chat_template={template}"
    write_all(run_with(override))
    assert stale(run_with(override)) == set()
    template.write_text("{{ messages }} ", encoding="utf-8")
    assert "iter-1/responses" in stale(run_with(override))
    why = state(run_with(override).recipe, "responses", 1).why
    assert why == "recipe changed: the content of model.chat_template"


def test_deleting_a_checkpoint_touches_only_what_depends_on_it(run_with) -> None:
    run = run_with()
    write_all(run)
    shutil.rmtree(folder(run.recipe, "checkpoint", 2))
    assert stale(run) == AFTER_CHECKPOINT_2
    kept = [folder(run.recipe, kind, 2) for kind in ("responses", "preferences")]
    before = [(path / "manifest.json").read_bytes() for path in kept]
    for kind, t in stages(run.recipe):
        if not state(run.recipe, kind, t).current:
            write(run, kind, t)
    assert stale(run) == set()
    assert [(path / "manifest.json").read_bytes() for path in kept] == before


def test_a_rewritten_input_makes_its_readers_stale(run_with) -> None:
    run = run_with()
    write_all(run)
    write(run, "preferences", 1, "other content")
    assert stale(run) == AFTER_CHECKPOINT_1
    assert "iter-1/preferences was written again" in state(run.recipe, "checkpoint", 1).why


def test_a_damaged_artifact_is_not_current(run_with) -> None:
    run = run_with()
    write_all(run)
    file = folder(run.recipe, "preferences", 2) / "file.txt"
    file.write_text("con", encoding="utf-8")
    assert state(run.recipe, "preferences", 2).why.startswith("damaged: file.txt")
    file.unlink()
    assert stale(run) == AFTER_PREFERENCES_2


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ["file.txt", "manifest.json"])
def test_whatever_is_damaged_is_made_again(run_with, damage, file: str) -> None:
    """A flipped bit in a manifest can change a number that the report tells: it counts, too."""
    run = run_with()
    write_all(run)
    path = folder(run.recipe, "preferences", 2) / file
    about = path.stat()
    path.write_bytes(damage(path.read_bytes()))
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert state(run.recipe, "preferences", 2).why.startswith(f"damaged: {file}")
    assert ("preferences", 2) not in artifacts.done(run.recipe)
    write(run, "preferences", 2)
    assert state(run.recipe, "preferences", 2).current


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'{"a": 1}', b"\xff", b"[" * 10**5])
def test_what_is_no_manifest_is_damaged(text: bytes) -> None:
    with pytest.raises(manifest.Damaged, match=r"manifest\.json"):
        manifest.parse(text)


def test_a_large_file_is_hashed_once_until_it_changes(tmp_path: Path) -> None:
    large = tmp_path / "model.safetensors"
    large.write_bytes(bytes(2**20))
    about = large.stat()
    memory = tmp_path / "hashes.json"
    assert hashes.Hashes(memory).of(large) == hashes.sha256(large)
    assert not memory.exists(), "it may change again within this time stamp"
    time.sleep(2.1)
    assert hashes.Hashes(memory).of(large) == hashes.sha256(large)
    (key,) = json.loads(memory.read_text(encoding="utf-8"))
    memory.write_text(json.dumps({key: "0" * 64}), encoding="utf-8")
    assert hashes.Hashes(memory).of(large) == "0" * 64, "it was not looked up"
    large.write_bytes(bytes([1]) + bytes(2**20 - 1))
    os.utime(large, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert hashes.Hashes(memory).of(large) == hashes.sha256(large)
    for nonsense in ("", "[]", "{", '{"a": 1}', "\x00"):
        memory.write_text(nonsense, encoding="utf-8")
        assert hashes.Hashes(memory).of(large) == hashes.sha256(large)


def test_files_that_are_not_read_make_nothing_stale(run_with, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(run_with().recipe.model.name_or_path, model)
    own = f"model.name_or_path={model}"
    write_all(run_with(own))
    for file in (".cache/huggingface/x.metadata", ".git/index", ".DS_Store", "notes.txt", "a.py"):
        (model / file).parent.mkdir(parents=True, exist_ok=True)
        (model / file).write_text("anything", encoding="utf-8")
    os.utime(model / "config.json")
    for file in (".DS_Store", "notes.txt"):
        (tmp_path / "data" / file).write_text("anything", encoding="utf-8")
    assert stale(run_with(own)) == set()
    (model / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    assert stale(run_with(own)) == EVERYTHING


def test_new_data_at_the_same_path_and_time_count(run_with, tmp_path: Path) -> None:
    write_all(run_with())
    train = tmp_path / "data" / "train.jsonl"
    about = train.stat()
    text = train.read_text(encoding="utf-8")
    train.write_text(text.replace("Paris", "Perth"), encoding="utf-8")
    os.utime(train, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert train.stat().st_size == about.st_size
    assert state(run_with().recipe, "responses", 1).why == "recipe changed: the content of data"


def test_what_a_reward_file_imports_from_beside_it_counts(run_with, tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text("import helper\n" + REWARD, encoding="utf-8")
    (tmp_path / "helper.py").write_text("scale = 1\n", encoding="utf-8")
    write_all(run_with())
    (tmp_path / "unrelated.py").write_text("scale = 2\n", encoding="utf-8")
    assert stale(run_with()) == set()
    (tmp_path / "helper.py").write_text("scale = 2\n", encoding="utf-8")
    assert stale(run_with()) == AFTER_PREFERENCES_1 | EVALUATIONS


def test_runs_inside_the_data_folder_are_no_data(run_with, tmp_path: Path) -> None:
    inside = f"output_dir={tmp_path / 'data' / 'runs'}"
    write_all(run_with(inside))
    assert stale(run_with(inside)) == set()


def test_settings_that_are_lists_stay_current(run_with) -> None:
    lora = "training.lora={target_modules: [q_proj, v_proj]}"
    write_all(run_with(lora))
    assert stale(run_with(lora)) == set()


def test_what_a_kill_left_beside_a_finished_artifact_is_removed(run_with) -> None:
    run = run_with()
    write_all(run)
    parent = folder(run.recipe, "responses", 1).parent
    before = sorted(os.listdir(parent))
    for what in ("old", "tmp", "partial", "pull"):
        (parent / f".responses.{what}").mkdir()
    assert ("responses", 1) in artifacts.done(run.recipe)
    assert sorted(os.listdir(parent)) == before


def test_that_unfinished_work_is_discarded_is_said(run_with, capsys) -> None:
    partial_folder(run_with(), "responses", 1)
    partial_folder(run_with(), "responses", 1)
    assert not capsys.readouterr().out
    partial = partial_folder(run_with("generation.temperature=0.5"), "responses", 1)
    said = f"{partial}: unfinished work is deleted, recipe changed: generation.temperature"
    assert said in capsys.readouterr().out
    write(run_with(), "responses", 1)
    partial = partial_folder(run_with(), "preferences", 1)
    write(run_with(), "responses", 1, "other content")
    partial_folder(run_with(), "preferences", 1)
    assert "its inputs were written again: iter-1/responses" in capsys.readouterr().out
    (partial / "key.json").write_text("", encoding="utf-8")
    partial_folder(run_with(), "preferences", 1)
    assert "damaged: key.json" in capsys.readouterr().out


def test_unfinished_work_does_not_hang_on_the_order_of_keys(run_with, capsys) -> None:
    """Sets of names have another order in each process."""
    run = run_with()
    for stage, t in (("responses", 1), ("answers", 0)):
        kept = partial_folder(run, stage, t) / "key.json"
        part, inputs = json.loads(kept.read_text(encoding="utf-8"))
        backwards = [dict(reversed(part.items())), inputs]
        kept.write_text(json.dumps(backwards), encoding="utf-8")
        assert partial_folder(run, stage, t) == kept.parent
        assert json.loads(kept.read_text(encoding="utf-8")) == [part, inputs]
    assert not capsys.readouterr().out


def test_what_an_artifact_depends_on_is_the_same_text_in_every_process(
    run_with,
) -> None:
    write_all(run_with())
    overrides = run_with().overrides
    program = (
        "import sys; from selm.recipe.loading import load_recipe; from selm.run.plan import Run; "
        "from selm.run.artifacts import partial_key; from selm.run.stages import stages; "
        "run = Run(load_recipe(sys.argv[1], sys.argv[2:]), sys.argv[1], tuple(sys.argv[2:])); "
        "print([partial_key(run, *entry) for entry in stages(run.recipe)])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program, run_with().path, *overrides],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1


def test_a_missing_input_names_the_command_that_makes_it(run_with) -> None:
    run = run_with("seed=7")
    with pytest.raises(UserError) as caught:
        require_inputs(run, "preferences", 1)
    expected = f"responses: missing; run: python scripts/generate.py {run.path} --iteration 1"
    assert f"{expected} seed=7" in str(caught.value)
    assert "\n" not in str(caught.value)
    write_all(run)
    require_inputs(run, "preferences", 1)
    with pytest.raises(UserError, match=r"recipe changed: seed \(7 -> 8\).*accelerate launch"):
        require_inputs(run_with("seed=8"), "responses", 2)


def test_a_failing_stage_leaves_what_was_there(run_with) -> None:
    run = run_with()
    with pytest.raises(ZeroDivisionError), writing(run, "responses", 1):
        raise ZeroDivisionError
    assert state(run.recipe, "responses", 1).why == "missing"
    write_all(run)
    with pytest.raises(ZeroDivisionError), writing(run, "responses", 1) as record:
        (record.folder / "file.txt").write_text("half", encoding="utf-8")
        raise ZeroDivisionError
    assert stale(run) == set()
    assert (folder(run.recipe, "responses", 1) / "file.txt").read_text(
        encoding="utf-8"
    ) == "content"


def test_a_kill_between_the_renames_is_recovered_from(run_with) -> None:
    """The old artifact was moved aside, the new one has not got its name yet."""
    run = run_with()
    write(run, "responses", 1, "old")
    target = folder(run.recipe, "responses", 1)
    building, old = target.parent / ".responses.tmp", target.parent / ".responses.old"
    shutil.copytree(target, building)
    os.replace(target, old)
    assert state(run.recipe, "responses", 1).why == "missing"
    write(run, "responses", 1, "new")
    assert state(run.recipe, "responses", 1).current
    assert (target / "file.txt").read_text(encoding="utf-8") == "new"
    assert os.listdir(target.parent) == ["responses"]


def test_a_kill_before_the_old_artifact_is_deleted_is_cleaned_up(run_with) -> None:
    run = run_with()
    write(run, "responses", 1, "new")
    target = folder(run.recipe, "responses", 1)
    shutil.copytree(target, target.parent / ".responses.old")
    assert state(run.recipe, "responses", 1).current
    write(run, "responses", 1, "newer")
    assert os.listdir(target.parent) == ["responses"]


def test_leftovers_of_a_killed_stage_do_not_get_into_the_artifact(run_with) -> None:
    run = run_with()
    building = folder(run.recipe, "responses", 1).parent / ".responses.tmp"
    building.mkdir(parents=True)
    (building / "leftover.txt").write_text("half", encoding="utf-8")
    write(run, "responses", 1)
    files = artifacts.read_manifest(run.recipe, "responses", 1)["files"]
    assert list(files) == ["file.txt"]


def test_finished_shards_are_kept_for_the_same_work_only(run_with) -> None:
    def shard(*overrides: str) -> Path:
        return partial_folder(run_with(*overrides), "responses", 1) / "shard.parquet"

    shard().write_text("rows", encoding="utf-8")
    assert shard().is_file()
    assert shard("training.alpha=0.5", "generation.shard_size=2").is_file()
    assert not shard("generation.temperature=0.5").is_file()
    assert not shard().is_file()  # the other work's shards are not mixed with these
    shard().write_text("rows", encoding="utf-8")
    write(run_with(), "responses", 1)
    assert not shard().is_file()  # the artifact has them all


def test_finished_shards_of_an_older_input_are_thrown_away(run_with) -> None:
    run = run_with()
    write(run, "responses", 1)
    (partial_folder(run, "preferences", 1) / "shard.parquet").write_text("rows", encoding="utf-8")
    assert (partial_folder(run, "preferences", 1) / "shard.parquet").is_file()
    write(run, "responses", 1, "other content")
    assert not (partial_folder(run, "preferences", 1) / "shard.parquet").is_file()


def test_manifests_chain_back_to_the_base_model(run_with) -> None:
    run = run_with()
    write_all(run)
    manifest = json.loads(
        (folder(run.recipe, "checkpoint", 2) / "manifest.json").read_text(encoding="utf-8")
    )
    assert set(manifest["inputs"]) == {"iter-1/checkpoint", "iter-2/preferences"}
    for key, digest in manifest["inputs"].items():
        there = artifacts.run_folder(run.recipe) / key / "manifest.json"
        assert sha256(there) == digest
    assert manifest["recipe"]["model"]["content"] is not None


def test_other_weights_in_the_rankers_folder_make_its_judgements_stale(
    run_with, tmp_path: Path
) -> None:
    ranker = small.write_transformers(tmp_path / "PairRM")
    pairrm = ("ranking.ranker=pairrm", f"ranking.name_or_path={ranker}")
    write_all(run_with(*pairrm))
    assert stale(run_with(*pairrm)) == set()
    weights = bytearray((ranker / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (ranker / "model.safetensors").write_bytes(weights)
    run = run_with(*pairrm)
    assert stale(run) == AFTER_PREFERENCES_1 | EVALUATIONS
    assert "the content of ranking" in state(run.recipe, "preferences", 1).why


def test_large_files_of_one_size_are_told_apart_by_a_sample(tmp_path: Path) -> None:
    found = set()
    for byte in (b"a", b"b", b"a"):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(byte * (64 * 2**20 + 1))
        found.add(fingerprint.of_model(str(folder), code=False))
    assert len(found) == 2
