"""Intervals over seeds and prompts: how often they hold the truth, and what they are at limits."""

import math

import numpy as np
import pytest

from selm.compare.seeds import difference, mean, t_quantile

PROMPTS = 100


@pytest.mark.parametrize(
    ("freedom", "p", "expected"),
    [  # Abramowitz and Stegun, table 26.10
        (1, 0.975, 12.706),
        (2, 0.975, 4.303),
        (3, 0.975, 3.182),
        (4, 0.995, 4.604),
        (10, 0.975, 2.228),
        (30, 0.95, 1.697),
        (120, 0.975, 1.980),
        (1e6, 0.975, 1.960),
    ],
)
def test_quantiles_are_those_of_the_table(freedom, p, expected):
    assert t_quantile(freedom, p) == pytest.approx(expected, abs=6e-4)


def gaussian(generator, seeds, of_seed, of_prompt, of_rest):
    """Values with the true mean 0, from the three standard deviations."""
    return (
        of_seed * generator.normal(size=(seeds, 1))
        + of_prompt * generator.normal(size=(1, PROMPTS))
        + of_rest * generator.normal(size=(seeds, PROMPTS))
    )


def coverage(draw, truth=0.0, times=1500):
    """The share of intervals that hold the truth; its standard error is 0.006."""
    generator = np.random.default_rng(0)
    intervals = [draw(generator).ci95 for _ in range(times)]
    return np.mean([low <= truth <= high for low, high in intervals])


# Where the test draws the line: 93 to 97 %, and two standard errors of the simulation.
NEAR = 0.012
EFFECTS = [  # seeds, prompts, rest
    (0.0, 1.0, 1.0),
    (0.05, 1.0, 0.5),
    (0.1, 1.0, 1.0),
    (0.3, 1.0, 1.0),
    (0.3, 1.0, 0.3),
    (1.0, 1.0, 1.0),
]


@pytest.mark.parametrize("seeds", [3, 4, 5])
@pytest.mark.parametrize("effects", EFFECTS)
def test_95_of_100_intervals_hold_the_mean(seeds, effects):
    found = coverage(lambda generator: mean(gaussian(generator, seeds, *effects)))
    assert 0.93 - NEAR <= found <= 0.97 + NEAR


def binary(generator, seeds, of_seed):
    """Rewards of 0 or 1; prompts differ much, and seeds by `of_seed` on the logit's scale."""
    logits = 2 * generator.normal(size=(1, PROMPTS)) + of_seed * generator.normal(size=(seeds, 1))
    return (generator.random((seeds, PROMPTS)) < 1 / (1 + np.exp(-logits))).astype(float)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("of_seed", [0.0, 0.3, 1.0])
def test_95_of_100_intervals_of_binary_rewards_hold_the_mean(seeds, of_seed):
    """By symmetry their true mean is one half."""
    found = coverage(lambda generator: mean(binary(generator, seeds, of_seed)), truth=0.5)
    assert 0.93 - NEAR <= found <= 0.97 + NEAR


@pytest.mark.parametrize(("seeds", "others"), [(3, 3), (3, 5)])
@pytest.mark.parametrize("of_seed", [0.0, 0.1, 0.5])
def test_95_of_100_intervals_of_a_difference_hold_it(seeds, others, of_seed):
    """Settings share their prompts, not their seeds."""

    def draw(generator):
        shared = generator.normal(size=(1, PROMPTS))
        one = gaussian(generator, seeds, of_seed, 0.5, 0.5) + shared
        other = gaussian(generator, others, of_seed, 0.5, 0.5) + shared
        return difference(one, other, paired_seeds=False)

    found = coverage(draw)
    assert 0.93 - NEAR <= found <= 0.97 + NEAR


def test_an_interval_over_prompts_alone_would_miss_the_mean():
    """The same values without the seeds' variance: the coverage that the test must tell apart."""
    found = coverage(
        lambda generator: mean(gaussian(generator, 3, 0.3, 1.0, 1.0).mean(0, keepdims=True))
    )
    assert found < 0.8


def test_one_seed_is_students_interval_over_prompts():
    found = mean(np.array([[1.0, 2.0, 3.0, 6.0]]))
    half = t_quantile(3) * math.sqrt((4 + 1 + 0 + 9) / 3 / 4)
    assert (found.value, found.seeds, found.prompts) == (3.0, 1, 4)
    assert found.ci95 == pytest.approx([3 - half, 3 + half], abs=1e-6)


def test_prompts_that_do_not_differ_leave_students_interval_over_seeds():
    found = mean(np.array([[1.0] * 50, [2.0] * 50, [6.0] * 50]))
    half = t_quantile(2) * math.sqrt((4 + 1 + 9) / 2 / 3)
    assert found.ci95 == pytest.approx([3 - half, 3 + half], abs=1e-6)


def test_one_prompt_shows_no_spread_and_equal_values_have_none():
    assert mean(np.array([[1.0], [2.0]])).ci95 is None
    assert mean(np.ones((3, 7))).ci95 == [1.0, 1.0]
    assert difference(np.ones((3, 7)), np.zeros((2, 7)), paired_seeds=False).ci95 == [1.0, 1.0]


def test_paired_seeds_cancel_what_they_share():
    generator = np.random.default_rng(0)
    shared = gaussian(generator, 3, 1.0, 1.0, 0.5)
    paired = difference(shared + 0.1, shared, paired_seeds=True)
    assert (paired.value, paired.seeds) == (pytest.approx(0.1), 3)
    assert paired.ci95 == pytest.approx([0.1, 0.1])
    low, high = difference(shared + 0.1, shared, paired_seeds=False).ci95
    assert low < 0 < high


def test_a_single_seed_borrows_the_variance_of_the_others():
    generator = np.random.default_rng(0)
    many = gaussian(generator, 5, 1.0, 1.0, 0.1)
    low, high = difference(many[:1], many[1:], paired_seeds=False).ci95
    of_one = difference(many[:1], many[1:2], paired_seeds=False)
    assert of_one.seeds == 1
    assert difference(many[:1], many[1:], paired_seeds=False).seeds == 4
    assert high - low > 5 * (of_one.ci95[1] - of_one.ci95[0])
