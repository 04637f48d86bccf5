"""What decides about the Hub without asking it: names, permissions, patience, cards."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import DatasetCard, ModelCard
from huggingface_hub.errors import HfHubHTTPError

from selm.data.parquet import features
from selm.data.schemas import ARTIFACTS, described
from selm.errors import OutsideError, UserError
from selm.hub import cards
from selm.hub.access import why_not
from selm.huggingface import API, patiently
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Recipe
from selm.run import lineage, writing
from selm.run.on_hub import Place, Pushed, place
from selm.run.plan import Run, script
from selm.run.stages import STAGES


@pytest.fixture
def recipe(tiny_recipe: str) -> Recipe:
    return load_recipe(tiny_recipe, ["hub.push=true", "hub.namespace=me"])


def test_names_are_those_of_the_documentation(recipe: Recipe) -> None:
    assert place(recipe, "responses", 1) == Place(
        "me/tiny-responses", "dataset", "iter-1", "iter-1"
    )
    assert place(recipe, "preferences", 2).path("a.txt") == "iter-2/a.txt"
    assert place(recipe, "checkpoint", 2) == Place("me/tiny-iter-2", "model", "", "iter-2")
    assert place(recipe, "checkpoint", 2).path("a.txt") == "a.txt"
    assert place(recipe, "evaluation", 0).tag == "iter-0"
    assert place(recipe, "report", None).repo == place(recipe, "evaluation", 0).repo
    assert place(recipe, "report", None).url == (
        f"{API.endpoint}/datasets/me/tiny-evaluation/tree/report"
    )


def test_no_two_artifacts_share_a_place(recipe: Recipe) -> None:
    entries = [*lineage.inputs(recipe, "report", None), ("report", None)]
    places = {place(recipe, *entry) for entry in entries}
    assert len(places) == len(entries)


def test_the_client_is_not_imported_for_nothing() -> None:
    check = "import sys, selm.cli; assert not {'huggingface_hub', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_pushing_needs_a_namespace_and_takes_no_token(tiny_recipe: str) -> None:
    with pytest.raises(UserError, match=r"^hub.namespace: missing; hub.push=true needs the name"):
        load_recipe(tiny_recipe, ["hub.push=true"])
    with pytest.raises(UserError, match=r"^training.hub_token: decided by .*HF_TOKEN"):
        load_recipe(tiny_recipe, ["training.hub_token=hf_x"])


def test_the_plan_says_that_it_pushes(tiny_recipe: str) -> None:
    def plan(*overrides: str) -> str:
        return script(Run(load_recipe(tiny_recipe, overrides), tiny_recipe, overrides))

    push = ("hub.push=true", "hub.namespace=me")
    assert "Hub" not in plan()
    assert "# what is finished is pushed to the Hub as private me/tiny-*" in plan(*push)
    assert "as PUBLIC me/tiny-*" in plan(*push, "hub.private=false")


def who(role: str | None = "write", **more: Any) -> dict[str, Any]:
    """What the Hub says of a token of `me`, who is in three organisations."""
    token = {"role": role} if role else {}
    orgs = [{"name": f"org-{r}", "roleInOrg": r} for r in ("read", "contributor", "admin")]
    return {"name": "me", "orgs": orgs, "auth": {"accessToken": token | more}}


def scopes(name: str, *permissions: str) -> dict[str, Any]:
    return {"fineGrained": {"scoped": [{"entity": {"name": name}, "permissions": permissions}]}}


@pytest.mark.parametrize(
    ("answer", "namespace", "refusal"),
    [
        (who(), "me", None),
        (who(), "org-admin", None),
        (who(), "org-contributor", None),
        (who(), "org-read", "me may only read in the organisation org-read"),
        (who(), "you", "possible: me, org-read, org-contributor, org-admin"),
        (who("read"), "me", "read-only"),
        (who("fineGrained", **scopes("me", "repo.content.read", "repo.write")), "me", None),
        (who("fineGrained", **scopes("me", "repo.content.read")), "me", "no write access"),
        (who("fineGrained", **scopes("you", "repo.write")), "me", "no write access"),
        (who("fineGrained", **scopes("org-x", "repo.write")), "org-x", None),
        (who(None), "me", None),
    ],
)
def test_what_a_token_may_do_is_known_beforehand(
    answer: dict[str, Any], namespace: str, refusal: str | None
) -> None:
    found = why_not(answer, namespace)
    assert found is None if refusal is None else found is not None and refusal in found


def failure(status: int, **headers: str) -> HfHubHTTPError:
    request = httpx2.Request("GET", "https://host/path?signature=secret")
    answer = httpx2.Response(status, request=request, headers=headers)
    return HfHubHTTPError(f"for {request.url}", response=answer, server_message="as ordered\nx")


def fails_with(*errors: Exception):
    """A call that raises these in turn, then answers 42."""
    left = list(errors)

    def call() -> int:
        if left:
            raise left.pop(0)
        return 42

    return call


@pytest.mark.parametrize(
    "error",
    [
        *(failure(status) for status in (409, 412, 429, 500, 503)),
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("slow"),
        ConnectionError("gone"),
        RuntimeError("Xet says no"),
    ],
)
def test_what_may_pass_is_tried_again_and_printed(error: Exception, capsys) -> None:
    assert patiently("asking", fails_with(error, error), waits_seconds=(0, 0)) == 42
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("hub: asking: ") and "attempt 2 of 3 failed" in lines[1]
    assert "secret" not in lines[1]


def test_patience_ends(capsys) -> None:
    with pytest.raises(OutsideError, match=r"^hub: asking: 503 as ordered, after 3 attempts$"):
        patiently("asking", fails_with(*[failure(503)] * 9), waits_seconds=(0, 0))


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_does_not_pass_is_not_tried_again(wrapped: bool, capsys) -> None:
    error: Exception = failure(403)
    if wrapped:  # as the threads of an upload do
        error = RuntimeError("while uploading")
        error.__cause__ = failure(403)
    with pytest.raises(OutsideError, match=r"^hub: asking: 403 as ordered$") as caught:
        patiently("asking", fails_with(error), waits_seconds=(0, 0))
    assert caught.value.status == 403
    assert capsys.readouterr().err == ""


def test_a_server_may_ask_for_more_patience(capsys) -> None:
    patiently("asking", fails_with(failure(429, **{"Retry-After": "1"})), waits_seconds=(0,))
    assert "next in 1 s" in capsys.readouterr().err


def test_errors_of_ours_are_not_swallowed() -> None:
    with pytest.raises(KeyError):
        patiently("asking", fails_with(KeyError("a bug")), waits_seconds=(0,))


@pytest.mark.parametrize("kind", [kind for kind in ARTIFACTS if kind in STAGES])
def test_a_card_describes_every_column(kind: str, recipe: Recipe) -> None:
    card = cards.dataset_card(recipe, kind, {1: (manifest(recipe, kind, 1), {})}, has_report=False)
    shown = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", card, re.MULTILINE)
    assert shown == described(ARTIFACTS[kind])
    assert [name for name, *_ in shown] == list(features(ARTIFACTS[kind], with_tools=True))


def test_the_package_brings_the_templates_of_the_cards(tmp_path: Path) -> None:
    folders = ["egg_info", "--egg-base", str(tmp_path), "build_py", "--build-lib", str(tmp_path)]
    command = [sys.executable, "setup.py", "-q", *folders]
    subprocess.run(command, cwd=Path(__file__).parents[1], check=True, capture_output=True)
    brought = {path.name for path in tmp_path.glob("selm/hub/templates/*")}
    assert brought == {"benchmarks.md", "dataset.md", "model.md"}


def manifest(recipe: Recipe, kind: str, t: int, **more: Any) -> dict[str, Any]:
    return {
        "recipe": lineage.recipe_part(recipe, kind, t),
        "inputs": {},
        "revisions": {},
        "rows": 1200,
        "dropped": {"tie": 3},
        "seconds": 7.5,
        "command": "python scripts/x.py",
        "versions": {"selm": "0.1.0"},
        "git_commit": None,
    } | more


def test_a_dataset_card_lists_what_is_there_and_says_where_it_is_from(recipe: Recipe) -> None:
    iterations = {t: (manifest(recipe, "responses", t), {}) for t in (2, 1)}
    card = DatasetCard(cards.dataset_card(recipe, "responses", iterations, has_report=False))
    splits = [entry["split"] for entry in card.data.configs[0]["data_files"]]
    assert splits == ["iter_1", "iter_2"]
    assert card.data.size_categories == ["1K<n<10K"]
    assert card.data.source_datasets is None, "the data is a local folder"
    assert "Rows: 1200. Dropped: 3 tie." in card.text
    assert f"a local folder or file, `{recipe.data.name_or_path}`" in card.text
    assert "report.md" not in card.text


def test_a_model_card_names_only_parents_that_are_on_the_hub(recipe: Recipe) -> None:
    log = [{"loss": 0.7, "step": 1}, {"loss": 0.65, "step": 2}, {"train_runtime": 3.0}]
    facts = manifest(recipe, "checkpoint", 2)
    card = ModelCard(cards.model_card(recipe, 2, facts, log, {}))
    assert card.data.base_model is None and card.data.datasets is None
    assert "Policy before this iteration: iteration 1\n" in card.text
    assert "| loss | 0.7 | 0.65 |" in card.text
    pushed = json.dumps(manifest(recipe, "checkpoint", 1, revisions={"model": "abc"})).encode()
    parent = Pushed(place(recipe, "checkpoint", 1), "c0ffee", pushed)
    card = ModelCard(cards.model_card(recipe, 2, facts, log, {"iter-1/checkpoint": parent}))
    assert "[me/tiny-iter-1](" in card.text and "commit `c0ffee`" in card.text


def test_sizes_are_named_as_the_hub_names_them() -> None:
    sizes = {0: "n<1K", 999: "n<1K", 1000: "1K<n<10K", 61_135: "10K<n<100K", 2 * 10**6: "n>1M"}
    assert {rows: cards.size_category(rows) for rows in sizes} == sizes


def test_commits_of_branches_are_read_from_the_cache(
    tiny_recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    named = ["model.name_or_path=lab/base", "data.name_or_path=lab/x", "ranking.ranker=pairrm"]
    recipe = load_recipe(tiny_recipe, named)
    assert writing._revisions(recipe) == {}
    commits = {
        "models--lab--base": "c1",
        "datasets--lab--x": "c2",
        "models--llm-blender--PairRM": "c3",
    }
    for folder, commit in commits.items():
        (tmp_path / folder / "refs").mkdir(parents=True)
        (tmp_path / folder / "refs" / "main").write_text(commit, encoding="utf-8")
    assert writing._revisions(recipe) == {"model": "c1", "data": "c2", "ranking": "c3"}
