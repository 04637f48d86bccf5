"""Figure 1 of the paper on a line: reward models with and without optimism, and what they find.

    python bench/intuition.py --out docs/evidence/intuition.png [--seed 0]

A response is a number between 0 and 1. The reference policy answers around 0.3, where the true
reward has a low hill; the high one is at 0.8, where no response has been observed. A reward
model is fitted to the preferences between observed responses (Bradley-Terry) by the explicit form
of the method, arXiv 2405.19332, eq. 3.1 with its inner problem solved (appendix A):

    max_r  -L_lr(r; D) + alpha * F(r),   F(r) = beta log E_ref[exp(r / beta)] - E_ref[r]

In each round, the best response of the model is observed, too. It takes seconds on a CPU. Which
unobserved response comes first is a matter of the features and of the reference policy, not of
the true reward: optimism also finds out that some responses are bad.
"""

import argparse
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import logsigmoid

from selm.report.style import BASE, FAINT, NOTE, STYLE, titled

Y = torch.linspace(0, 1, 201, dtype=torch.float64)  # all responses
WIDTH = 0.1  # of a feature: how far an observation tells about its neighbours
CENTRES = torch.linspace(0, 1, 21, dtype=torch.float64)
FEATURES_YC = torch.exp(-(((Y[:, None] - CENTRES) / WIDTH) ** 2))
BETA = 0.05
RIDGE = 3e-3  # of the weights: where nothing was observed, the reward stays near zero
START = 6  # observed responses
VANILLA, OPTIMISTIC, OBSERVED, TRUE = "#3b6fb6", "#2e9e5b", "#c8442f", BASE


@dataclass(frozen=True)
class Fit:
    """A fitted reward model.

    Attributes:
        reward_Y: shifted by a constant, which preferences say nothing about, so that its mean
            over the observed responses is the true one's.
        loss: excess of L_lr over what the true reward has; zero is a perfect fit.
        best: index of the response with the highest reward.
    """

    reward_Y: Tensor
    loss: float
    best: int


def true_reward() -> Tensor:
    """A low hill where responses are observed and a high one where they are not."""
    return torch.exp(-(((Y - 0.3) / 0.1) ** 2)) + 2 * torch.exp(-(((Y - 0.8) / 0.12) ** 2))


def reference() -> Tensor:
    """Probabilities of the reference policy: around 0.3, with a hundredth of its mass anywhere."""
    near = torch.exp(-0.5 * ((Y - 0.3) / 0.08) ** 2)
    return 0.99 * near / near.sum() + 0.01 / len(Y)


def excess_loss(reward_SY: Tensor, observed: list[int]) -> Tensor:
    """L_lr of all pairs of observed responses, less its minimum, for S reward models.

    The labels are the true preferences' probabilities, as of very many votes for each pair.
    """
    first, second = torch.tensor(list(combinations(observed, 2))).T
    truth = true_reward()
    p = torch.sigmoid(truth[first] - truth[second])
    least = -(p * p.log() + (1 - p) * (1 - p).log()).mean()
    margin = reward_SY[:, first] - reward_SY[:, second]
    return -(p * logsigmoid(margin) + (1 - p) * logsigmoid(-margin)).mean(1) - least


def optimism(reward_SY: Tensor) -> Tensor:
    """F(pi_r; r) of eq. 3.1, where pi_r is proportional to ref * exp(r / beta)."""
    ref_Y = reference()
    soft_maximum = BETA * torch.logsumexp(reward_SY / BETA + ref_Y.log(), dim=1)
    return soft_maximum - reward_SY @ ref_Y


def fit(observed: list[int], alpha: float, hills: bool = True) -> Fit:
    """The best of several fits: one starts at zero, the others with a hill at each centre.

    The optimism term is convex in r, so the objective has many maxima. Gradient steps from zero
    (`hills=False`) stay where the reference policy answers.
    """
    weights_SC = torch.zeros(1, len(CENTRES), dtype=torch.float64)
    if hills:
        weights_SC = torch.cat([weights_SC, torch.eye(len(CENTRES), dtype=torch.float64)])
    weights_SC.requires_grad_()

    def objective(weights: Tensor) -> Tensor:
        reward = weights @ FEATURES_YC.T
        ridge = RIDGE * weights.square().sum(1)
        return excess_loss(reward, observed) - alpha * optimism(reward) + ridge

    steps = torch.optim.LBFGS([weights_SC], max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        steps.zero_grad()
        loss = objective(weights_SC).sum()
        loss.backward()
        return loss

    steps.step(closure)
    with torch.no_grad():
        best = weights_SC[objective(weights_SC).argmin()]
        reward = FEATURES_YC @ best
        loss = excess_loss(reward[None], observed).item()
    shift = (true_reward() - reward)[sorted(set(observed))].mean()
    return Fit(reward + shift, loss, int(reward.argmax()))


def rounds(observed: list[int], alpha: float, count: int) -> list[tuple[list[int], Fit]]:
    """What was observed before each round and the fit to it; its best response comes next."""
    found = []
    for _ in range(count):
        found.append((observed, fit(observed, alpha)))
        observed = [*observed, found[-1][1].best]
    return found


def first_responses(seed: int) -> list[int]:
    """Different responses of the reference policy."""
    generator = np.random.default_rng(seed)
    probabilities = reference().numpy()
    drawn = generator.choice(len(Y), START, replace=False, p=probabilities / probabilities.sum())
    return sorted(int(index) for index in drawn)


def printed(alpha: float, found: list[tuple[list[int], Fit]]) -> None:
    """A line per round. The loss is the excess over that of the true reward."""
    for t, (observed, each) in enumerate(found, 1):
        print(
            f"{alpha:6g} {t:5d} {len(observed):8d} {each.loss:8.4f} {Y[each.best]:8.2f}"
            f" {each.reward_Y[each.best]:9.2f} {true_reward()[each.best]:11.2f}"
        )


def panel(axes: Axes, observed: list[int], fits: list[tuple[float, Fit]], title: str) -> None:
    """The true reward, the observed responses and each fit with its best response."""
    axes.axvspan(*Y[[min(observed[:START]), max(observed[:START])]], color=FAINT, alpha=0.5, lw=0)
    axes.plot(Y, true_reward(), "--", color=TRUE, lw=1.5, label="true reward")
    for alpha, each in fits:
        colour = OPTIMISTIC if alpha else VANILLA
        axes.plot(Y, each.reward_Y, color=colour, lw=2, label=f"alpha = {alpha:g}")
        axes.plot(Y[each.best], each.reward_Y[each.best], "v", color=colour, ms=9, zorder=4)
    axes.plot(Y[observed], true_reward()[observed], "*", color=OBSERVED, ms=10, label="observed")
    axes.set(title=title, xlabel="response", ylabel="reward", xticks=[0, 0.25, 0.5, 0.75, 1])
    axes.legend(loc="upper left", fontsize=8.5, labelcolor=NOTE)


def draw(found: dict[float, list[tuple[list[int], Fit]]], good: float, large: float) -> Figure:
    """Round 1 without and with optimism, what feedback makes of it, and too much optimism."""
    last = len(found[0])
    panels = [
        ("Round 1: both fit what was observed", (0, good), 1),
        ("Round 2: the model's best response was observed", (good,), 2),
        (f"Round {last}: the loss is {found[good][-1][1].loss:.4f} above the least", (good,), last),
        (f"Round {last}: the loss is {found[large][-1][1].loss:.4f} above", (large,), last),
    ]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(11, 7.6))
        for where, (title, alphas, t) in zip(axes.flat, panels, strict=True):
            observed = found[alphas[-1]][t - 1][0]
            panel(where, observed, [(alpha, found[alpha][t - 1][1]) for alpha in alphas], title)
        marks = "Triangles: a model's best response, observed next; shaded: the reference's answers"
        titled(figure, "Optimism lifts the reward where nothing was observed", marks)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="the picture")
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.002, 0.02])
    parser.add_argument("--drawn", type=float, nargs=2, default=[0.004, 0.1], metavar="ALPHA")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of the responses at the start")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the tensors are small, and threads would only wait for each other
    observed = first_responses(arguments.seed)
    print(" alpha round observed     loss     best its reward true reward")
    found = {}
    for alpha in sorted({0.0, *arguments.alphas, *arguments.drawn}):
        found[alpha] = rounds(observed, alpha, arguments.rounds)
        printed(alpha, found[alpha])
    draw(found, *arguments.drawn).savefig(arguments.out, dpi=100, facecolor="white")
    print(f"{arguments.out}: drawn")


if __name__ == "__main__":
    main()
