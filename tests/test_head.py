"""The head at scored positions is log-softmax and gather, without logits that are kept."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy

from selm.training.head import CHUNK, ScoringHead

WIDTH, VOCABULARY, SCORED = 16, 64, 2 * CHUNK + 7


def inputs() -> tuple[torch.nn.Linear, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False)
    hidden = torch.randn(SCORED + 100, WIDTH, requires_grad=True)
    scored = torch.randperm(SCORED + 100)[:SCORED]
    return head, hidden, scored, torch.randint(VOCABULARY, (SCORED,))


def test_it_is_log_softmax_with_its_gradients() -> None:
    found = []
    for ours in (True, False):
        head, hidden, scored, targets = inputs()
        if ours:
            values = ScoringHead(head)(hidden, scored, targets)
        else:
            values = head(hidden).log_softmax(-1)[scored, targets]
        (values * torch.linspace(-1, 1, SCORED)).sum().backward()
        found.append((values, hidden.grad, head.weight.grad))
    # sums of a thousand fp32 terms in another order
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-4)


def test_no_logits_are_kept_for_the_backward() -> None:
    kept = []
    head, hidden, scored, targets = inputs()
    with saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        ScoringHead(head)(hidden, scored, targets)
    assert max(tensor.numel() for tensor in kept) < CHUNK * VOCABULARY


def test_in_bf16_the_sum_over_the_vocabulary_is_fp32() -> None:
    head, hidden, scored, targets = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        values = ScoringHead(head)(hidden, scored, targets)
        logits = head(hidden[scored])
    assert logits.dtype == torch.bfloat16
    assert values.dtype == torch.float32
    exact = logits.double().log_softmax(-1)[range(SCORED), targets]
    torch.testing.assert_close(values.double(), exact, rtol=1e-5, atol=1e-5)


def by_autograd(head: torch.nn.Linear, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The same log-probs, but autograd adds the chunks' gradients in the dtype of the products."""
    chunks = zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)
    return torch.cat([-cross_entropy(head(h).float(), t, reduction="none") for h, t in chunks])


def error_of_gradient(ours: bool, autocast: bool, chunks: int) -> float:
    """Relative error of the weight's gradient against float64 on the same bf16 numbers."""
    torch.manual_seed(0)
    positions = chunks * CHUNK
    head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False)
    head.weight.data = head.weight.data.bfloat16().to(torch.float if autocast else torch.bfloat16)
    hidden, targets = torch.randn(positions, WIDTH), torch.randint(VOCABULARY, (positions,))
    hidden, given = hidden.bfloat16(), torch.randn(positions)
    exact = head.weight.detach().double().requires_grad_()
    values = (hidden.double() @ exact.T).log_softmax(-1)[range(positions), targets]
    (values * given).sum().backward()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        if ours:
            found = ScoringHead(head)(hidden, torch.arange(positions), targets)
        else:
            found = by_autograd(head, hidden, targets)
    (found * given).sum().backward()
    return float((head.weight.grad.double() - exact.grad).norm() / exact.grad.norm())


@pytest.mark.parametrize("autocast", [False, True])
def test_the_chunks_gradients_are_added_in_fp32(autocast: bool) -> None:
    """With 32 chunks the error is still that of one; added in bf16, it would be twice as large.

    bf16 rounds by 0.2 % at most. The products of each chunk, and without autocast the sum, are
    rounded once.
    """
    one, many = (error_of_gradient(True, autocast, chunks) for chunks in (1, 32))
    assert many < 1.5 * one < 0.006
    assert error_of_gradient(False, autocast, 32) > 2 * many


def test_a_bias_and_a_frozen_weight_have_their_gradients_or_none() -> None:
    found = []
    for ours in (True, False):
        _, hidden, scored, targets = inputs()
        torch.manual_seed(0)
        head = torch.nn.Linear(WIDTH, VOCABULARY)
        head.weight.requires_grad_(False)
        if ours:
            values = ScoringHead(head)(hidden, scored, targets)
        else:
            values = by_autograd(head, hidden[scored], targets)
        values.sum().backward()
        assert head.weight.grad is None
        found.append((values, hidden.grad, head.bias.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-4)
