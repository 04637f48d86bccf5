"""What a ranking came to, on pools written by hand."""

import pytest

from selm.ranking.base import Candidate, Pool
from selm.ranking.summary import Ranked, agreement, length_correlation, summary


def ranked(texts: list[str], scores: list[float], explored: str | None = None) -> Ranked:
    """The dataset's two, then samples; the first sample is the explored one."""
    sources = ("chosen", "rejected", *["policy"] * (len(texts) - 2))
    pool = [Candidate(text, source) for text, source in zip(texts, sources, strict=True)]
    row = {"prompt_id": "p", "responses": [explored or texts[2]]}
    return Ranked(row, Pool("p", [], pool), scores, [scores])


def test_an_explored_response_that_is_the_datasets_ties_with_itself() -> None:
    found = summary([ranked(["w", "l"], [2.0, 1.0], explored="w")], ["function f"])
    assert found["explored_against"]["chosen"] == {"won": 0, "tied": 1, "lost": 0}
    assert found["explored_against"]["rejected"] == {"won": 1, "tied": 0, "lost": 0}


def test_prompts_alone_have_nothing_to_be_compared_with() -> None:
    pool = [Candidate("y", "policy"), Candidate("z", "policy")]
    row = {"prompt_id": "p", "responses": ["y", "z"]}
    found = summary([Ranked(row, Pool("p", [], pool), [1.0, 2.0], [[1.0, 2.0]])], ["function f"])
    assert found["explored_against"] == {}
    assert found["agreement"] == []
    assert found["scores"] == {"policy": [1.05, 1.25, 1.5, 1.75, 1.95]}


def test_the_dataset_agrees_where_its_chosen_scores_above_its_rejected() -> None:
    rows = [ranked(["w", "l", "y"], scores) for scores in ([2.0, 1.0, 0.0], [1.0, 2.0, 3.0])]
    (found,) = summary(rows, ["function f"])["agreement"]
    assert found == {"rankers": ["the dataset", "function f"], "pairs": 2, "alike": 1}


def test_a_pair_that_one_ranker_ties_says_nothing_of_agreement() -> None:
    assert agreement([[1.0, 1.0, 0.0]], [[3.0, 2.0, 1.0]]) == {"pairs": 2, "alike": 2}
    assert agreement([[None, 1.0, 0.0]], [[3.0, 2.0, 1.0]]) == {"pairs": 1, "alike": 1}


def test_length_correlation_is_that_of_differences_within_prompts() -> None:
    # About their means: scores -1, 1 and 1, -1 and 2, -2; lengths -5, 5 and -5, 5 and 5, -5.
    found = length_correlation([[0, 2], [6, 4], [9, 5]], [[10, 20], [80, 90], [60, 50]])
    assert found == pytest.approx((10 - 10 + 20) / (12 * 150) ** 0.5, abs=1e-6)


def test_without_differences_there_is_no_correlation() -> None:
    assert length_correlation([[0.1, 0.1, 0.1]], [[1, 2, 3]]) is None
    assert length_correlation([[0.1, 0.2, 0.4]], [[7, 7, 7]]) is None
