"""The bench of regrets: its gradients, its oracle, and that nothing but the term differs."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from selm.training.objective import TERMS

sys.path.append(str(Path(__file__).parents[1] / "bench"))
bandits = importlib.import_module("bandits")
Bandit, Loop, Method = bandits.Bandit, bandits.Loop, bandits.Method

PAPER = Loop(iterations=3, steps=3)
XPO = replace(PAPER, pool="mixed", newest=False, previous=False)
BOTH = pytest.mark.parametrize("linear", [True, False], ids=["log-linear", "tabular"])


def bandit(linear: bool, seeds: int = 3) -> Bandit:
    return bandits.make_bandit(linear, rarity=0.01, seeds=range(seeds), dtype=torch.float64)


def formula(
    b: Bandit, method: Method, beta: float,
    theta: torch.Tensor, rows: torch.Tensor, ref: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """The loss from the papers' formulas, of all seeds; rows (S, X, 4, N)."""
    moved = theta if b.features is None else torch.einsum("sxyf,sf->sxy", b.features, theta)
    log_policy = (b.base + moved).log_softmax(-1)
    pi, before = ([p.gather(-1, r) for r in rows.unbind(2)] for p in (log_policy, ref))
    chosen, rejected, explored, initial = pi
    margin = (chosen - before[0]) - (rejected - before[1])
    size = method.alpha * beta
    term = {
        "none": lambda: torch.zeros_like(chosen),
        "selm": lambda: size * (explored - before[2]),
        "xpo": lambda: size * initial,
        "geb": lambda: -size * torch.atanh(1 - rejected.exp()),
        "vpo": lambda: size * (rejected - before[1]),
        "expected": lambda: -size * (ref.exp() * (ref - log_policy)).sum(-1, keepdim=True),
    }[method.term]()
    losses = -torch.sigmoid(beta * margin).log() + term
    return losses.mean(-1).sum() if b.features is None else losses.mean((1, 2)).sum()


@BOTH
@pytest.mark.parametrize("term", ["none", "expected", *TERMS])
def test_the_gradient_is_autograd_of_the_formula(linear: bool, term: str) -> None:
    b, method, generator = bandit(linear), Method(term, 0.7), torch.Generator().manual_seed(0)
    theta = torch.randn(b.parameters().shape, generator=generator, dtype=torch.float64)
    ref = b.log_policy(theta / 2)
    rows = torch.randint(bandits.RESPONSES, (*b.base.shape[:2], 4, 5), generator=generator)
    found = bandits.gradient(b, PAPER, method, theta, rows, ref)
    theta.requires_grad_()
    formula(b, method, PAPER.beta, theta, rows, ref).backward()
    torch.testing.assert_close(found, theta.grad, rtol=1e-9, atol=1e-12)


@BOTH
@pytest.mark.parametrize("loop", [PAPER, XPO], ids=["previous", "initial"])
def test_the_oracle_alone_has_no_regret(linear: bool, loop: Loop) -> None:
    b = bandit(linear)
    for t in range(4):
        best = bandits.oracle(b, loop, t)
        none = bandits.measure(b, loop, best, t)["kl_regret"]
        torch.testing.assert_close(none, torch.zeros_like(none), rtol=0, atol=1e-12)
        other = (best + b.reward / 10).log_softmax(-1)
        assert (bandits.measure(b, loop, other, t)["kl_regret"] > 1e-9).all()


def test_regret_under_kl_is_the_value_below_the_optimum() -> None:
    """E[r] - beta * KL(pi || base), of the optimum less that of the base policy, by hand."""
    b = Bandit(None, torch.tensor([[[0.5, 0.5]]]).log(), torch.tensor([[[0.0, 1.0]]]), range(1))
    found = bandits.measure(b, replace(XPO, beta=0.5), b.base, 1)
    best = torch.tensor([1, torch.e**2]) / (1 + torch.e**2)
    value = best[1] - 0.5 * (best * (best / 0.5).log()).sum()
    torch.testing.assert_close(found["kl_regret"], (value - 0.5)[None])
    torch.testing.assert_close(found["regret"], torch.ones(1))


@BOTH
@pytest.mark.parametrize("loop", [PAPER, XPO], ids=["paper", "XPO"])
def test_alpha_0_is_dpo_for_every_term(linear: bool, loop: Loop) -> None:
    b = bandit(linear)
    dpo = bandits.run(b, loop, Method())
    for term in ("expected", *TERMS):
        without, with_term = (bandits.run(b, loop, Method(term, alpha)) for alpha in (0.0, 0.5))
        for name, values in dpo.items():
            torch.testing.assert_close(without[name], values, rtol=0, atol=0)
        assert (with_term["regret"][:, 2:] != dpo["regret"][:, 2:]).any()


@BOTH
def test_a_seed_is_reproducible_and_alone(linear: bool) -> None:
    three, again, two = (
        bandits.run(bandit(linear, seeds), PAPER, Method("selm", 0.1)) for seeds in (3, 3, 2)
    )
    assert torch.equal(three["regret"], again["regret"])
    # sums in another order
    torch.testing.assert_close(three["regret"][:2], two["regret"], rtol=1e-9, atol=1e-12)
    assert (three["regret"][0] != three["regret"][1]).any()


@BOTH
def test_dpo_learns_and_the_oracle_is_better(linear: bool) -> None:
    b, loop = bandit(linear), replace(PAPER, rate=1.0 if linear else 10.0)
    last = bandits.run(b, loop, Method())["regret"][:, -1]
    best = bandits.measure(b, loop, bandits.oracle(b, loop, 3), 3)["regret"]
    assert (best < last).all() and (last < 1).all()


def test_samples_have_the_policy_s_frequencies() -> None:
    shares = torch.tensor([0.1, 0.0, 0.6, 0.3])
    uniform = (torch.arange(1000) + 0.5) / 1000
    found = bandits.sample(shares.log().expand(1, 1000, 4), uniform[None])
    torch.testing.assert_close(found[0].bincount(minlength=4), torch.tensor([100, 0, 600, 300]))
