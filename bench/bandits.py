"""Preference bandits with a known reward, and the online loop that learns in them.

All tensors begin with the seeds' axis: S seeds, X contexts, Y responses, F features, N rows of
data per context. Seeds never meet: they share a tensor because a loop over them would be slow.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import logsigmoid

from selm.training.objective import TERMS

CONTEXTS, RESPONSES, FEATURES = 15, 30, 6
BONUS = 4.0  # what one response earns on top, in standard deviations of the reward

# A row of data is four responses; a term reads one of the last three.
CHOSEN, REJECTED, EXPLORED, INITIAL = range(4)


@dataclass(frozen=True)
class Bandit:
    """A contextual bandit and its base policy.

    Attributes:
        features: (S, X, Y, F) of a log-linear policy; None for a tabular one.
        base: log-probs of the base policy, (S, X, Y).
        reward: (S, X, Y). The last response of a context is the one with a bonus.
        seeds: of the bandits, and of the samples and verdicts in them.
    """

    features: torch.Tensor | None
    base: torch.Tensor
    reward: torch.Tensor
    seeds: range

    def parameters(self) -> torch.Tensor:
        """Of the base policy: (S, F) weights, or (S, X, Y) logits."""
        shape = self.base.shape if self.features is None else self.features.shape[::3]
        return torch.zeros(shape, dtype=self.base.dtype)

    def log_policy(self, theta: torch.Tensor) -> torch.Tensor:
        """log pi(y|x), (S, X, Y), proportional to base(y|x) * exp(theta . features(x, y))."""
        if self.features is None:
            return (self.base + theta).log_softmax(-1)
        moved = self.features.flatten(1, 2) @ theta[..., None]
        return (self.base + moved.view_as(self.base)).log_softmax(-1)

    def to_parameters(self, logits: torch.Tensor) -> torch.Tensor:
        """The gradient by theta from the one by the logits, (S, X, Y)."""
        if self.features is None:
            return logits
        return (logits.flatten(1)[:, None] @ self.features.flatten(1, 2))[:, 0]


def make_bandit(
    linear: bool, rarity: float, seeds: range, dtype: torch.dtype = torch.float32
) -> Bandit:
    """Rewards of variance 1, and `BONUS` more for one response, the best in 96 % of contexts.

    The base policy knows nothing of the reward: its logits are normal. It gives that response
    the probability `rarity`. In the log-linear bandit a feature of its own marks these
    responses, so that one context teaches all others; in the tabular one nothing does.
    """
    made = [_make_one(linear, rarity, seed) for seed in seeds]
    features, base, reward = (
        torch.tensor(np.stack(p), dtype=dtype) for p in zip(*made, strict=True)
    )
    return Bandit(features if linear else None, base, reward, seeds)


def _make_one(linear: bool, rarity: float, seed: int) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng([seed, 1])
    shape = (CONTEXTS, RESPONSES)
    base = generator.normal(size=shape)
    base -= np.log(np.exp(base[:, :-1]).sum(-1, keepdims=True) / (1 - rarity))
    base[:, -1] = np.log(rarity)
    features = np.zeros((*shape, FEATURES + 1))
    features[..., :-1] = generator.normal(size=(*shape, FEATURES))
    features[:, -1, -1] = np.sqrt(FEATURES)  # as long as the others together are on average
    weights = generator.normal(size=FEATURES)
    reward = features[..., :-1] @ (weights / np.linalg.norm(weights))
    if not linear:
        reward = generator.normal(size=shape)
    reward[:, -1] += BONUS
    return features, base, reward


@dataclass(frozen=True)
class Loop:
    """How data are made and used in one iteration.

    Attributes:
        pool: `three`: a pair of the base policy and a sample of the current one; best and worst
            make the row. `mixed`: one sample of the current and one of the base policy. `two`: two
            samples of the current policy. `uniform`: three responses, all equally likely.
        newest: train on this iteration's rows alone, not on all rows so far.
        previous: the reference is the previous policy, not the base policy.
        greedy: the current policy's likeliest response instead of a sample.
        noisy: the ranker is Bradley-Terry's (Plackett-Luce's for three), not exact.
        steps, rate: of plain gradient descent on the mean loss of a context's rows (log-linear:
            of all rows), in every iteration.
    """

    pool: str = "three"
    newest: bool = True
    previous: bool = True
    greedy: bool = False
    noisy: bool = False
    beta: float = 0.5
    iterations: int = 10
    steps: int = 10
    rate: float = 1.0


@dataclass(frozen=True)
class Method:
    """An optimism term and its weight.

    Attributes:
        term: a name in TERMS, `none`, or `expected`: the expectation of SELM's term over the
            reference, computed from all responses. It is - alpha * beta * KL(ref || pi).
        alpha: SELM's. What other terms call alpha or kappa is alpha * beta, so that
            the derivatives by log pi agree, but for GEB's factor 1 / (2 - pi).
    """

    term: str = "none"
    alpha: float = 0.0

    def losses(self, logps: torch.Tensor, refs: torch.Tensor, beta: float) -> torch.Tensor:
        """DPO's loss and the project's term, (S, X, N), from log-probs of rows (S, X, 4, N)."""
        ratios = logps - refs
        dpo = -logsigmoid(beta * (ratios[:, :, CHOSEN] - ratios[:, :, REJECTED]))
        if self.term not in TERMS:
            return dpo
        term = TERMS[self.term]
        read = REJECTED
        if term.reads == "explored":
            read = INITIAL if term.explorer == "initial" else EXPLORED
        weight = self.alpha * (beta if self.term in ("xpo", "geb") else 1)
        return dpo + term.loss(logps[:, :, read], refs[:, :, read], weight, beta)


def run(bandit: Bandit, loop: Loop, method: Method) -> dict[str, torch.Tensor]:
    """The loop from the base policy on; metrics of `measure`, each (S, iterations + 1)."""
    theta, rows, measured = bandit.parameters(), [], []
    found = torch.zeros(bandit.base.shape[:2], dtype=torch.bool)
    uniforms, gumbels = draws(bandit, loop.iterations)
    for t in range(loop.iterations + 1):
        log_policy = bandit.log_policy(theta)
        measured.append(measure(bandit, loop, log_policy, t) | {"found": found.float().mean(-1)})
        if t == loop.iterations:
            break
        new, pool = collect(bandit, loop, log_policy, uniforms[:, t], gumbels[:, t])
        rows = [new] if loop.newest else [*rows, new]
        found = found | (pool == bandit.base.shape[-1] - 1).any(-1)
        reference = log_policy if loop.previous else bandit.base
        data = torch.cat(rows, -1)
        for _ in range(loop.steps):
            theta = theta - loop.rate * gradient(bandit, loop, method, theta, data, reference)
    return {name: torch.stack([m[name] for m in measured], 1) for name in measured[0]}


def draws(bandit: Bandit, iterations: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The random numbers of all iterations: every method gets the same, for paired differences.

    Returns:
        Uniform ones for four samples and Gumbel ones for the ranker, both (S, T, X, 4).
    """
    shape = (iterations, bandit.base.shape[1], 4)
    generators = [np.random.default_rng([seed, 2]) for seed in bandit.seeds]
    both = [(g.random(shape), g.gumbel(size=shape)) for g in generators]
    uniforms, gumbels = (np.stack(part) for part in zip(*both, strict=True))
    as_base = {"dtype": bandit.base.dtype}
    return torch.tensor(uniforms, **as_base), torch.tensor(gumbels, **as_base)


def collect(
    bandit: Bandit, loop: Loop, log_policy: torch.Tensor,
    uniforms: torch.Tensor, gumbels: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """New rows of responses, (S, X, 4, 1), and the pools they were chosen from."""
    first, second, third, fourth = uniforms.unbind(-1)
    explored = log_policy.argmax(-1) if loop.greedy else sample(log_policy, third)
    initial = sample(bandit.base, fourth)
    if loop.pool == "three":
        pool = [sample(bandit.base, first), sample(bandit.base, second), explored]
    elif loop.pool == "mixed":
        pool = [explored, initial]
    elif loop.pool == "two":
        pool = [explored, sample(log_policy, first)]
    else:
        pool = [(u * bandit.base.shape[-1]).long() for u in (first, second, third)]
    pool = torch.stack(pool, -1)
    scores = bandit.reward.gather(-1, pool) + loop.noisy * gumbels[..., : pool.shape[-1]]
    pair = torch.stack([scores.argmax(-1), scores.argmin(-1)], -1)
    row = torch.cat([pool.gather(-1, pair), explored[..., None], initial[..., None]], -1)
    return row[..., None], pool


def sample(log_policy: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The response at which the distribution function passes the uniform number."""
    found = torch.searchsorted(log_policy.exp().cumsum(-1), uniform[..., None].contiguous())
    return found[..., 0].clamp(max=log_policy.shape[-1] - 1)


def gradient(
    bandit: Bandit, loop: Loop, method: Method,
    theta: torch.Tensor, rows: torch.Tensor, reference: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """Of the mean loss, by theta.

    The project's functions give the derivative by each log-prob; what follows is
    d log pi(y) / d logit(y') = [y = y'] - pi(y').
    """
    log_policy = bandit.log_policy(theta)
    flat = rows.flatten(2)
    logps = log_policy.gather(-1, flat).view(rows.shape).requires_grad_()
    losses = method.losses(logps, reference.gather(-1, flat).view(rows.shape), loop.beta)
    weights = torch.autograd.grad(losses.sum(), logps)[0].flatten(2) / rows.shape[-1]
    by_logp = torch.zeros_like(log_policy).scatter_add_(-1, flat, weights)
    if method.term == "expected":
        by_logp += method.alpha * loop.beta * reference.exp()
    by_logit = by_logp - by_logp.sum(-1, keepdim=True) * log_policy.detach().exp()
    shared = 1 if bandit.features is None else rows.shape[1]  # contexts that share parameters
    return bandit.to_parameters(by_logit) / shared


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
    the response with the bonus. `entropy` in nats.
    """

    def missing(policy: torch.Tensor) -> torch.Tensor:
        return (bandit.reward.amax(-1) - (policy.exp() * bandit.reward).sum(-1)).mean(-1)

    policy, optimum = log_policy.exp(), oracle(bandit, loop, t)
    beta = loop.beta / max(t, 1) if loop.previous else loop.beta
    return {
        "regret": missing(log_policy) / missing(bandit.base),
        "kl_regret": beta * (policy * (log_policy - optimum)).sum(-1).mean(-1),
        "best": policy[..., -1].mean(-1),
        "entropy": -(policy * log_policy).sum(-1).mean(-1),
    }
