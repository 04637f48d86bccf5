"""Real scripts and real clients against a Hub on this machine: push, pull, faults, secrets."""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from huggingface_hub import DatasetCard, ModelCard
from loopback_hub import LoopbackHub, User
from patience import PATIENCE
from transformers import AutoModelForCausalLM

from selm.data.parquet import read_rows
from selm.run import artifacts, manifest
from selm.run.hashes import hashes_in

if TYPE_CHECKING:
    from conftest import Project

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
TOKEN = "hf_secret"
PUSH = ("hub.push=true", "hub.namespace=me")
USERS = [
    User("me", TOKEN, roles={"lab": "write", "museum": "read"}),
    User("me", "hf_readonly", role="read"),
    User("me", "hf_fine", role="fineGrained", scopes={"me": ["repo.content.read", "repo.write"]}),
    User("me", "hf_fine_read", role="fineGrained", scopes={"me": ["repo.content.read"]}),
]
PUSHED = {
    "iter-0/answers": ("datasets", "me/tiny-answers", "iter-0"),
    "iter-0/evaluation": ("datasets", "me/tiny-evaluation", "iter-0"),
    "iter-1/responses": ("datasets", "me/tiny-responses", "iter-1"),
    "iter-1/preferences": ("datasets", "me/tiny-preferences", "iter-1"),
    "iter-1/checkpoint": ("models", "me/tiny-iter-1", "iter-1"),
    "iter-1/answers": ("datasets", "me/tiny-answers", "iter-1"),
    "iter-1/evaluation": ("datasets", "me/tiny-evaluation", "iter-1"),
    "iter-2/responses": ("datasets", "me/tiny-responses", "iter-2"),
    "iter-2/preferences": ("datasets", "me/tiny-preferences", "iter-2"),
    "iter-2/checkpoint": ("models", "me/tiny-iter-2", "iter-2"),
    "iter-2/answers": ("datasets", "me/tiny-answers", "iter-2"),
    "iter-2/evaluation": ("datasets", "me/tiny-evaluation", "iter-2"),
    "report": ("datasets", "me/tiny-evaluation", "report"),
}


@dataclass(frozen=True)
class Story:
    """A run that began on one machine, was lost there after a ranking, and ended on another."""

    hub: LoopbackHub
    first: "Project"
    second: "Project"
    requests_of_second: list[str]
    output: str


def machine(hub: LoopbackHub, run: "Project", folder: Path, *overrides: str) -> "Project":
    """An empty machine that has a run's recipe, and a token."""
    there = run.online(hub, TOKEN, folder / "home").with_overrides(*PUSH, *overrides)
    return replace(there, output_dir=folder / "runs")


@pytest.fixture(scope="session")
def story(
    finished: "Project",
    tiny_model: str,
    tiny_data: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Story:
    """Base model and data come from the Hub, too."""
    hub = LoopbackHub(USERS).start()
    model = {path.name: path.read_bytes() for path in Path(tiny_model).iterdir()}
    pairs = {path.name: path.read_bytes() for path in Path(tiny_data).iterdir()}
    hub.create("models", "lab/base", private=False, files=model)
    hub.create("datasets", "lab/pairs", private=False, files=pairs)
    sources = ("model.name_or_path=lab/base", "data.name_or_path=lab/pairs")
    first, second = (
        machine(hub, finished, tmp_path_factory.mktemp(name), *sources)
        for name in ("first", "second")
    )
    output = ""
    for script, t in (("answer", 0), ("evaluate", 0), ("generate", 1), ("rank", 1)):
        done = first.stage(script, t)
        assert done.returncode == 0, done.stderr
        output += done.stdout + done.stderr
    shutil.rmtree(first.output_dir)
    seen = len(hub.log)
    done = second.run()
    assert done.returncode == 0, done.stderr
    return Story(hub, first, second, hub.log[seen:], output + done.stdout + done.stderr)


def test_the_second_machine_ends_where_an_undisturbed_run_does(story, finished) -> None:
    second, whole = story.second, finished
    for kind, t, file in (
        ("preferences", 2, "train.parquet"),
        ("answers", 2, "test.parquet"),
        ("evaluation", 1, "test.parquet"),
        ("evaluation", 2, "test.parquet"),
    ):
        found, wanted = (
            read_rows(artifacts.folder(project.recipe, kind, t) / file)
            for project in (second, whole)
        )
        assert found == wanted, (kind, t)
    found, wanted = (
        AutoModelForCausalLM.from_pretrained(project.folder / "iter-2/checkpoint").state_dict()
        for project in (second, whole)
    )
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_what_is_on_the_hub_is_not_made_again(story) -> None:
    first = ("iter-0/answers", "iter-0/evaluation", "iter-1/responses", "iter-1/preferences")
    for key in first:
        assert f"{key}: already done, on the Hub" in story.output
        assert len([title for title in titles(story.hub) if title == one_title(key)]) == 1
    assert "iter-1/preferences: pulled from me/tiny-preferences (iter-1)" in story.output
    assert not (story.second.folder / "iter-1/responses").exists(), "no stage needed it"
    read = [
        line
        for line in story.requests_of_second
        if "tiny-responses/resolve" in line and "iter-1/train.parquet" in line
    ]
    assert len(read) == 1, "the page of the report shows its rows"


def titles(hub: LoopbackHub) -> list[str]:
    return [title for kind, name in hub.repos for title in hub.commits(kind, name)]


def one_title(key: str) -> str:
    """`iter-1/responses` -> `iter-1: responses`."""
    return ": ".join(key.split("/")) if "/" in key else f"{key}: {key}"


def test_each_artifact_is_one_commit_and_one_tag_in_a_private_repository(story) -> None:
    hub = story.hub
    mine = {(kind, name) for kind, name in hub.repos if name.startswith("me/")}
    assert mine == {(kind, name) for kind, name, _ in PUSHED.values()}
    assert all(hub.repos[key].private for key in mine)
    for key, (kind, name, tag) in PUSHED.items():
        assert hub.repos[kind, name].resolve(tag).title == one_title(key)
        assert hub.commits(kind, name).count(one_title(key)) == 1
    for kind, name in mine:
        pushed = sum(place[:2] == (kind, name) for place in PUSHED.values())
        assert len(hub.commits(kind, name)) == 1 + pushed, "the first commit is the Hub's own"
        assert len(hub.repos[kind, name].tags) == pushed


def test_manifests_are_the_same_bytes_on_both_sides(story) -> None:
    for key, (kind, name, tag) in PUSHED.items():
        there = story.hub.files(kind, name, tag)
        prefix = "" if kind == "models" else f"{tag}/"
        here = story.second.folder / key / "manifest.json"
        if here.exists():
            assert here.read_bytes() == there[f"{prefix}manifest.json"], key


READ_BACK = """
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

splits_of = {"responses": (1, 2), "preferences": (1, 2)}
splits_of |= {"answers": (0, 1, 2), "evaluation": (0, 1, 2)}
for kind, splits in splits_of.items():
    loaded = load_dataset(f"me/tiny-{kind}")
    assert list(loaded) == [f"iter_{t}" for t in splits], loaded
    tagged = load_dataset(f"me/tiny-{kind}", revision="iter-1")
    assert f"iter_1" in tagged and "iter_2" not in tagged, tagged
    print(kind, [part.num_rows for part in loaded.values()])
for t in (1, 2):
    AutoModelForCausalLM.from_pretrained(f"me/tiny-iter-{t}", revision=f"iter-{t}")
    assert AutoTokenizer.from_pretrained(f"me/tiny-iter-{t}").chat_template
print("models")
"""


def test_the_libraries_of_the_field_read_it_back(story, tmp_path: Path) -> None:
    reader = machine(story.hub, story.second, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", READ_BACK],
        env=reader.all_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:5] == [
        "responses [12, 12]",
        "preferences [12, 12]",
        "answers [8, 8, 8]",
        "evaluation [8, 8, 8]",
        "models",
    ]


def test_cards_name_true_parents_and_revisions(story) -> None:
    hub = story.hub
    commit = {key: hub.repos[kind, name].tags[tag] for key, (kind, name, tag) in PUSHED.items()}
    base = hub.repos["models", "lab/base"].resolve("main").oid
    pairs = hub.repos["datasets", "lab/pairs"].resolve("main").oid

    def card(key: str) -> str:
        kind, name, tag = PUSHED[key]
        return hub.files(kind, name, tag)["README.md"].decode()

    model = ModelCard(card("iter-2/checkpoint"))
    assert model.data.base_model == "lab/base"
    assert model.data.datasets == ["me/tiny-preferences", "lab/pairs"]
    assert (model.data.library_name, model.data.pipeline_tag) == ("transformers", "text-generation")
    assert "selm" in model.data.tags
    for parent in (base, pairs, commit["iter-1/checkpoint"], commit["iter-2/preferences"]):
        assert parent in model.text
    for fact in ("alpha 0.01, beta 0.1", "global_batch_size: 4", "transformers 5.", "@article"):
        assert fact in model.text

    responses = DatasetCard(card("iter-2/responses"))
    assert responses.data.configs[0]["data_files"] == [
        {"split": f"iter_{t}", "path": f"iter-{t}/train.parquet"} for t in (1, 2)
    ]
    assert base in responses.text and commit["iter-1/checkpoint"] in responses.text
    preferences = DatasetCard(card("iter-2/preferences"))
    assert commit["iter-1/checkpoint"] in preferences.text, "the policy, an input of its input"
    assert commit["iter-2/responses"] in preferences.text
    for fact in ("ranker: random", "max_tokens: 8", "Dropped: none", "python scripts/rank.py"):
        assert fact in preferences.text
    evaluation = DatasetCard(card("iter-2/evaluation"))
    assert evaluation.data.configs[0]["data_files"][-1]["path"] == "iter-2/test.parquet"
    for parent in ("iter-0/answers", "iter-2/answers", "iter-2/checkpoint"):
        assert commit[parent] in evaluation.text, parent
    for fact in ("ranker: random", "max_tokens: 8", "python scripts/evaluate.py"):
        assert fact in evaluation.text
    checked = [line for line in hub.log if line == "POST /api/validate-yaml 200"]
    assert len(checked) == len(PUSHED)


def test_the_token_stays_where_it_is(story) -> None:
    assert story.hub.leaks == []
    assert any("/lfs/" in line for line in story.hub.log), "there was another host to leak to"
    assert TOKEN not in story.output
    for folder in (story.second.output_dir, Path(str(story.second.environment["HF_HOME"]))):
        for path in folder.rglob("*"):
            assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
    for kind, name in story.hub.repos:
        for path, content in story.hub.files(kind, name).items():
            assert TOKEN.encode() not in content, path


def test_a_finished_run_gives_its_report_to_an_empty_machine(story, tmp_path: Path) -> None:
    third = machine(story.hub, story.second, tmp_path)
    seen = len(story.hub.log)
    done = third.stage("report")
    assert done.returncode == 0, done.stderr
    assert "mean held-out reward" in done.stdout
    for file in ("report.md", "metrics.json", "rewards.png"):
        found, wanted = (p.folder / "report" / file for p in (third, story.second))
        assert found.read_bytes() == wanted.read_bytes()
    assert not [line for line in story.hub.log[seen:] if line.startswith(("POST", "PUT"))]
    assert not (third.folder / "iter-1").exists()


def test_a_report_can_be_made_without_the_weights(story, tmp_path: Path) -> None:
    """On a machine that has nothing of the run, once the report is not on the Hub."""
    shutil.copytree(story.second.environment["HF_HOME"], tmp_path / "home")
    third = machine(story.hub, story.second, tmp_path)
    repo = story.hub.repos["datasets", "me/tiny-evaluation"]
    commit = repo.tags.pop("report")
    seen = len(story.hub.log)
    done = third.stage("report")
    del repo.branches["main"][-1:], repo.tags["report"]
    repo.tags["report"] = commit
    assert done.returncode == 0, done.stderr
    assert not [line for line in story.hub.log[seen:] if "model.safetensors" in line]
    found, wanted = (p.folder / "report" / "metrics.json" for p in (third, story.second))
    assert json.loads(found.read_text(encoding="utf-8")) == json.loads(
        wanted.read_text(encoding="utf-8")
    )


def test_another_recipe_is_refused_with_the_keys(story, tmp_path: Path) -> None:
    before = titles(story.hub)
    other = machine(story.hub, story.second, tmp_path)
    refused = other.with_overrides("generation.temperature=0.5").stage("generate", 1)
    assert refused.returncode == 2
    assert "me/tiny-responses (iter-1) is already on the Hub" in refused.stderr
    assert "generation.temperature (0.0 -> 0.5)" in refused.stderr
    assert not other.output_dir.exists()
    assert titles(story.hub) == before


def test_a_run_finds_out_about_all_stages_before_the_first(story, tmp_path: Path) -> None:
    """The first iteration is the recipe's own and on the Hub; the second is not."""
    other = machine(story.hub, story.second, tmp_path)
    refused = other.with_overrides("iterations.1.learning_rate=0.5").run()
    assert refused.returncode == 2
    assert "me/tiny-iter-2 (iter-2) is already on the Hub" in refused.stderr
    assert "iteration.learning_rate (0.001 -> 0.5)" in refused.stderr
    assert "already done" not in refused.stdout


def test_without_push_no_request_is_made(finished, untouched_hub) -> None:
    """`finished` could have reached this Hub; all other runs have HF_HUB_OFFLINE=1."""
    assert finished.environment["HF_ENDPOINT"] == untouched_hub.endpoint
    assert finished.environment["HF_HUB_OFFLINE"] is None
    assert untouched_hub.log == []


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    started = LoopbackHub(USERS).start()
    yield started
    started.stop()


@pytest.fixture
def pushing(finished: "Project", hub: LoopbackHub, tmp_path: Path) -> "Project":
    """The finished run, copied, of which nothing is on the Hub yet."""
    shutil.copytree(finished.output_dir, tmp_path / "runs")
    return machine(hub, finished, tmp_path)


@pytest.mark.parametrize(
    ("token", "overrides", "message"),
    [
        (None, (), "hub.push: no token on this machine; run `hf auth login` or set HF_TOKEN"),
        ("hf_unknown", (), "does not know the token on this machine (401)"),
        ("hf_readonly", (), "hub.push: the token of me is read-only"),
        ("hf_fine_read", (), "the fine-grained token of me has no write access to the"),
        (
            TOKEN,
            ("hub.namespace=you",),
            "hub.namespace: the token belongs to me, who may not write to",
        ),
        (TOKEN, ("hub.namespace=museum",), "me may only read in the organisation museum"),
        (TOKEN, ("hub.namespace=null",), "hub.namespace: missing; hub.push=true needs the name of"),
        (TOKEN, ("run_name=a--b",), "run_name: the Hub does not allow me/a--b-*"),
        (
            "hf_\x01",
            (),
            "hub.push: the token on this machine has characters that a token cannot have",
        ),
    ],
    ids=[
        *("none", "unknown", "read-only", "fine-grained", "foreign namespace", "reader"),
        *("no namespace", "no name for the Hub", "malformed"),
    ],
)
def test_no_stage_begins_with_a_token_that_cannot_push(
    project, hub, tmp_path: Path, token: str | None, overrides: tuple, message: str
) -> None:
    there = machine(hub, project, tmp_path, *overrides)
    refused = replace(there, environment=there.environment | {"HF_TOKEN": token}).run()
    assert refused.returncode == 2
    lines = [line for line in refused.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and message in lines[0]
    assert "Traceback" not in refused.stderr
    assert token is None or token not in refused.stderr + refused.stdout
    assert hub.repos == {} and not list(tmp_path.rglob("iter-0"))


def test_pushing_offline_is_a_contradiction(project, hub, tmp_path: Path) -> None:
    there = machine(hub, project, tmp_path)
    offline = replace(there, environment=there.environment | {"HF_HUB_OFFLINE": "1"})
    refused = offline.stage("evaluate", 0)
    assert refused.returncode == 2
    assert "HF_HUB_OFFLINE is set; unset it, or set hub.push=false" in refused.stderr
    assert hub.log == []


def test_a_private_run_is_not_pushed_to_a_public_repository(pushing, hub) -> None:
    hub.create("datasets", "me/tiny-responses", private=False, files={"README.md": b"# mine\n"})
    refused = pushing.stage("generate", 1)
    assert refused.returncode == 2
    assert "hub.private: me/tiny-responses is public" in refused.stderr
    assert hub.commits("datasets", "me/tiny-responses") == ["initial"]
    assert pushing.with_overrides("hub.private=false").stage("generate", 1).returncode == 0


def responses_are_pushed_once(hub: LoopbackHub) -> bool:
    repo = hub.repos["datasets", "me/tiny-responses"]
    return hub.commits("datasets", "me/tiny-responses") == ["initial", "iter-1: responses"] and (
        repo.resolve("iter-1").title == "iter-1: responses"
    )


@pytest.mark.parametrize(
    ("pattern", "fault", "said"),
    [
        ("POST .*/commit/main", {"status": 412, "times": 2}, "412 as ordered; attempt 2 of 6"),
        ("POST .*/commit/main", {"status": 409}, "409 as ordered; attempt 1 of 6 failed"),
        (
            "(POST|GET) .*tiny-responses",
            {"status": 429, "times": 3, "headers": {"Retry-After": "1"}},
            "429 as ordered; attempt 3 of 6",
        ),
        ("POST .*/commit/main", {"status": 503}, "503 as ordered; attempt 1 of 6"),
        ("POST .*/commit/main", {}, "RemoteProtocolError"),
        ("POST .*/commit/main", {"after": True}, "RemoteProtocolError"),
        ("POST .*/repos/create", {"after": True}, "RemoteProtocolError"),
        ("PUT /lfs/", {"times": 2}, "thrown while requesting PUT"),
        ("PUT /lfs/", {"status": 500}, "500 thrown while requesting PUT"),
    ],
    ids=[
        *("412 twice", "409", "429 thrice", "503", "dropped commit", "lost answer to commit"),
        *("lost answer to create", "dropped upload twice", "500 on upload"),
    ],
)
def test_a_fault_that_passes_is_waited_for(pushing, hub, pattern, fault, said) -> None:
    ordered = hub.fail(pattern, **fault)
    done = pushing.stage("generate", 1)
    assert done.returncode == 0, done.stderr
    assert ordered.times == 0
    assert said in done.stdout + done.stderr
    assert responses_are_pushed_once(hub)
    assert hub.leaks == [] and TOKEN not in done.stdout + done.stderr


def test_a_dead_hub_costs_no_work(pushing, hub) -> None:
    """It goes away between two stages; in the end the same command does what is missing."""
    assert pushing.stage("generate", 1).returncode == 0
    hub.stop()
    failed = pushing.stage("rank", 1)
    assert failed.returncode == 1
    *attempts, error = failed.stderr.splitlines()
    assert len(attempts) == 5 and "attempt 5 of 6 failed, next in 16 s" in attempts[-1]
    assert error.startswith("error: hub: asking who the token belongs to: ConnectError")
    hub.start()
    done = pushing.stage("rank", 1)
    assert done.returncode == 0, done.stderr
    assert "preferences: already done" in done.stdout and "pushed to" in done.stdout
    assert hub.commits("datasets", "me/tiny-preferences") == ["initial", "iter-1: preferences"]


def test_a_push_that_fails_after_the_stage_is_made_up_for(pushing, hub) -> None:
    """Refused for good between commit and tag: done here, exit 1; then only the tag is missing."""
    shutil.rmtree(pushing.folder / "iter-1/responses")
    hub.fail("POST .*/tag/", status=403)
    failed = pushing.stage("generate", 1)
    assert failed.returncode == 1
    assert "responses: written, 12 rows" in failed.stdout
    assert "iter-1/responses is complete on this disk, but not on the Hub" in failed.stderr
    assert "tagging me/tiny-responses (iter-1): 403" in failed.stderr
    kept = (pushing.folder / "iter-1/responses/manifest.json").read_bytes()
    done = pushing.stage("generate", 1)
    assert done.returncode == 0, done.stderr
    assert "already done" in done.stdout
    assert (pushing.folder / "iter-1/responses/manifest.json").read_bytes() == kept
    assert responses_are_pushed_once(hub)


def test_a_file_that_did_not_arrive_is_noticed(pushing, hub) -> None:
    hub.loses = "iter-1/train.parquet"
    failed = pushing.stage("generate", 1)
    assert failed.returncode == 1
    assert "me/tiny-responses: iter-1/train.parquet was damaged in the upload" in failed.stderr
    assert hub.repos["datasets", "me/tiny-responses"].tags == {}
    hub.loses = ""
    assert pushing.stage("generate", 1).returncode == 0


def test_what_another_run_has_pushed_is_not_overwritten(pushing, hub) -> None:
    assert pushing.stage("generate", 1).returncode == 0
    before = hub.files("datasets", "me/tiny-responses")
    folder = pushing.folder / "iter-1/responses"
    facts = manifest.parse((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").unlink()
    manifest.write(folder, facts | {"rows": 13}, hashes_in(pushing.output_dir))
    refused = pushing.stage("generate", 1)
    assert refused.returncode == 2
    assert "me/tiny-responses (iter-1) is already on the Hub" in refused.stderr
    assert "it was made in another run, at 20" in refused.stderr
    assert hub.files("datasets", "me/tiny-responses") == before


def test_a_repository_of_another_kind_is_not_taken_for_ours(pushing, hub) -> None:
    files = {"README.md": b"# x\n", "rows.csv": b"1\n"}
    repo = hub.create("datasets", "me/tiny-responses", private=True, files=files)
    refused = pushing.stage("generate", 1)
    assert refused.returncode == 2
    assert "me/tiny-responses already exists and holds something else" in refused.stderr
    assert hub.files("datasets", "me/tiny-responses") == files
    repo.tags["iter-1"] = repo.resolve("main").oid
    refused = pushing.stage("generate", 1)
    assert refused.returncode == 2
    assert "me/tiny-responses (iter-1) has no iter-1/manifest.json: it was not pushed" in (
        refused.stderr
    )


@pytest.mark.parametrize("transfer", ["lfs", "xet"])
def test_inputs_are_pushed_first_and_pulled_where_they_are_missing(
    pushing, hub, tmp_path: Path, transfer: str
) -> None:
    """By both of the Hub's ways for large files; with a fine-grained token."""
    how = {"HF_HUB_DISABLE_XET": "1" if transfer == "lfs" else None, "HF_TOKEN": "hf_fine"}
    pushing = replace(pushing, environment=pushing.environment | how)
    done = pushing.stage("evaluate", 1)
    assert done.returncode == 0, done.stderr
    first = ["iter-0/answers", *(k for k in PUSHED if k.startswith("iter-1/"))]
    assert sorted(title for title in titles(hub) if title != "initial") == sorted(
        one_title(key) for key in first
    )
    assert bool(hub.xet_files) == (transfer == "xet")

    empty = replace(pushing, output_dir=tmp_path / "other")
    home = {"HF_HOME": str(tmp_path / "other-home")}
    empty = replace(empty, environment=empty.environment | home)
    done = empty.stage("generate", 2)
    assert done.returncode == 0, done.stderr
    there, here = (project.folder / "iter-1/checkpoint" for project in (pushing, empty))
    for path in there.iterdir():
        assert (here / path.name).read_bytes() == path.read_bytes()
    assert sorted(path.name for path in here.iterdir()) == sorted(p.name for p in there.iterdir())
    assert not list(empty.folder.rglob(".*"))
    rows = [read_rows(p.folder / "iter-2/responses/train.parquet") for p in (pushing, empty)]
    assert rows[0] == rows[1]


def test_a_download_that_arrives_damaged_is_not_used(pushing, hub, tmp_path: Path) -> None:
    assert pushing.stage("generate", 1).returncode == 0
    blob = hub.repos["datasets", "me/tiny-responses"].resolve("main").tree["iter-1/train.parquet"]
    good = hub.objects[blob.sha256]
    hub.objects[blob.sha256] = bytes(len(good))
    empty = machine(hub, pushing, tmp_path / "other")
    failed = empty.stage("rank", 1)
    assert failed.returncode == 1
    assert "me/tiny-responses (iter-1): train.parquet arrived damaged" in failed.stderr
    assert not (empty.folder / "iter-1/responses").exists()
    hub.objects[blob.sha256] = good
    done = empty.stage("rank", 1)
    assert done.returncode == 0, done.stderr


def test_every_save_lets_another_machine_go_on(pushing, hub, finished, tmp_path: Path) -> None:
    """Killed after its first save was pushed; an empty machine goes on from there."""
    assert pushing.stage("rank", 1).returncode == 0
    often = ("hub.every_save=true", "training.save_steps=1")
    killed = machine(hub, pushing, tmp_path / "killed", *often)
    killed.killed_at("push_save", 1, "train", 1)
    assert "checkpoint-1" in saves(hub)
    other = machine(hub, pushing, tmp_path / "other", *often)
    done = other.stage("train", 1)
    assert done.returncode == 0, done.stderr
    assert "steps: pulled from me/tiny-iter-1 (saves)" in done.stdout
    assert "resuming from" in done.stdout
    found, wanted = (
        AutoModelForCausalLM.from_pretrained(project.folder / "iter-1/checkpoint").state_dict()
        for project in (other, finished)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    repo = hub.repos["models", "me/tiny-iter-1"]
    assert list(repo.branches) == ["main"], "the saves are gone once the training is finished"


def test_a_hub_that_hangs_does_not_hold_a_training_up(pushing, hub) -> None:
    """While it hangs with the first save, the next is made and the first is deleted here."""
    assert pushing.stage("rank", 1).returncode == 0
    answers = threading.Event()
    hub.fail("POST .*/commit/saves", times=100, until=answers)
    often = ("hub.every_save=true", "training.save_steps=1", "training.save_total_limit=1")
    slow = machine(hub, pushing, pushing.output_dir.parent / "slow", *often)
    with subprocess.Popen(
        slow.command("train", 1),
        cwd=REPOSITORY,
        env=slow.all_environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as training:
        steps = artifacts.partial_path(slow.recipe, "checkpoint", 1) / "steps"
        started = time.monotonic()
        pushed = None
        kept: set[str] = set()
        while pushed is None or kept != {"checkpoint-2"}:
            kept = {path.name for path in steps.glob("checkpoint-*")}
            assert training.poll() is None and time.monotonic() - started < PATIENCE
            time.sleep(0.01)
            repo = hub.repos.get(("models", "me/tiny-iter-1"))
            pushed = None if repo is None else repo.branches.get("saves")
        assert [commit.title for commit in pushed] == ["initial"]
        answers.set()
        said, _ = training.communicate(timeout=PATIENCE)
    assert training.returncode == 0
    assert "checkpoint-1: pushed to me/tiny-iter-1 (saves)" in said
    first = pushed[1]  # the second follows it, if the training is not over by then
    assert first.title == "checkpoint-1"
    assert {"key.json", "checkpoint-1/optimizer.pt", "checkpoint-1/files.json"} <= set(first.tree)


def test_a_hub_that_takes_no_saves_does_not_end_a_training(pushing, hub) -> None:
    assert pushing.stage("rank", 1).returncode == 0
    hub.fail("POST .*/commit/saves", status=500, times=100)
    often = ("hub.every_save=true", "training.save_steps=1")
    done = machine(hub, pushing, pushing.output_dir.parent / "refused", *often).stage("train", 1)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "not pushed" in line]
    assert lines == [
        "checkpoint-1: not pushed to the Hub: hub: pushing checkpoint-1 to me/tiny-iter-1: "
        "500 as ordered, after 6 attempts"
    ]
    assert hub.repos["models", "me/tiny-iter-1"].tags.keys() == {"iter-1"}


def saves(hub: LoopbackHub) -> list[str]:
    """Commits of the branch of saves."""
    repo = hub.repos.get(("models", "me/tiny-iter-1"))
    return [commit.title for commit in repo.branches.get("saves", [])] if repo else []
