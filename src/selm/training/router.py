"""The load-balancing loss of mixtures of experts, which TRL computes for some models."""

from transformers import PretrainedConfig

from selm.errors import UserError
from selm.training.config import SELMConfig


def check_router(arguments: SELMConfig, config: PretrainedConfig) -> None:
    """Refuse before the reference pass what TRL would refuse, or fail on, after it."""
    text = config.get_text_config()
    coefficient = arguments.router_aux_loss_coef
    if coefficient is None:
        coefficient = getattr(text, "router_aux_loss_coef", 0.0)
    if not coefficient:
        return
    if not hasattr(text, "output_router_logits"):
        if arguments.router_aux_loss_coef:
            raise UserError(
                f"training.router_aux_loss_coef: a model of type {text.model_type} returns no "
                "router logits, so it has no such loss; remove the key"
            )
        return
    if not hasattr(text, "num_experts"):
        raise UserError(
            f"training.router_aux_loss_coef: TRL cannot compute this loss for a model of "
            f"type {text.model_type}; set it to 0 to train without it"
        )
