"""The one-dimensional picture of the method: what it claims, measured."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import intuition

GOOD, LARGE = 0.004, 0.1
ROUNDS = 6


def found_by(alpha: float, seed: int = 0) -> list[intuition.Fit]:
    observed = intuition.first_responses(seed)
    return [each for _, each in intuition.rounds(observed, alpha, ROUNDS)]


def true_rewards(fits: list[intuition.Fit]) -> np.ndarray:
    return np.array([intuition.true_reward()[each.best] for each in fits])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_optimism_finds_the_hill_that_nothing_was_observed_of(seed: int) -> None:
    vanilla, optimistic = found_by(0, seed), found_by(GOOD, seed)
    assert (true_rewards(vanilla) < 1.05).all(), "the low hill, in every round"
    assert true_rewards(optimistic)[-1] > 1.9
    assert max(vanilla[0].loss, optimistic[0].loss) < 1e-3, "both fit what was observed"


def test_too_large_an_alpha_gives_up_what_was_observed() -> None:
    moderate, large = found_by(GOOD), found_by(LARGE)
    assert large[-1].loss > 100 * moderate[-1].loss
    assert true_rewards(large).mean() < true_rewards(moderate).mean()


def test_the_true_reward_has_no_excess_loss() -> None:
    truth = intuition.true_reward()
    loss = intuition.excess_loss(torch.stack([truth, truth + 3, 0 * truth]), [20, 60, 150])
    assert loss[:2].tolist() == pytest.approx([0, 0], abs=1e-12), "a constant changes nothing"
    assert loss[2] > 0.05


def test_the_optimism_term_is_the_inner_maximum_of_the_papers_objective() -> None:
    """F(pi; r) at pi_r, written out as in eq. 3.1; no other policy has more."""
    reward = torch.sin(7 * intuition.Y)
    ref = intuition.reference()
    best = torch.softmax(reward / intuition.BETA + ref.log(), dim=0)

    def value(policy: torch.Tensor) -> float:
        divergence = (policy * (policy / ref).log()).sum()
        return ((policy - ref) @ reward - intuition.BETA * divergence).item()

    assert intuition.optimism(reward[None]).item() == pytest.approx(value(best), abs=1e-9)
    for other in (ref, 0.9 * best + 0.1 * ref):
        assert value(other) < value(best)


def test_gradient_steps_from_zero_stay_where_the_reference_policy_answers() -> None:
    observed = intuition.first_responses(0)
    assert intuition.Y[intuition.fit(observed, GOOD).best] > 0.6
    assert intuition.Y[intuition.fit(observed, GOOD, hills=False).best] < 0.45
