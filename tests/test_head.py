"""The head at scored positions is log-softmax and gather, without logits that are kept."""

import torch
from torch.autograd.graph import saved_tensors_hooks

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
