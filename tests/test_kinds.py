"""A ranker is one description: with that alone plan, check, stage, report and card know it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pools import pools_of

from selm.check.checks import results
from selm.check.machine import output
from selm.check.model import rankers
from selm.cost.estimate import stage_cost
from selm.data.prompts import as_messages
from selm.errors import UserError
from selm.hub import cards
from selm.ranking.base import Pool, Ranker, RankerKind
from selm.ranking.kinds import KINDS, load_ranker, look
from selm.ranking.prefer import facts, prefer
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Judge, Ranking
from selm.report.metrics import metrics
from selm.report.results import Results
from selm.run.lineage import recipe_part
from selm.run.plan import Run, script
from selm.run.writing import _revisions

HI = [{"role": "user", "content": "Hi"}]


class LengthRanker(Ranker):
    """The longer text is better, times the number in a file."""

    def __init__(self, ranking: Ranking) -> None:
        self.factor = float(Path(ranking.name_or_path or "").read_text(encoding="utf-8"))

    def score(self, pools: Sequence[Pool]) -> list[list[float]]:
        return [[self.factor * len(text) for text in pool.texts] for pool in pools]


def _check(ranking: Ranking) -> None:
    if not ranking.name_or_path:
        raise ranking.error("name_or_path", "missing (a file with a number)")


def _look(ranking: Ranking, pools: Sequence[Pool]) -> None:
    if LengthRanker(ranking).factor == 0:
        raise UserError(f"all of {len(pools)} rows are ties")


LENGTH = RankerKind(
    load=lambda ranking, seed, verdicts: LengthRanker(ranking),
    pairwise=LengthRanker.pairwise,
    keys=frozenset({"name_or_path", "dtype"}),
    files=lambda ranking: {"name_or_path": ranking.name_or_path},
    check=_check,
    look=_look,
    facts=lambda ranking, pools, verdicts: {"texts": sum(len(pool.texts) for pool in pools)},
    parameters=lambda ranking: 1e9,
    tokens=lambda candidates, prompt, response: candidates * response,
)


@pytest.fixture
def factor(tmp_path: Path) -> Path:
    (tmp_path / "factor.txt").write_text("2", encoding="utf-8")
    return tmp_path / "factor.txt"


@pytest.fixture
def run(tiny_recipe: str, factor: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setitem(KINDS, "length", LENGTH)
    overrides = ("ranking.ranker=length", f"ranking.name_or_path={factor}", "hub.namespace=me")
    return Run(load_recipe(tiny_recipe, overrides), tiny_recipe, overrides)


def test_the_plan_says_what_it_takes(run: Run) -> None:
    assert "scripts/rank.py" in script(run)
    own = run.recipe.ranking
    twice = Ranking(ranker="ensemble", rankers=(own, own))
    one, two = (
        stage_cost(run.recipe.model_copy(update={"ranking": ranking}), "preferences", 1)
        for ranking in (own, twice)
    )
    assert one.tokens == 12 * 3 * run.recipe.estimate.response_tokens
    assert two.tokens == 2 * one.tokens


def test_the_preflight_looks_at_it(run: Run, factor: Path) -> None:
    def found() -> list[tuple[bool, str]]:
        checks = {"rankers": rankers, "output": output}
        return [(well, said) for _, well, said in results(run, checks)]

    assert found()[0] == (True, f"length {factor}")
    factor.write_text("0", encoding="utf-8")
    assert found()[0] == (False, "all of 24 rows are ties")
    assert found()[1][0]


def test_its_keys_and_its_file_decide_what_it_ranked(run: Run, factor: Path) -> None:
    def part(*overrides: str) -> dict[str, Any]:
        recipe = load_recipe(run.path, [*run.overrides, *overrides])
        return recipe_part(recipe, "preferences", 1)["ranking"]

    before = part()
    assert part("ranking.workers=2", "ranking.tokens_per_batch=3") == before
    assert part("ranking.dtype=float16") != before
    factor.write_text("3", encoding="utf-8")
    assert part() != before
    assert _revisions(run.recipe) == {}


def test_a_recipe_that_it_cannot_read_is_refused(run: Run) -> None:
    def refusal(*overrides: str) -> str:
        with pytest.raises(UserError) as caught:
            load_recipe(run.path, [*run.overrides, *overrides])
        return str(caught.value)

    assert refusal("ranking.name_or_path=null") == (
        "ranking.name_or_path: missing (a file with a number)"
    )
    assert refusal("ranking.name_or_path=no/such").startswith("ranking.name_or_path: no such file")
    assert refusal("ranking.ranker=lenght").endswith("did you mean 'length'?")
    key = refusal("ranking.output_key=x")
    assert key.startswith("ranking.output_key: the ranker length does not read it")


def row(prompt_id: str, chosen: str, rejected: str, response: str) -> dict[str, Any]:
    return {
        **{"prompt_id": prompt_id, "prompt": HI, "responses": [response], "num_tokens": [3]},
        **{"chosen": as_messages(chosen), "rejected": as_messages(rejected)},
        "finish_reasons": ["stop"],
    }


def test_the_stage_the_report_and_the_card_know_it(run: Run, tmp_path: Path) -> None:
    rows = [row("p", "good", "bad", "excellent"), row("q", "fine", "no", "")]
    preferences = prefer(rows, run.recipe, tmp_path)
    assert [one["scores"] for one in preferences.rows] == [[8.0, 6.0, 18.0], [8.0, 4.0, 0.0]]
    found = facts(rows, run.recipe, tmp_path)
    assert found == {f"length {run.recipe.ranking.name_or_path}": {"texts": 6}}
    assert metrics(run.recipe, evaluated())["iterations"][1]["paired_difference_vs_base"] == 0.5
    manifest = {
        **{"rows": 2, "dropped": {}, "inputs": {}, "versions": {}, "revisions": {}, "seconds": 1},
        **{"git_commit": None, "command": "scripts/rank.py", "written": "2026-01-01T00:00:00Z"},
        "recipe": recipe_part(run.recipe, "preferences", 1),
    }
    card = cards.dataset_card(run.recipe, "preferences", {1: (manifest, {})}, has_report=False)
    assert "ranker: length" in card


def evaluated() -> Results:
    """A pointwise ranker's difference is that from the base model's reward in its evaluation."""

    def one(reward: float, of_base: float) -> list[dict[str, Any]]:
        rewards = {"reward": reward, "reward_of_base": of_base, "num_tokens": 1}
        return [{"prompt_id": "p", "prompt": HI, "response": "x", **rewards}]

    return Results(
        evaluations={0: one(1.0, 1.0), 1: one(1.5, 0.25)},
        roles={},
        logs={},
        manifests={("evaluation", 0): {"seconds": 1.0}},
    )


def test_descriptions_agree_with_their_rankers(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def f(prompt, candidates): return [1]", encoding="utf-8")
    (tmp_path / "t.txt").write_text("{prompt} {response_a} {response_b}", encoding="utf-8")
    settings: dict[str, dict[str, Any]] = {
        "random": {},
        "function": {"name_or_path": f"{tmp_path}/own.py:f"},
        "judge": {"name_or_path": "m", "judge": Judge(template=str(tmp_path / "t.txt"))},
        "ensemble": {"rankers": (Ranking(ranker="random"),) * 2},
    }
    for name, given in settings.items():
        ranker = load_ranker(Ranking(ranker=name, **given), seed=1)
        assert ranker.pairwise == KINDS[name].pairwise, name


# Every error names the section that its ranker stands in


@pytest.mark.parametrize(
    "key",
    [
        *("name_or_path=a/b", "revision=v2", "dtype=bfloat16", "output_key=x"),
        "rankers=[{ranker: random}]",
    ],
)
@pytest.mark.parametrize("section", ["ranking", "evaluation.ranking"])
def test_a_key_that_the_ranker_does_not_read_is_refused(
    tiny_recipe: str, section: str, key: str
) -> None:
    name = key.partition("=")[0]
    overrides = [f"{section}.ranker=random", f"{section}.{key}"]
    with pytest.raises(UserError, match=rf"^{section}\.{name}: the ranker random does not read it"):
        load_recipe(tiny_recipe, overrides)


@pytest.mark.parametrize(
    ("ranking", "key"),
    [
        ("ranker: function, name_or_path: x.py:f", "revision"),
        ("ranker: judge, name_or_path: m", "revision"),
        ("ranker: ensemble, rankers: [{ranker: random}, {ranker: random}]", "revision"),
        ("ranker: ensemble, rankers: [{ranker: random}, {ranker: random}]", "name_or_path"),
    ],
)
def test_a_kind_reads_the_name_and_the_revision_or_refuses_them(
    tiny_recipe: str, ranking: str, key: str
) -> None:
    with pytest.raises(UserError, match=rf"^ranking\.{key}: the ranker \w+ does not read it"):
        load_recipe(tiny_recipe, [f"ranking={{{ranking}, {key}: some}}"])


def test_preferences_of_earlier_versions_are_current(tiny_recipe: str, tmp_path: Path) -> None:
    """What is in the manifest of a version in which all rankers had a name and a revision."""
    (tmp_path / "own.py").write_text("", encoding="utf-8")
    for ranking, name in [
        ("{ranker: random}", None),
        (f"{{ranker: function, name_or_path: '{tmp_path}/own.py:f'}}", f"{tmp_path}/own.py:f"),
        ("{ranker: pairrm, name_or_path: a/b}", "a/b"),
    ]:
        recipe = load_recipe(tiny_recipe, [f"ranking={ranking}"])
        part = recipe_part(recipe, "preferences", 1)["ranking"]
        assert (part["name_or_path"], part["revision"]) == (name, "main")


@pytest.mark.parametrize(
    ("ranker", "key"),
    [
        ("pairrm", "name_or_path: a/b"),
        ("pairrm", "revision: v2"),
        ("judge", "judge: {base_url: http://localhost:1/v1}"),
        ("reward_model", "output_key: x"),
        ("reward_model", "trust_remote_code: true"),
        ("pairrm", "dtype: float32"),
        ("ensemble", "rankers: [{ranker: random}, {ranker: random}]"),
    ],
)
def test_a_recipe_can_take_back_a_key_of_the_ranker_that_it_replaces(
    tiny_recipe: str, tmp_path: Path, ranker: str, key: str
) -> None:
    name, base, own = key.partition(":")[0], tmp_path / "base.yaml", tmp_path / "own.yaml"
    base.write_text(f"extends: {tiny_recipe}\nranking:\n  ranker: {ranker}\n  {key}\n")
    own.write_text("extends: base.yaml\nranking: {ranker: random}\n")
    with pytest.raises(UserError, match=rf"^ranking\.{name}: .* set it to \S+ if") as refused:
        load_recipe(own)
    value = str(refused.value).partition("set it to ")[2].split()[0]
    own.write_text(f"extends: base.yaml\nranking: {{ranker: random, {name}: {value}}}\n")
    assert load_recipe(own).ranking.ranker == "random"


SECTIONS = {
    "ranking": "ranking={}",
    "evaluation.ranking": "evaluation.ranking={}",
    "ranking.rankers.1": "ranking={{ranker: ensemble, rankers: [{{ranker: random}}, {}]}}",
    "evaluation.ranking.rankers.1": (
        "evaluation.ranking={{ranker: ensemble, rankers: [{{ranker: random}}, {}]}}"
    ),
}


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize(
    ("ranking", "key"),
    [
        ({"ranker": "rando"}, "ranker"),
        ({"ranker": "random", "dtype": "float16"}, "dtype"),
        ({"ranker": "judge"}, "name_or_path"),
        ({"ranker": "reward_model"}, "name_or_path"),
        ({"ranker": "reward_model", "name_or_path": "./no/such"}, "name_or_path"),
        ({"ranker": "pairrm", "name_or_path": "a--b"}, "name_or_path"),
        ({"ranker": "function", "name_or_path": "x.py"}, "name_or_path"),
        ({"ranker": "judge", "name_or_path": "m", "judge": {"base_url": "host"}}, "judge.base_url"),
        (
            {"ranker": "judge", "name_or_path": "m", "judge": {"api_key_env": "my key"}},
            "judge.api_key_env",
        ),
        (
            {"ranker": "judge", "name_or_path": "m", "judge": {"template": "no.txt"}},
            "judge.template",
        ),
    ],
)
def test_what_a_recipe_gets_wrong_is_named_with_its_section(
    tiny_recipe: str, section: str, ranking: dict[str, Any], key: str
) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(tiny_recipe, [SECTIONS[section].format(json.dumps(ranking))])
    assert str(caught.value).startswith(f"{section}.{key}: "), caught.value
    assert "my key" not in str(caught.value)


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("kind", ["pairrm", "reward_model", "function"])
def test_what_loading_finds_wrong_is_named_with_its_section(
    tiny_recipe: str, tmp_path: Path, section: str, kind: str
) -> None:
    (tmp_path / "own.py").write_text("", encoding="utf-8")
    name = f"{tmp_path}/own.py:f" if kind == "function" else str(tmp_path)
    ranking = json.dumps({"ranker": kind, "name_or_path": name})
    recipe = load_recipe(tiny_recipe, [SECTIONS[section].format(ranking)])
    whole = recipe.evaluation.ranking or recipe.ranking
    for attempt in (lambda: load_ranker(whole, 1), lambda: look(whole, [])):
        with pytest.raises(UserError) as caught:
            attempt()
        assert str(caught.value).startswith(f"{section}.name_or_path: "), caught.value
        assert str(caught.value).count("ranking.name_or_path") <= 1


@pytest.mark.parametrize("section", SECTIONS)
def test_a_judges_missing_key_is_named_with_its_section(
    tiny_recipe: str, monkeypatch: pytest.MonkeyPatch, section: str
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    ranking = {"ranker": "judge", "name_or_path": "m", "judge": {"api_key_env": "NO_SUCH_KEY"}}
    recipe = load_recipe(tiny_recipe, [SECTIONS[section].format(json.dumps(ranking))])
    whole = recipe.evaluation.ranking or recipe.ranking
    ranker = load_ranker(whole, 1)
    for attempt in (
        lambda: look(whole, []),
        lambda: ranker.score(pools_of(["p"], [HI], [["a", "b"]])),
    ):
        with pytest.raises(UserError) as caught:
            attempt()
        assert str(caught.value).startswith(f"{section}.judge.api_key_env: "), caught.value
