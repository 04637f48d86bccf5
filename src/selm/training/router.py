"""The load-balancing loss of mixtures of experts: TRL's, where TRL can compute it."""

from transformers import PretrainedConfig

from selm.errors import UserError
from selm.training.config import SELMConfig


def check_router(arguments: SELMConfig, config: PretrainedConfig) -> None:
    """Refuse before the reference's pass what TRL refuses, or stumbles over, after it."""
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
                "router's logits, so there is no loss of it; leave the key out"
            )
        return
    if not hasattr(text, "num_experts"):
        raise UserError(
            f"training.router_aux_loss_coef: TRL cannot compute the router's loss of a model of "
            f"type {text.model_type}; set it to 0 to train without"
        )
