"""The engine that runs anywhere: `model.generate` on left-padded batches sorted by length."""

from collections.abc import Sequence

import torch
from torch.nn.functional import pad as pad_right
from transformers import (
    Cache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from selm import progress
from selm.generation.base import Harness, Response
from selm.model import loading
from selm.model.probe import load_chat
from selm.recipe.schema import Generation, Model, Recipe

# lm-eval's model holds two copies of a batch's logits of every token, in fp32 at most.
LOGITS_BYTES = 2**30

TOKENS_AT_A_TIME = 8  # between two looks at which answers have ended


class TransformersEngine:
    """A policy in the recipe's dtype, on the GPU if there is one."""

    def __init__(self, path: str, model: Model, generation: Generation) -> None:
        self.chat = load_chat(path, model)
        self.stop_ids = self.chat.stop_ids(loading.generation_config(path, model))
        self.settings = generation
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.policy = loading.load(path, model, dtype=getattr(torch, model.dtype)).to(self.device)
        loading.check_vocabulary(path, self.chat.tokenizer, self.policy.config)
        self.policy.eval()
        self.max_prompt_tokens = loading.most_prompt_tokens(
            self.policy.config, generation.max_tokens
        )
        # Whatever the checkpoint asks for: the recipe samples, and `_batch` needs a growing cache.
        self.policy.generation_config = GenerationConfig()

    def generate(
        self,
        prompts: Sequence[list[int]],
        seeds: Sequence[int],
        temperatures: Sequence[float] | None = None,
    ) -> list[Response]:
        """See `Engine`. The prompts of a batch have one temperature."""
        if temperatures is None:
            temperatures = [self.settings.temperature] * len(prompts)
        found: dict[int, Response] = {}
        batches = self._batches(prompts, temperatures)
        one = len(batches) == 1
        for batch in progress.each(
            batches, len(batches), "batches", "batch", inner=True, hidden=one
        ):
            responses = self._batch(
                [prompts[i] for i in batch], [seeds[i] for i in batch], temperatures[batch[0]]
            )
            found |= dict(zip(batch, responses, strict=True))
        return [found[i] for i in range(len(prompts))]

    def _batches(
        self, prompts: Sequence[list[int]], temperatures: Sequence[float]
    ) -> list[list[int]]:
        """Long prompts come first, so that memory runs out at once or not at all."""
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        size = self.settings.batch_size
        batches = []
        for temperature in dict.fromkeys(temperatures):
            its_own = [i for i in order if temperatures[i] == temperature]
            batches += [its_own[start : start + size] for start in range(0, len(its_own), size)]
        return sorted(batches, key=lambda batch: -len(prompts[batch[0]]))

    @torch.inference_mode()
    def _batch(
        self, prompts: list[list[int]], seeds: list[int], temperature: float
    ) -> list[Response]:
        """Generate; every few tokens, rows whose answers have ended leave the batch.

        The longest answer is two or three times as long as the mean, so without this most of a
        batch would be padding.
        """
        width = max(len(ids) for ids in prompts)
        pad = self.chat.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(ids)) + ids for ids in prompts])
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
        ids, mask = ids.to(self.device), mask.to(self.device)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        answers: list[list[int]] = [[]] * len(prompts)
        unfinished = list(range(len(prompts)))
        cache = None
        while unfinished:
            sampling = self._sampling([generators[row] for row in unfinished], temperature)
            ids, cache = self._go_on(ids, mask, cache, width + self.settings.max_tokens, sampling)
            for row, answer in zip(unfinished, ids[:, width:].tolist(), strict=True):
                answers[row] = answer
            stay = [i for i, row in enumerate(unfinished) if not self._ended(answers[row])]
            unfinished = [unfinished[i] for i in stay]
            if unfinished:
                ids = ids[stay]
                mask = pad_right(mask[stay], (0, ids.shape[1] - mask.shape[1]), value=1)
                cache.reorder_cache(torch.tensor(stay, device=self.device))
        return [self._response(answer) for answer in answers]

    def _go_on(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        cache: Cache | None,
        longest: int,
        sampling: LogitsProcessorList,
    ) -> tuple[torch.Tensor, Cache]:
        """Generate more tokens for each row of `ids`; the cache holds all but their last token."""
        left = longest - ids.shape[1]
        # Mamba and similar models cannot continue from a cache
        tokens = left if self.policy._is_stateful else min(left, TOKENS_AT_A_TIME)
        output = self.policy.generate(
            ids,
            attention_mask=mask,
            past_key_values=cache,
            max_new_tokens=tokens,
            return_dict_in_generate=True,
            do_sample=False,  # the randomness is drawn in the logits processors, row by row
            eos_token_id=self.stop_ids,
            pad_token_id=self.chat.tokenizer.pad_token_id,
            logits_processor=sampling,
        )
        return output.sequences, output.past_key_values

    def _sampling(
        self, generators: list[torch.Generator], temperature: float
    ) -> LogitsProcessorList:
        if temperature == 0:
            return LogitsProcessorList()
        warpers = [TemperatureLogitsWarper(temperature)]
        if self.settings.top_p < 1:
            warpers.append(TopPLogitsWarper(self.settings.top_p))
        return LogitsProcessorList([*warpers, GumbelNoise(generators)])

    def _ended(self, answer: list[int]) -> bool:
        stopped = any(token in self.stop_ids for token in answer)
        return stopped or len(answer) == self.settings.max_tokens

    def _response(self, ids: list[int]) -> Response:
        """The response up to the first stop token; the rest is padding."""
        for position, token in enumerate(ids):
            if token in self.stop_ids:
                return Response(self.chat.text(ids[:position]), "stop", position + 1)
        return Response(self.chat.text(ids, finished=False), "length", len(ids))


def load_harness(path: str, recipe: Recipe) -> Harness:
    """See `EngineKind.harness`."""
    from lm_eval.models.huggingface import HFLM

    model = recipe.model
    loading.check_files(path, model)
    policy = HFLM(
        pretrained=path,
        revision=model.revision if path == model.name_or_path else "main",
        dtype=model.dtype,
        attn_implementation=model.attn_implementation,
        trust_remote_code=model.trust_remote_code,
        device="cuda" if torch.cuda.is_available() else "cpu",
        batch_size=recipe.generation.batch_size,
    )
    vocabulary = policy.config.get_text_config().vocab_size
    return Harness(policy, tokens_at_a_time=LOGITS_BYTES // (2 * 4 * vocabulary))


class GumbelNoise(LogitsProcessor):
    """Makes greedy decoding an exact sample: argmax(logits + Gumbel noise) ~ softmax(logits).

    Each row has its own generator, so its sample does not depend on its batch.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = generators

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = torch.stack(
            [
                torch.empty(scores.shape[-1]).exponential_(generator=generator)
                for generator in self.generators
            ]
        )
        return scores.float() - noise.log().to(scores.device)
