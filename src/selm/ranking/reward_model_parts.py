"""The parts of a reward model: the encoder of prompt and response, its config, its weights."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import find_adapter_config_file, logging

from selm.errors import UserError
from selm.escape import one_line, well_formed
from selm.model.template import render, takes_system, without_system
from selm.ranking.base import Facts, Pool, Prompt
from selm.ranking.batches import DTYPES
from selm.recipe.schema import Ranking

# The errors of transformers for damaged or foreign folders.
_LOADING = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError, ImportError, RuntimeError),
    *(ArithmeticError, EOFError, UnpicklingError, SafetensorError, StrictDataclassError),
)

# Of a language model's head, and buffers that older versions saved: no score depends on them.
_WITHOUT_EFFECT = re.compile(r"(^|\.)(lm_head\..*|position_ids|inv_freq|masked_bias)$")


@dataclass(frozen=True)
class Encoded:
    """Model inputs of one prompt and response.

    Attributes:
        token_types: for models that separate text pairs by them, otherwise empty.
        cut: "prompt" if the prompt lost its start because the text was too long, "response" if it
            was removed and the response lost its start too. The end of a response is kept.
    """

    ids: tuple[int, ...]
    token_types: tuple[int, ...] = ()
    cut: Literal["", "prompt", "response"] = ""


class Encoder:
    """Prompt and response to tokens, by the reward model's own chat template.

    A tokenizer without a template (OpenAssistant's DeBERTa) gets prompt and response as a text
    pair; the turns of a longer conversation start with their roles.

    Attributes:
        limit: tokens that the model can read.
        vocabulary: ids that it has embeddings for, if that is known.
        key: of the recipe, for errors.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, limit: int, vocabulary: int | None, key: str
    ) -> None:
        self.tokenizer, self.limit, self.vocabulary = tokenizer, limit, vocabulary
        self.key = key
        self.is_chat = tokenizer.chat_template is not None
        self.takes_system = self.is_chat and takes_system(tokenizer)
        tokenizer.truncation_side = "left"

    def encode(self, prompt: Prompt, response: str) -> Encoded:
        """Raises UserError if the chat template refuses the conversation, or for an unknown id."""
        prompt = [{**m, "content": well_formed(m["content"] or "")} for m in prompt]
        how = self._chat if self.is_chat else self._pair
        found = how(prompt, well_formed(response))
        if self.vocabulary is not None and max(found.ids, default=0) >= self.vocabulary:
            name = self.tokenizer.name_or_path
            raise UserError(
                f"{self.key}: the tokenizer of {name} gives the id {max(found.ids)}, but "
                f"the model has embeddings for {self.vocabulary}"
            )
        return found

    def facts(self, pools: Sequence[Pool]) -> Facts:
        """How many texts there are, and how many were truncated, without refused ones."""
        cuts: Counter[str] = Counter()
        for pool in pools:
            for text in set(pool.texts):
                with suppress(UserError):  # reported when it was scored
                    cuts[self.encode(pool.prompt, text).cut] += 1
        return {
            "texts": cuts.total(),
            "cut_prompts": cuts["prompt"] + cuts["response"],
            "cut_responses": cuts["response"],
        }

    def _chat(self, prompt: Prompt, response: str) -> Encoded:
        messages = [*prompt, {"role": "assistant", "content": response}]
        if not self.takes_system:
            messages = list(without_system(messages))
        try:
            text = render(self.tokenizer, messages, add_generation_prompt=False)
        except TemplateError as error:
            roles = ", ".join(message["role"] for message in messages)
            raise UserError(
                f"{self.key}: the chat template of {self.tokenizer.name_or_path} refuses "
                f"{roles}: {one_line(str(error), most=200)}"
            ) from error
        ids = self.tokenizer.encode(text, add_special_tokens=False, verbose=False)
        if len(ids) <= self.limit:
            return Encoded(tuple(ids))
        lead = 1 if ids[0] == self.tokenizer.bos_token_id else 0
        kept = [*ids[:lead], *ids[len(ids) - self.limit + lead :]]
        needed = len(self.tokenizer.encode(response, add_special_tokens=False))
        return Encoded(tuple(kept), cut="response" if needed > self.limit - lead else "prompt")

    def _pair(self, prompt: Prompt, response: str) -> Encoded:
        asked = prompt[0]["content"]
        if len(prompt) > 1:
            asked = "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt)
        whole = self._tokens(asked, response)
        if len(whole.ids) <= self.limit:
            return whole
        needed = len(self._tokens("", response).ids)
        if needed < self.limit:
            cut = self._tokens(asked, response, "only_first")
            return Encoded(cut.ids, cut.token_types, "prompt")
        cut = self._tokens("", response, "only_second")
        return Encoded(cut.ids, cut.token_types, "response" if needed > self.limit else "prompt")

    def _tokens(self, first: str, second: str, truncation: str | bool = False) -> Encoded:
        found = self.tokenizer(
            first,
            second,
            truncation=truncation,
            max_length=self.limit if truncation else None,
            verbose=False,
        )
        return Encoded(tuple(found["input_ids"]), tuple(found.get("token_type_ids", ())))


def load_encoder(ranking: Ranking) -> Encoder:
    """The reward model's tokenizer, and how much its model can read."""
    config = load_config(ranking)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            ranking.name_or_path,
            revision=ranking.revision,
            trust_remote_code=ranking.trust_remote_code,
        )
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise _unloadable(ranking, error) from error
    settings = config.get_text_config().to_dict()
    limits = [tokenizer.model_max_length, settings.get("max_position_embeddings")]
    limit = min(int(limit) for limit in limits if limit is not None)
    return Encoder(tokenizer, limit, settings.get("vocab_size"), f"{ranking.section}.name_or_path")


def load_config(ranking: Ranking) -> PretrainedConfig:
    """The config of a model with one output, or with the one that `output_key` names."""
    try:
        if find_adapter_config_file(ranking.name_or_path, revision=ranking.revision) is not None:
            raise ranking.error(
                "name_or_path",
                f"{ranking.name_or_path} is an adapter "
                "(adapter_config.json); merge it into its base model (merge_and_unload of peft) "
                "and name the merged model",
            )
        config = AutoConfig.from_pretrained(
            ranking.name_or_path,
            revision=ranking.revision,
            trust_remote_code=ranking.trust_remote_code,
        )
    except _LOADING as error:
        raise _unloadable(ranking, error) from error
    if config.num_labels != 1 and ranking.output_key is None:
        raise ranking.error(
            "name_or_path",
            f"{ranking.name_or_path} has {config.num_labels} outputs, but a reward model has one; "
            f"for a custom head name its output in {ranking.section}.output_key",
        )
    return config


def load_model(ranking: Ranking, device: str) -> PreTrainedModel:
    """The model, with every weight from the checkpoint: a missing head would be random.

    Args:
        device: cpu, cuda, or meta to read only the weights' names and shapes.
    """
    dtype = DTYPES.get(device, "float32") if ranking.dtype == "auto" else ranking.dtype
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what does not fit is said below, in one line
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            ranking.name_or_path,
            revision=ranking.revision,
            dtype=getattr(torch, dtype),
            trust_remote_code=ranking.trust_remote_code,
            device_map="meta" if device == "meta" else None,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, by name
        )
    except _LOADING as error:
        raise _unloadable(ranking, error) from error
    finally:
        logging.set_verbosity(verbosity)
    _check_weights(ranking, info)
    return model.eval() if device == "meta" else model.to(device).eval()


def _check_weights(ranking: Ranking, info: Mapping[str, Any]) -> None:
    wrong = sorted(info["missing_keys"]) + [key for key, *_ in info["mismatched_keys"]]
    if wrong:
        raise ranking.error(
            "name_or_path",
            f"{ranking.name_or_path} is not a trained reward model: "
            f"{_some(wrong)} are missing in its weights or have another shape",
        )
    unknown = sorted(key for key in info["unexpected_keys"] if not _WITHOUT_EFFECT.search(key))
    if unknown:
        raise ranking.error(
            "name_or_path",
            f"{ranking.name_or_path}: {_some(unknown)} of its weights do "
            "not belong to the model of its config.json",
        )


def _some(keys: Sequence[str]) -> str:
    return f"{', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"


def _unloadable(ranking: Ranking, error: Exception) -> UserError:
    reason = one_line(" ".join(str(error).split()), most=300) or type(error).__name__
    if "trust_remote_code" in reason:
        key = f"{ranking.section}.trust_remote_code"
        reason = f"it has its own code; read it, then set {key}=true"
    return ranking.error("name_or_path", f"{ranking.name_or_path} cannot be loaded: {reason}")
