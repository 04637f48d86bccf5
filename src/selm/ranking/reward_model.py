"""Reward models: a transformer with one output, which scores each response by itself."""

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
from tqdm import tqdm
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
from selm.ranking.base import Columns, Prompt
from selm.ranking.batches import DTYPES, TOKENS_PER_BATCH, batches
from selm.ranking.refused import PromptRefused
from selm.recipe.schema import Ranking

# What damaged or foreign folders make transformers raise.
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
        token_types: for models that tell text pairs apart by them, else empty.
        cut: what was too long for the model: the prompt lost its start, or all of it went and the
            response lost its start too. The end of a response is never cut.
    """

    ids: tuple[int, ...]
    token_types: tuple[int, ...] = ()
    cut: Literal["", "prompt", "response"] = ""


class Encoder:
    """Prompt and response to tokens, by the reward model's own chat template.

    A tokenizer without a template (OpenAssistant's DeBERTa) gets prompt and response as a text
    pair, turns of a longer conversation each behind its role.

    Attributes:
        limit: tokens that the model can read.
        vocabulary: ids that it has embeddings for, if that is known.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, limit: int, vocabulary: int | None = None
    ) -> None:
        self.tokenizer, self.limit, self.vocabulary = tokenizer, limit, vocabulary
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
                f"ranking.name_or_path: the tokenizer of {name} gives the id {max(found.ids)}, and "
                f"the model has embeddings for {self.vocabulary}"
            )
        return found

    def facts(
        self, prompts: Sequence[Prompt], candidates: Sequence[list[str]]
    ) -> dict[str, int | float]:
        """How many texts there are, and how many of them were cut; refused ones do not count."""
        pairs = {(i, text) for i, texts in enumerate(candidates) for text in texts}
        cuts: Counter[str] = Counter()
        for i, text in pairs:
            with suppress(UserError):  # said when it was to be scored
                cuts[self.encode(prompts[i], text).cut] += 1
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
                f"ranking.name_or_path: the chat template of {self.tokenizer.name_or_path} refuses "
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


class RewardModelRanker:
    """A reward model in the recipe's dtype, on the GPU if there is one."""

    pairwise = False

    def __init__(self, ranking: Ranking) -> None:
        self.settings = ranking
        self.encoder = load_encoder(ranking)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = load_model(ranking, self.device)
        budget = ranking.tokens_per_batch
        self.tokens_per_batch = TOKENS_PER_BATCH[self.device] if budget == "auto" else budget
        self.model.config.use_cache = False
        self.pad = self.model.config.get_text_config().pad_token_id

    def score(
        self,
        prompt_ids: Sequence[str],
        prompts: Sequence[Prompt],
        candidates: Sequence[list[str]],
        columns: Sequence[Columns] | None = None,
    ) -> list[list[float]]:
        """See `Ranker`. Each distinct text of a prompt is computed once, in batches of like length.

        Raises:
            PromptRefused: the template refuses a prompt.
            UserError: a score is no number, or the model's output is not one number per text.
        """
        encoded: dict[tuple[int, str], Encoded] = {}
        for i, (prompt, texts) in enumerate(zip(prompts, candidates, strict=True)):
            try:
                for text in dict.fromkeys(texts):
                    encoded[i, text] = self.encoder.encode(prompt, text)
            except UserError as error:
                prompt_id = prompt_ids[i]
                raise PromptRefused(f"{error}, for the prompt {prompt_id}", prompt_id) from error
        self._warn(list(encoded.values()))
        scores = dict(zip(encoded, self._scores(list(encoded.values())), strict=True))
        for (i, _), score in scores.items():
            if not torch.isfinite(torch.tensor(score)):
                raise UserError(
                    f"{self.settings.name_or_path}: the score {score} for the prompt "
                    f"{prompt_ids[i]} is no number; ranking.dtype=float32 may help"
                )
        return [[scores[i, text] for text in texts] for i, texts in enumerate(candidates)]

    def _warn(self, encoded: Sequence[Encoded]) -> None:
        cuts = Counter(text.cut for text in encoded)
        if cuts["prompt"] or cuts["response"]:
            tqdm.write(
                f"{self.settings.name_or_path}: {len(encoded) - cuts['']} of {len(encoded)} texts "
                f"are longer than its {self.encoder.limit} tokens and lost their start; of "
                f"{cuts['response']} that took a part of the response"
            )

    def _scores(self, encoded: Sequence[Encoded]) -> list[float]:
        groups = batches([len(text.ids) for text in encoded], self.tokens_per_batch)
        found: dict[int, float] = {}
        with tqdm(total=len(encoded), desc="scoring", unit="text", leave=False) as progress:
            for group in groups:
                found |= dict(zip(group, self._batch([encoded[i] for i in group]), strict=True))
                progress.update(len(group))
        return [found[i] for i in range(len(encoded))]

    @torch.inference_mode()
    def _batch(self, texts: Sequence[Encoded]) -> list[float]:
        """One forward over right-padded texts."""
        ids = [text.ids for text in texts]
        pad = self._pad_token(ids)
        inputs = {
            "input_ids": _padded(ids, pad),
            "attention_mask": _padded([(1,) * len(row) for row in ids], 0),
        }
        if texts[0].token_types:
            inputs["token_type_ids"] = _padded([text.token_types for text in texts], 0)
        output = self.model(**{name: tensor.to(self.device) for name, tensor in inputs.items()})
        key = self.settings.output_key or "logits"
        if key not in output:
            raise UserError(
                f"ranking.output_key: the output of {self.settings.name_or_path} has no {key!r}; "
                f"it has {', '.join(output)}"
            )
        scores = output[key]
        if tuple(scores.shape) not in ((len(texts),), (len(texts), 1)):
            raise UserError(
                f"ranking.output_key: {key!r} of {self.settings.name_or_path} has the shape "
                f"{tuple(scores.shape)} for {len(texts)} texts; wanted is one number for each"
            )
        return scores.float().reshape(-1).tolist()

    def _pad_token(self, ids: Sequence[Sequence[int]]) -> int:
        """The config's; decoders take the last token that is not it for the end of the text.

        A config without one means that the last token is the end, whatever it is. So it is padded
        with a token that no text of this batch holds.
        """
        if self.pad is not None:
            return self.pad
        held = {token for row in ids for token in row}
        pad = next(token for token in range(len(held) + 1) if token not in held)
        self.model.config.get_text_config().pad_token_id = pad
        return pad


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
    return Encoder(tokenizer, limit, settings.get("vocab_size"))


def load_config(ranking: Ranking) -> PretrainedConfig:
    """The config of a model with one output, or with the one that `output_key` names."""
    try:
        if find_adapter_config_file(ranking.name_or_path, revision=ranking.revision) is not None:
            raise UserError(
                f"ranking.name_or_path: {ranking.name_or_path} is an adapter "
                "(adapter_config.json); merge it into its base model (merge_and_unload of peft) "
                "and name the merged model"
            )
        config = AutoConfig.from_pretrained(
            ranking.name_or_path,
            revision=ranking.revision,
            trust_remote_code=ranking.trust_remote_code,
        )
    except _LOADING as error:
        raise _unloadable(ranking, error) from error
    if config.num_labels != 1 and ranking.output_key is None:
        raise UserError(
            f"ranking.name_or_path: {ranking.name_or_path} has {config.num_labels} outputs, a "
            "reward model has one; for a custom head name its output in ranking.output_key"
        )
    return config


def load_model(ranking: Ranking, device: str) -> PreTrainedModel:
    """The model, with every weight from the checkpoint: a missing head would be a random one.

    Args:
        device: cpu, cuda, or meta to look at the weights' names and shapes alone.
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
        raise UserError(
            f"ranking.name_or_path: {ranking.name_or_path} is no trained reward model: "
            f"{_some(wrong)} are missing in its weights or have another shape"
        )
    unknown = sorted(key for key in info["unexpected_keys"] if not _WITHOUT_EFFECT.search(key))
    if unknown:
        raise UserError(
            f"ranking.name_or_path: {ranking.name_or_path}: {_some(unknown)} of its weights have "
            "no place in the model of its config.json, which would be another one without them"
        )


def _some(keys: Sequence[str]) -> str:
    return f"{', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"


def _unloadable(ranking: Ranking, error: Exception) -> UserError:
    reason = one_line(" ".join(str(error).split()), most=300) or type(error).__name__
    if "trust_remote_code" in reason:
        reason = "it brings code of its own; read it, then set ranking.trust_remote_code=true"
    return UserError(f"ranking.name_or_path: {ranking.name_or_path} cannot be loaded: {reason}")


def _padded(rows: Sequence[Sequence[int]], pad: int) -> torch.Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *(pad,) * (width - len(row))] for row in rows])
