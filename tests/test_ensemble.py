"""Several rankers as one: worked examples of the mean, and whose error it is."""

import math
from pathlib import Path

import pytest
from chat_server import TEMPLATE, serving
from pools import pools_of

from selm.errors import UserError
from selm.ranking.ensemble import EnsembleRanker, combined, normalise
from selm.ranking.kinds import load_ranker, ranking_facts
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Judge, Ranking

HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def member(tmp_path: Path):
    """The body of a function of `candidates` in; a function ranker's section out."""

    def make(expression: str, name: str = "own") -> Ranking:
        path = tmp_path / f"{name}.py"
        path.write_text(
            f"def reward(prompt, candidates, **columns):\n    return {expression}\n",
            encoding="utf-8",
        )
        return Ranking(ranker="function", name_or_path=f"{path}:reward")

    return make


def ensemble(*members: Ranking) -> EnsembleRanker:
    section = Ranking(ranker="ensemble", rankers=members)
    return EnsembleRanker(section, seed=1, verdicts=None)


def test_normalised_scores_by_hand() -> None:
    assert normalise([0.0, 10.0]) == [-1.0, 1.0]
    # mean 3, variance (4 + 1 + 9) / 3 = 14 / 3
    assert normalise([1.0, 2.0, 6.0]) == pytest.approx(
        [-2 / math.sqrt(14 / 3), -1 / math.sqrt(14 / 3), 3 / math.sqrt(14 / 3)]
    )


@pytest.mark.parametrize("scores", [[0.0], [7.0, 7.0, 7.0], [0.3, 0.1 + 0.2], [-1e300, -1e300]])
def test_equal_scores_are_zeros(scores: list[float]) -> None:
    assert normalise(scores) == [0.0] * len(scores)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("offset", [-5.0, 0.0, 1e3])
def test_neither_unit_nor_offset_counts(scale: float, offset: float) -> None:
    scores = [0.1, 0.4, 0.3]
    moved = [scale * score + offset for score in scores]
    assert normalise(moved) == pytest.approx(normalise(scores), rel=1e-6)


def test_the_mean_by_hand() -> None:
    assert combined([[0.0, 10.0], [0.1, 0.7]]) == [-1.0, 1.0]
    assert combined([[0.0, 10.0], [0.7, 0.1]]) == [0.0, 0.0]  # they cancel out: a tie
    assert combined([[0.0, 10.0], [3.0, 3.0]]) == [-0.5, 0.5]  # who sees no difference abstains
    assert combined([[0.0, 1.0], [1.0, 0.0], [0.2, 0.9]]) == pytest.approx([-1 / 3, 1 / 3])


def test_the_size_of_a_difference_settles_what_ranks_would_tie() -> None:
    """By ranks both orders of the first two cancel out; the first ranker is surer of its own."""
    a, b, c = combined([[9.0, 2.0, 0.0], [2.1, 2.2, 0.0]])
    assert a > b > c


def test_members_score_the_same_pools(member) -> None:
    ranker = ensemble(
        member("[len(text) for text in candidates]"),
        member("[1000 * columns['sign'] * len(text) for text in candidates]", "other"),
    )
    scores = ranker.score(
        pools_of(
            *(["p", "q"], [HI, HI], [["a", "bbb"], ["a", "bb", "cc"]]), [{"sign": 1}, {"sign": -1}]
        )
    )
    assert scores == [[-1.0, 1.0], [0.0, 0.0, 0.0]]
    assert ranker.pairwise
    assert ranker.compare(pools_of(["p"], [HI], [["a", "bbb"]], [{"sign": 1}])) == [
        [[0, -1], [1, 0]]
    ]


def test_a_members_error_names_it(member) -> None:
    fine, broken = member("[1.0] * len(candidates)"), member("[1.0]", "broken")
    with pytest.raises(UserError, match=r"^ranking.rankers.1 \(function\): .*broken.py:reward: 1"):
        ensemble(fine, broken).score(pools_of(["p"], [HI], [["a", "b"]]))
    missing = Ranking(ranker="function", name_or_path=f"{broken.name_or_path}er")
    with pytest.raises(UserError, match=r"^ranking.rankers.0.name_or_path: .*no function 'reward"):
        ensemble(missing, fine)


def test_a_judge_may_be_a_member(member, tmp_path: Path) -> None:
    (tmp_path / "template.txt").write_text(TEMPLATE, encoding="utf-8")
    with serving() as server:
        judge = Judge(base_url=server.url, template=str(tmp_path / "template.txt"))
        section = Ranking(
            ranker="ensemble",
            rankers=(
                Ranking(ranker="judge", name_or_path="m", judge=judge),
                member("[-len(text) for text in candidates]"),
                member("[text == 'a' for text in candidates]", "third"),
            ),
        )
        verdicts = tmp_path / "verdicts"
        scores = load_ranker(section, 1, verdicts).score(pools_of(["p"], [HI], [["a", "bb"]]))
    assert scores == [pytest.approx([1 / 3, -1 / 3])]
    facts = ranking_facts(section, pools_of(["p"], [HI], [["a", "bb"]]), verdicts)
    assert facts["0 judge m"]["verdicts"] == 2
    assert list(facts) == ["0 judge m"]


@pytest.mark.parametrize(
    ("rankers", "message"),
    [
        ("[]", "ranking.rankers: an ensemble needs two rankers or more"),
        ("[{ranker: random}]", "ranking.rankers: an ensemble needs two rankers or more"),
        (
            "[{ranker: random}, {ranker: ensemble}]",
            r"rankers.1.ranker: an ensemble cannot be",
        ),
        ("[{ranker: random}, {ranker: judge}]", r"ranking.rankers.1.name_or_path: missing"),
        ("[{ranker: random}, {ranker: rando}]", r"ranking.rankers.1.ranker: 'rando' is not one of"),
        ("[{ranker: random}, {rankr: random}]", r"ranking.rankers.1.rankr: .*did you mean ranker"),
        (
            "[{ranker: random}, {ranker: random, update_rule: replace}]",
            "ranking.rankers.1.update_rule: cannot be set for a member; set ranking.update_rule",
        ),
        (
            "[{ranker: random}, {ranker: function, name_or_path: 'no.py:f'}]",
            "ranking.rankers.1.name_or_path: no such file: no.py",
        ),
    ],
)
def test_an_ensemble_that_cannot_work_is_refused_before_anything_runs(
    tiny_recipe: str, rankers: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(tiny_recipe, ["ranking.ranker=ensemble", f"ranking.rankers={rankers}"])
