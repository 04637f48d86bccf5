"""The one place where a policy is loaded and checked for random, damaged or foreign weights.

A fault in a model's folder is a `UserError` of one line that names it. The line is the same in the
preflight (`inspect`, no weights in memory) and in every stage (`load`).
"""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from selm import memory
from selm.errors import OutsideError, UserError
from selm.model.finite import all_finite, first_not_finite
from selm.recipe.schema import Model

# Old checkpoints hold these tables beside the weights; they are computed when a model is built.
_NO_WEIGHTS = re.compile(r"(inv_freq|masked_bias|attn\.bias|attention\.bias|position_ids)$")

# Their configs do not say that they are decoders, but they are causal.
_CAUSAL_ANYWAY = ("gpt_neox", "gpt_neox_japanese")

_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")

_OF_ATTENTION = re.compile(
    "attn_implementation|attention implementation|flash.?att|scaled_dot_product|flex.?att", re.I
)


def load_config(path: str, model: Model) -> PretrainedConfig:
    """The config of a checkpoint folder or Hub id, of a causal model."""
    _refuse_adapter(path, model)
    _refuse_no_config(path)
    with _in_one_line(path, "no usable config.json"):
        config = AutoConfig.from_pretrained(
            path, revision=_revision(path, model), trust_remote_code=model.trust_remote_code
        )
    _check_kind(path, config)
    check_attention(config, model)
    return config


def inspect(path: str, model: Model) -> PreTrainedModel | None:
    """The model without its weights, after their names and sizes were checked.

    None if this would need a download.
    """
    local_only = {} if Path(path).is_dir() else {"local_files_only": True}
    try:
        return load(path, model, device_map="meta", **local_only)
    except UserError as error:
        if local_only and isinstance(error.__cause__, OSError):
            return None
        raise


def load(path: str, model: Model, **how: Any) -> PreTrainedModel:
    """The policy at `path`, a checkpoint folder or the base model.

    Its generation config can always be saved, whatever the file contains.

    Args:
        how: further arguments of `from_pretrained`; the recipe's model section decides the others.

    Raises:
        UserError: the folder does not hold the model that its config describes.
    """
    config = load_config(path, model)
    configured = savable(generation_config(path, model) or GenerationConfig())
    if Path(path).is_dir() and not _has_weights(Path(path)):
        raise UserError(f"{path}: it has no weights (model*.safetensors)")
    with _in_one_line(path, "it cannot be loaded", model):
        loaded, info = AutoModelForCausalLM.from_pretrained(
            path,
            config=config,
            revision=_revision(path, model),
            attn_implementation=model.attn_implementation,
            trust_remote_code=model.trust_remote_code,
            generation_config=configured,  # otherwise the library reads the file, and may refuse it
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in `info`, and refused below
            **how,
        )
    if _has_the_weights():
        _check_keys(path, loaded, info)
        _check_finite(path, loaded)
    return loaded


def check_files(path: str, model: Model) -> None:
    """Refuse what `load` refuses, for an engine that loads the model itself."""
    load_config(path, model)
    generation_config(path, model)
    inspect(path, model)
    bad = first_not_finite(Path(path)) if Path(path).is_dir() else None
    if bad is not None:
        raise _not_finite(path, bad)


def generation_config(path: str, model: Model) -> GenerationConfig | None:
    """The model's generation_config.json, or the EOS tokens of config.json if there is none.

    None if neither has any. If the library refuses the settings, only the token ids are kept,
    because the recipe decides how to sample.
    """
    file = cached_file(
        path,
        "generation_config.json",
        revision=_revision(path, model),
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if file is None:
        ends = getattr(load_config(path, model).get_text_config(), "eos_token_id", None)
        return None if ends is None else GenerationConfig(eos_token_id=ends)
    found = _settings(file)
    ends = found.get("eos_token_id")
    for end in ends if isinstance(ends, list) else [ends]:
        if end is not None and (type(end) is not int or end < 0):
            raise UserError(
                f"{path}: eos_token_id in its generation_config.json: {end!r} is not the id of "
                "a token"
            )
    try:
        return GenerationConfig.from_dict(found)
    except (ValueError, TypeError, AttributeError):
        return GenerationConfig(**{name: found.get(name) for name in _IDS})


def _settings(file: str) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"{file}: it cannot be used ({said}); correct or delete it") from error
    if not isinstance(found, dict):
        raise UserError(f"{file}: wanted an object of settings, got {str(found)[:40]!r}")
    return found


def savable(config: GenerationConfig) -> GenerationConfig:
    """The config in a form that can be saved: the library refuses to save some that it reads.

    Most of them have a temperature but no `do_sample`. Generation does not use these settings,
    because the recipe decides how to sample.
    """
    if _is_savable(config):
        return config
    config.do_sample = True
    if _is_savable(config):
        return config
    return GenerationConfig(**{name: getattr(config, name) for name in _IDS})


def _is_savable(config: GenerationConfig) -> bool:
    try:
        config.validate(strict=True)
    except (ValueError, TypeError):
        return False
    return True


def context(config: PretrainedConfig) -> int | None:
    """How many tokens the model can see; None without a limit (ALiBi, recurrent models)."""
    text = config.get_text_config()
    for name in ("max_position_embeddings", "max_seq_len"):
        tokens = getattr(text, name, None)
        if isinstance(tokens, int) and tokens > 0:
            return tokens
    return None


def most_prompt_tokens(config: PretrainedConfig, max_tokens: int) -> int:
    """The longest prompt that leaves room in the context for an answer of `max_tokens`."""
    return (context(config) or sys.maxsize) - max_tokens


def check_vocabulary(
    path: str, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig
) -> None:
    """UserError if the tokenizer has tokens for which the model has no embedding.

    An embedding may have more rows than the tokenizer has tokens: it is padded.
    """
    rows = config.get_text_config().vocab_size
    vocabulary = tokenizer.get_vocab()
    last = max(vocabulary, key=lambda token: vocabulary[token])
    if vocabulary[last] >= rows:
        raise UserError(
            f"{path}: its tokenizer has ids up to {vocabulary[last]} ({last!r}), but the "
            "embedding has "
            f"{rows} rows; load the model, call resize_token_embeddings({vocabulary[last] + 1}) "
            "and save it, or remove the added tokens from the tokenizer"
        )


def check_attention(config: PretrainedConfig, model: Model) -> None:
    """UserError if this attention leaves out a part of the model or needs another machine."""
    if model.attn_implementation == "flex_attention" and not torch.cuda.is_available():
        raise UserError(
            "model.attn_implementation: flex_attention is compiled for a GPU, and this machine has "
            "none; set it to sdpa"
        )
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None)
    if capped and model.attn_implementation == "sdpa":
        raise UserError(
            f"model.attn_implementation: sdpa leaves out this model's soft-capping of attention "
            f"(attn_logit_softcapping {capped:g}); set it to eager"
        )


def dropout_note(config: PretrainedConfig) -> str:
    """A note if the model's attention has dropout in training; otherwise empty."""
    share = getattr(config.get_text_config(), "attention_dropout", 0)
    if not isinstance(share, (int, float)) or share <= 0:
        return ""
    return (
        f"its config has attention_dropout {share:g}, which training.disable_dropout does not "
        "reach, so log-probs are noisy in training; set it to 0 in config.json to avoid this"
    )


def _revision(path: str, model: Model) -> str | None:
    return model.revision if path == model.name_or_path else None


def _refuse_adapter(path: str, model: Model) -> None:
    """Refuse an adapter: transformers would load its base, or train nothing."""
    folder = Path(path)
    if folder.is_dir():
        found = folder / "adapter_config.json"
        file = str(found) if found.is_file() else None
    else:
        with _in_one_line(path, "it cannot be reached"):
            file = find_adapter_config_file(path, revision=_revision(path, model))
    if file is None:
        return
    base = "another model"
    try:
        facts = json.loads(Path(file).read_text(encoding="utf-8"))
        base = facts.get("base_model_name_or_path") or base
    except (ValueError, AttributeError):
        pass
    if folder.is_dir() and (folder / "config.json").is_file() and _has_weights(folder):
        raise UserError(
            f"{path}: an adapter of {base} is beside the model (adapter_config.json) and would "
            "be loaded instead of it; move the adapter's files out of this folder"
        )
    raise UserError(
        f"{path}: it is an adapter of {base}, not a model; merge it first: peft's "
        "AutoPeftModelForCausalLM.from_pretrained(adapter).merge_and_unload().save_pretrained("
        "folder), and save the tokenizer there too"
    )


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("model*.safetensors")) or any(folder.glob("pytorch_model*.bin"))


def _refuse_no_config(path: str) -> None:
    """Refuse a path that transformers would take for a Hub id or another sort of file."""
    folder = Path(path)
    if folder.is_file():
        raise UserError(f"{path}: it is a file; a model is a folder with config.json and weights")
    if not folder.is_dir():
        return
    file = folder / "config.json"
    if not file.is_file():
        raise UserError(f"{path}: it has no config.json, so it is not the folder of a model")
    try:
        read = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not valid JSON: {' '.join(str(error).split())}") from error
    if not isinstance(read, dict):
        raise UserError(f"{file}: wanted an object of settings, got {str(read)[:40]!r}")


def _check_kind(path: str, config: PretrainedConfig) -> None:
    text = config.get_text_config()
    both_ways = getattr(text, "is_decoder", True) is False
    if config.is_encoder_decoder or (both_ways and text.model_type not in _CAUSAL_ANYWAY):
        raise UserError(
            f"{path}: a model of type {text.model_type} does not generate from left to right; use "
            "a causal language model"
        )


def _has_the_weights() -> bool:
    """Under FSDP one process per machine reads the weights; the others get theirs at the start."""
    under_fsdp = os.environ.get("ACCELERATE_USE_FSDP") == "true"
    return not under_fsdp or os.environ.get("LOCAL_RANK", "0") == "0"


def _check_keys(path: str, loaded: PreTrainedModel, info: Mapping[str, Any]) -> None:
    """Refuse missing weights, which would be random, and those of another model."""
    sizes = [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]]
    buffers = {name for name, _ in loaded.named_buffers()}
    unexpected = [
        key for key in info["unexpected_keys"] if key not in buffers and not _NO_WEIGHTS.search(key)
    ]
    kind = type(loaded).__name__
    for keys, what in (
        (sizes, f"do not have the size that a {kind} of this config.json has"),
        (info["missing_keys"], f"of a {kind} are not in its files and would be random"),
        (unexpected, f"in its files do not belong to a {kind}"),
    ):
        if keys:
            named = ", ".join(sorted(keys)[:3]) + (", ..." if len(keys) > 3 else "")
            raise UserError(f"{path}: {len(keys)} weights {what}: {named}")
    if info["error_msgs"]:
        raise UserError(f"{path}: {' '.join(str(info['error_msgs'][0]).split())}")


def _check_finite(path: str, loaded: PreTrainedModel) -> None:
    for name, weight in loaded.named_parameters():
        if weight.device.type != "meta" and not all_finite([weight.detach()]):
            raise _not_finite(path, name)


def _not_finite(path: str, name: str) -> UserError:
    return UserError(
        f"{path}: {name} has weights that are not finite (NaN or infinity): the training that "
        "wrote them diverged, or the file is damaged; use another checkpoint"
    )


@contextmanager
def _in_one_line(path: str, what: str, model: Model | None = None) -> Iterator[None]:
    """Turn any error that a library raises for a model's files into one line that names them.

    Every exception is caught, because architectures raise all kinds (KeyError, AssertionError,
    ZeroDivisionError, ...). An error about memory is raised as it is.
    """
    try:
        yield
    except (UserError, OutsideError):
        raise
    except Exception as error:
        if memory.said(error, "") is not None:
            raise
        said = " ".join(str(error).split())[:300]
        if model is not None and _OF_ATTENTION.search(said):
            raise UserError(
                f"model.attn_implementation: {model.attn_implementation!r} does not work with "
                f"{path}: {said}; set it to eager"
            ) from error
        kind = "" if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: "
        raise UserError(f"{path}: {what}: {kind}{said}") from error
