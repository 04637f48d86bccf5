"""The one place where a model is loaded and judged."""

from transformers import AutoConfig, PretrainedConfig

from selm.errors import UserError
from selm.recipe import Model


def load_config(path: str, model: Model) -> PretrainedConfig:
    """The config of a checkpoint folder or Hub id."""
    try:
        return AutoConfig.from_pretrained(
            path,
            revision=model.revision if path == model.name_or_path else None,
            trust_remote_code=model.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {str(error).strip().splitlines()[0]}") from error
