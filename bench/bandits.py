"""Preference bandits with a known reward, and the online loop that learns in them.

All tensors begin with the seeds' axis: S seeds, X contexts, Y responses, F features, N rows of
data per context. Seeds never meet: they share a tensor because a loop over them would be slow.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import logsigmoid

from selm.training.objective import optimism_loss

CONTEXTS, RESPONSES, FEATURES = 30, 60, 12
BONUS = 4.0  # what the best response earns on top, in standard deviations of the reward


@dataclass(frozen=True)
class Bandit:
    """A contextual bandit and the base policy, which is proportional to exp(base).

    Attributes:
        features: (S, X, Y, F) of a log-linear policy; None for a tabular one.
        base: log-probs of the base policy, (S, X, Y).
        reward: (S, X, Y). The best response of a context is the last one.
    """

    features: torch.Tensor | None
    base: torch.Tensor
    reward: torch.Tensor

    def parameters(self) -> torch.Tensor:
        shape = self.base.shape if self.features is None else self.features.shape[::3]
        return torch.zeros(shape, dtype=self.base.dtype)

    def log_policy(self, theta: torch.Tensor) -> torch.Tensor:
        """log pi(y|x), (S, X, Y); the base policy where theta is 0."""
        moved = (
            theta if self.features is None else torch.einsum("sxyf,sf->sxy", self.features, theta)
        )
        return (self.base + moved).log_softmax(-1)


def make_bandit(linear: bool, rarity: float, seeds: int) -> Bandit:
    """Rewards of variance 1, but for each context's best response: `BONUS` more.

    The base policy knows nothing of the reward: its logits are normal. It gives the best response
    the probability `rarity`. In the log-linear bandit a feature of its own marks the best
    responses, so that one context teaches all others; in the tabular one nothing does.
    """
    made = [_make_one(linear, rarity, seed) for seed in range(seeds)]
    features, base, reward = (
        None if part[0] is None else torch.from_numpy(np.stack(part))
        for part in zip(*made, strict=True)
    )
    return Bandit(features, base, reward)


def _make_one(linear: bool, rarity: float, seed: int) -> tuple[np.ndarray | None, ...]:
    generator = np.random.default_rng([seed, 1])
    shape = (CONTEXTS, RESPONSES)
    base = generator.normal(size=shape)
    base -= np.log(np.exp(base[:, :-1]).sum(-1, keepdims=True) / (1 - rarity))
    base[:, -1] = np.log(rarity)
    features = generator.normal(size=(*shape, FEATURES + 1))
    features[..., -1] = 0
    features[:, -1, -1] = np.sqrt(FEATURES)  # as long as the others are on average
    weights = generator.normal(size=FEATURES)
    weights = np.append(weights / np.linalg.norm(weights), BONUS / np.sqrt(FEATURES))
    if linear:
        return features, base, features @ weights
    reward = generator.normal(size=shape)
    reward[:, -1] += BONUS
    return None, base, reward


@dataclass(frozen=True)
class Row:
    """Log-probs of a row of data under the policy and the reference, each (S, X, N).

    `everything` is (policy, reference) for all responses, (S, X, 1, Y), for exact expectations.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    explored: torch.Tensor
    initial: torch.Tensor
    ref_chosen: torch.Tensor
    ref_rejected: torch.Tensor
    ref_explored: torch.Tensor
    everything: tuple[torch.Tensor, torch.Tensor]


def selm(row: Row, alpha: float, beta: float) -> torch.Tensor:
    """On y, a sample of the reference."""
    return optimism_loss(row.explored, row.ref_explored, alpha, beta)


def xpo(row: Row, alpha: float, beta: float) -> torch.Tensor:
    """On a sample of the *initial* policy; its own alpha is alpha * beta (arXiv 2405.21046)."""
    return alpha * beta * row.initial


def geb(row: Row, alpha: float, beta: float) -> torch.Tensor:
    """On the rejected response, its probability: u = 1 + alpha - pi under KL (arXiv 2510.03269)."""
    return alpha * beta * row.rejected.exp()


def geb_log(row: Row, alpha: float, beta: float) -> torch.Tensor:
    """The same source's form for the forward KL with u = 1/pi: log pi of the rejected response."""
    return alpha * beta * row.rejected


def vpo(row: Row, alpha: float, beta: float) -> torch.Tensor:
    """The reference's expectation instead of a sample (arXiv 2405.19320): - KL(ref || pi)."""
    policy, ref = row.everything
    return alpha * beta * (ref.exp() * (policy - ref)).sum(-1)


def none(row: Row, alpha: float, beta: float) -> torch.Tensor:
    return torch.zeros_like(row.chosen)


Term = Callable[[Row, float, float], torch.Tensor]
TERMS: dict[str, Term] = {
    "none": none, "selm": selm, "xpo": xpo, "geb": geb, "geb-log": geb_log, "vpo": vpo,
}  # fmt: skip


@dataclass(frozen=True)
class Loop:
    """How data are made and used in one iteration.

    Attributes:
        pool: `selm`: a pair of the base policy and a sample of the current one, the best and the
            worst of the three make the row. `xpo`: one sample of the current and one of the base
            policy. `two`: two samples of the current policy. `uniform`: three uniform responses.
        newest: train on this iteration's rows alone, not on all rows so far.
        previous: the reference is the previous policy, not the initial one.
        greedy: the current policy's likeliest response instead of a sample.
        noisy: the ranker is Bradley-Terry's (Plackett-Luce's for three), not exact.
    """

    pool: str = "selm"
    newest: bool = True
    previous: bool = True
    greedy: bool = False
    noisy: bool = False
    beta: float = 0.5
    iterations: int = 10
    steps: int = 20
    rate: float = 1.0


def run(bandit: Bandit, loop: Loop, term: str, alpha: float) -> dict[str, torch.Tensor]:
    """The loop from the base policy on; metrics of `measure`, each (S, iterations + 1)."""
    theta = bandit.parameters()
    uniforms, gumbels = draws(bandit, loop.iterations)
    rows, found, measured = [], torch.zeros(bandit.base.shape[:2], dtype=torch.bool), []
    for t in range(loop.iterations + 1):
        log_policy = bandit.log_policy(theta)
        measured.append(measure(bandit, loop, log_policy, t) | {"found": found.double().mean(-1)})
        if t == loop.iterations:
            break
        rows = [] if loop.newest else rows
        new, pool = collect(bandit, loop, log_policy, uniforms[:, t], gumbels[:, t])
        rows.append(new)
        found = found | (pool == bandit.base.shape[-1] - 1).any(-1)
        reference = log_policy if loop.previous else bandit.base
        theta = learn(bandit, loop, TERMS[term], alpha, theta, torch.cat(rows, -1), reference)
    return {name: torch.stack([m[name] for m in measured], 1) for name in measured[0]}


def draws(bandit: Bandit, iterations: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The random numbers of all iterations: every method gets the same ones, so pairs differ less.

    Returns:
        Uniform ones for four samples and Gumbel ones for the ranker, both (S, T, X, 4).
    """
    shape = (iterations, bandit.base.shape[1], 4)
    both = [
        (generator.random(shape), generator.gumbel(size=shape))
        for generator in (np.random.default_rng([s, 2]) for s in range(len(bandit.base)))
    ]
    uniforms, gumbels = (torch.from_numpy(np.stack(part)) for part in zip(*both, strict=True))
    return uniforms, gumbels


def collect(
    bandit: Bandit,
    loop: Loop,
    log_policy: torch.Tensor,
    uniforms: torch.Tensor,
    gumbels: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """New rows: (chosen, rejected, explored, initial) as responses, (S, X, 4, 1), and the pool."""
    first, second, third, initial = (
        sample(policy, u)
        for policy, u in zip(
            (bandit.base, bandit.base, log_policy, bandit.base), uniforms.unbind(-1), strict=True
        )
    )
    explored = log_policy.argmax(-1) if loop.greedy else third
    if loop.pool == "selm":
        pool = torch.stack([first, second, explored], -1)
    elif loop.pool == "xpo":
        pool = torch.stack([explored, initial], -1)
        explored = initial  # a sample of the reference, which is the initial policy
    elif loop.pool == "two":
        pool = torch.stack([explored, sample(log_policy, uniforms[..., 0])], -1)
    else:
        pool = (uniforms[..., :3] * bandit.base.shape[-1]).long()
        explored = pool[..., 2]
    scores = bandit.reward.gather(-1, pool)
    scores = scores + loop.noisy * gumbels[..., : pool.shape[-1]]
    pair = torch.stack([scores.argmax(-1), scores.argmin(-1)], -1)
    row = torch.cat([pool.gather(-1, pair), explored[..., None], initial[..., None]], -1)
    return row[..., None], pool


def sample(log_policy: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The response at which the distribution function passes the uniform number."""
    found = torch.searchsorted(log_policy.exp().cumsum(-1), uniform[..., None].contiguous())[..., 0]
    return found.clamp(max=log_policy.shape[-1] - 1)


def learn(
    bandit: Bandit, loop: Loop, term: Term, alpha: float,
    theta: torch.Tensor, rows: torch.Tensor, reference: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """Steps of plain gradient descent from theta on the mean loss over contexts and rows."""
    for _ in range(loop.steps):
        theta = theta - loop.rate * gradient(bandit, loop, term, alpha, theta, rows, reference)
    return theta


def gradient(
    bandit: Bandit, loop: Loop, term: Term, alpha: float,
    theta: torch.Tensor, rows: torch.Tensor, reference: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    theta = theta.detach().requires_grad_()
    losses = loss(loop, term, alpha, bandit.log_policy(theta), rows, reference)
    # In the tabular bandit a context has parameters of its own, so its rows are its whole data.
    total = losses.mean(-1).sum() if bandit.features is None else losses.mean((-1, -2)).sum()
    return torch.autograd.grad(total, theta)[0]


def loss(
    loop: Loop, term: Term, alpha: float,
    log_policy: torch.Tensor, rows: torch.Tensor, reference: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """DPO's loss and the term, of each row, (S, X, N)."""
    chosen, rejected, explored, initial = (log_policy.gather(-1, r) for r in rows.unbind(-2))
    ref = [reference.gather(-1, r) for r in rows.unbind(-2)]
    everything = (log_policy[..., None, :], reference[..., None, :])
    row = Row(chosen, rejected, explored, initial, *ref[:3], everything)
    margin = (row.chosen - row.ref_chosen) - (row.rejected - row.ref_rejected)
    return -logsigmoid(loop.beta * margin) + term(row, alpha, loop.beta)


def oracle(bandit: Bandit, loop: Loop, t: int) -> torch.Tensor:
    """log-probs of the optimal policy after t iterations, from the true reward.

    One iteration's optimum is ref * exp(r / beta) / Z. With the previous policy as the reference,
    t of them are base * exp(t r / beta) / Z.
    """
    strength = t if loop.previous else min(t, 1)
    return (bandit.base + strength * bandit.reward / loop.beta).log_softmax(-1)


def measure(
    bandit: Bandit, loop: Loop, log_policy: torch.Tensor, t: int
) -> dict[str, torch.Tensor]:
    """What a policy is worth, each (S,).

    `regret`: expected reward below the best response's, 1 for the base policy. `kl_regret`: value
    of the KL-regularised problem below its optimum, in units of reward; it is KL(pi || oracle)
    times the problem's beta, which is beta / t where the reference moves. `best`: probability of
    the best response. `entropy` in nats. `moved`: KL(base || pi).
    """

    def missing(policy: torch.Tensor) -> torch.Tensor:
        return (bandit.reward[..., -1] - (policy.exp() * bandit.reward).sum(-1)).mean(-1)

    policy, optimum = log_policy.exp(), oracle(bandit, loop, t)
    beta = loop.beta / max(t, 1) if loop.previous else loop.beta
    return {
        "regret": missing(log_policy) / missing(bandit.base),
        "kl_regret": beta * (policy * (log_policy - optimum)).sum(-1).mean(-1),
        "best": policy[..., -1].mean(-1),
        "entropy": -(policy * log_policy).sum(-1).mean(-1),
        "moved": (bandit.base.exp() * (bandit.base - log_policy)).sum(-1).mean(-1),
    }
