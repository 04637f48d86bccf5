"""What the tables of bench/regret.py say about a run: means, paired differences, intervals."""

from typing import Any

import torch


def summed(metrics: dict[str, torch.Tensor]) -> torch.Tensor:
    """Regret summed over the iterations, without the base policy's, (S,)."""
    return metrics["regret"][:, 1:].sum(1)


def describe(
    metrics: dict[str, torch.Tensor], chosen: int, dpo: dict[str, torch.Tensor] | None = None
) -> dict[str, Any]:
    """Means without the `chosen` first seeds, theirs alone, and the paired difference from DPO."""
    regret = summed(metrics)
    found: dict[str, Any] = {
        "choosing": regret[:chosen].mean().item() if chosen else None,
        "summed": regret[chosen:].mean().item(),
    }
    for name in ("regret", "kl_regret", "best", "entropy", "found"):
        found[name] = [round(value, 5) for value in metrics[name][chosen:].mean(0).tolist()]
    if dpo is not None:
        differences = (regret - summed(dpo))[chosen:]
        error = 1.96 * differences.std().item() / len(differences) ** 0.5
        found["difference"], found["half_width"] = differences.mean().item(), error
    return found


def cell(found: dict[str, Any]) -> str:
    """Difference and half width of its interval, bold where the interval leaves zero out."""
    text = f"{found['difference']:+.3f} ± {found['half_width']:.3f}"
    return f"**{text}**" if abs(found["difference"]) > found["half_width"] else text


def lines(body: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in [body[0], ["---"] * len(body[0]), *body[1:]]]
