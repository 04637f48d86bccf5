"""Each optimism term against its formula, in fp64, and what it is a function of."""

import math
from typing import get_args

import pytest
import torch

from selm.errors import UserError
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Optimism
from selm.training.config import SELMConfig
from selm.training.objective import TERMS, initial_explores, reads_explored

ALPHA, BETA = 0.5, 0.1
LOGPS, REFS = [-3.0, -0.5, -40.0], [-4.0, -2.0, -35.0]

# Values and derivatives by log pi, from the papers' definitions written in probabilities.
BY_HAND = {
    "selm": (
        [ALPHA * BETA * (a - b) for a, b in zip(LOGPS, REFS, strict=True)],
        [ALPHA * BETA] * 3,
    ),
    "xpo": ([ALPHA * a for a in LOGPS], [ALPHA] * 3),
    "geb": (
        [
            *(-ALPHA * math.atanh(1 - math.exp(a)) for a in LOGPS[:2]),
            -ALPHA / 2 * (math.log(2) + 40.0),  # 1 - e^-40 is 1 in fp64: the limit
        ],
        # d(-atanh(1 - p))/dp * dp/dlog(p) = 1 / (1 - (1 - p)^2) * p
        [ALPHA / (2 - math.exp(a)) for a in LOGPS],
    ),
    "vpo": (
        [ALPHA * BETA * (a - b) for a, b in zip(LOGPS, REFS, strict=True)],
        [ALPHA * BETA] * 3,
    ),
}


def test_the_recipe_can_name_every_term_or_none() -> None:
    assert [*TERMS, "none"] == list(get_args(Optimism))
    assert list(BY_HAND) == list(TERMS)


@pytest.mark.parametrize("name", TERMS)
def test_value_and_gradient_are_those_by_hand(name: str) -> None:
    logps = torch.tensor(LOGPS, dtype=torch.float64, requires_grad=True)
    refs = torch.tensor(REFS, dtype=torch.float64)
    term = TERMS[name].loss(logps, refs, ALPHA, BETA)
    values, derivatives = (torch.tensor(each, dtype=torch.float64) for each in BY_HAND[name])
    torch.testing.assert_close(term, values, rtol=1e-12, atol=1e-14)
    term.sum().backward()
    torch.testing.assert_close(logps.grad, derivatives, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", TERMS)
def test_every_term_lowers_the_likelihood_of_what_it_reads(name: str) -> None:
    """The sign of optimism, in fp32, for a probability of 1 and for that of a long text."""
    logps = torch.tensor([0.0, -3.0, -900.0], requires_grad=True)
    TERMS[name].loss(logps, torch.tensor([-1.0, -3.0, -900.0]), ALPHA, BETA).sum().backward()
    assert (logps.grad >= ALPHA * BETA * (1 - 1e-6)).all()
    assert (logps.grad <= ALPHA * (1 + 1e-6)).all()


@pytest.mark.parametrize("name", TERMS)
def test_a_term_of_no_weight_is_nothing(name: str) -> None:
    logps = torch.tensor(LOGPS, requires_grad=True)
    term = TERMS[name].loss(logps, torch.tensor(REFS), 0.0, BETA)
    term.sum().backward()
    assert term.abs().max() == logps.grad.abs().max() == 0


def test_xpos_alpha_is_selms_times_beta() -> None:
    """To a constant, and on the same response: the gradients are equal."""
    gradients = []
    for name, alpha in (("selm", ALPHA), ("xpo", ALPHA * BETA)):
        logps = torch.tensor(LOGPS, dtype=torch.float64, requires_grad=True)
        TERMS[name].loss(logps, torch.zeros(3, dtype=torch.float64), alpha, BETA).sum().backward()
        gradients.append(logps.grad)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=0)


def test_the_gradient_of_optimism_is_that_of_the_value() -> None:
    """Where the sign comes from, on a softmax over five responses of which all are observed.

    The best value that KL leaves, beta * log E_ref[exp(r / beta)], is -beta * E_cal[log pi - log
    ref] for the rewards whose mean over `cal` is 0. So its gradient is minus the term's over alpha.
    """
    generator = torch.Generator().manual_seed(0)
    logits, reference, calibration = (
        torch.randn(5, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    logits.requires_grad_()
    ref, cal = reference.log_softmax(0), calibration.softmax(0)
    log_pi = logits.log_softmax(0)
    rewards = BETA * (log_pi - ref)
    calibrated = rewards - (cal * rewards).sum()
    value = BETA * torch.logsumexp(ref + calibrated / BETA, 0)
    term = (cal * TERMS["vpo"].loss(log_pi, ref, ALPHA, BETA)).sum()
    torch.testing.assert_close(term, -ALPHA * value, rtol=1e-12, atol=1e-12)
    (of_term,) = torch.autograd.grad(term, logits, retain_graph=True)
    (of_value,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(of_term, -ALPHA * of_value, rtol=1e-10, atol=1e-12)


def test_the_trainers_arguments_know_the_term(tmp_path) -> None:
    def arguments(**settings) -> SELMConfig:
        return SELMConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **settings)

    assert (arguments().term, arguments().reads_explored) == (TERMS["selm"], True)
    assert (arguments(optimism="geb").term, arguments(optimism="geb").reads_explored) == (
        TERMS["geb"],
        False,
    )
    for none in ({"optimism": "none"}, {"alpha": 0.0, "optimism": "xpo"}):
        assert (arguments(**none).term, arguments(**none).alpha) == (None, 0.0)
    with pytest.raises(ValueError, match="optimism must be selm, xpo, geb, vpo or none, got vpp"):
        arguments(optimism="vpp")


def test_which_iterations_read_what(tiny_recipe: str) -> None:
    def facts(*overrides: str) -> list[tuple[float, bool, bool]]:
        recipe = load_recipe(tiny_recipe, overrides)
        return [
            (recipe.alpha(t), reads_explored(recipe, t), initial_explores(recipe, t))
            for t in (1, 2)
        ]

    assert facts() == [(0.01, True, False)] * 2
    assert facts("training.optimism=none") == [(0.0, False, False)] * 2
    assert facts("training.optimism=vpo") == [(0.01, False, False)] * 2
    xpo = ("training.optimism=xpo", "training.reference=initial")
    assert facts(*xpo) == [(0.01, True, False), (0.01, True, True)]
    assert facts(*xpo, "iterations.1.objective=dpo") == [(0.01, True, False), (0.0, False, False)]


def test_xpo_wants_the_reference_that_explores(tiny_recipe: str) -> None:
    with pytest.raises(UserError, match=r"^training\.optimism: xpo .*training\.reference=initial"):
        load_recipe(tiny_recipe, ["training.optimism=xpo"])
    one = "iterations=[{objective: selm, learning_rate: 1e-4}]"
    assert load_recipe(tiny_recipe, ["training.optimism=xpo", one]).alpha(1) == 0.01
    assert load_recipe(tiny_recipe, ["training.optimism=xpo", "training.alpha=0"]).alpha(2) == 0
