"""What a model's attention does in training that its owner may not expect: said, not changed."""

from transformers import PretrainedConfig

# torch's own attention has no such thing: transformers leaves it out without a word.
_WITHOUT_SOFTCAP = ("sdpa",)


def notes(config: PretrainedConfig, shared: bool = False) -> list[str]:
    """One line for each thing.

    Args:
        shared: whether the shared forward computes the attention, which `model.attn_implementation`
            does not decide on then.
    """
    text = config.get_text_config()
    found = []
    cap = getattr(text, "attn_logit_softcapping", None)
    if cap and not shared and text._attn_implementation in _WITHOUT_SOFTCAP:
        found.append(
            f"attn_logit_softcapping of {cap:g} is left out by {text._attn_implementation}: set "
            "model.attn_implementation to eager, else another model is trained than generates"
        )
    dropout = getattr(text, "attention_dropout", 0.0)
    if dropout:
        found.append(
            f"attention_dropout of {dropout:g} is on in training, and off in the reference: "
            "training.disable_dropout does not reach it; set it to 0 in the model's config.json"
        )
    return found
