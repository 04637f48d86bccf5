"""The engine that runs anywhere: `model.generate` on left-padded batches sorted by length."""

from collections.abc import Sequence

import torch
from tqdm import tqdm
from transformers import (
    AutoModelForCausalLM,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from selm.chat import load_chat
from selm.errors import UserError
from selm.generation import Response
from selm.recipe import Generation, Model


class TransformersEngine:
    """A policy in the recipe's dtype, on the GPU if there is one."""

    def __init__(self, path: str, model: Model, generation: Generation) -> None:
        self.chat = load_chat(path, model)
        self.settings = generation
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.policy = AutoModelForCausalLM.from_pretrained(
                path,
                revision=model.revision if path == model.name_or_path else None,
                dtype=getattr(torch, model.dtype),
                attn_implementation=model.attn_implementation,
                trust_remote_code=model.trust_remote_code,
            ).to(self.device)
        except OSError as error:
            raise UserError(f"{path}: no model can be loaded: {error}") from error
        self.policy.eval()
        self.stop_ids = self.chat.stop_ids(self.policy.generation_config)
        context = self.policy.config.get_text_config().max_position_embeddings
        self.max_prompt_tokens = context - generation.max_tokens

    def generate(self, prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[Response]:
        """See `Engine`. Long prompts first: memory runs out at once or not at all."""
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        found: dict[int, Response] = {}
        size = self.settings.batch_size
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        one = len(batches) == 1
        for batch in tqdm(batches, desc="batches", unit="batch", leave=False, disable=one):
            responses = self._batch([prompts[i] for i in batch], [seeds[i] for i in batch])
            found |= dict(zip(batch, responses, strict=True))
        return [found[i] for i in range(len(prompts))]

    @torch.inference_mode()
    def _batch(self, prompts: list[list[int]], seeds: list[int]) -> list[Response]:
        width = max(len(ids) for ids in prompts)
        pad = self.chat.tokenizer.pad_token_id
        input_ids = torch.tensor([[pad] * (width - len(ids)) + ids for ids in prompts])
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
        output = self.policy.generate(
            input_ids.to(self.device),
            attention_mask=mask.to(self.device),
            max_new_tokens=self.settings.max_tokens,
            do_sample=False,
            # greedy here: what is random is drawn in the processors, row by row
            temperature=None,
            top_p=None,
            top_k=None,
            num_beams=1,
            repetition_penalty=1.0,
            eos_token_id=self.stop_ids,
            pad_token_id=pad,
            logits_processor=self._sampling(seeds),
        )
        return [self._response(ids) for ids in output[:, width:].tolist()]

    def _sampling(self, seeds: list[int]) -> LogitsProcessorList:
        if self.settings.temperature == 0:
            return LogitsProcessorList()
        warpers = [TemperatureLogitsWarper(self.settings.temperature)]
        if self.settings.top_p < 1:
            warpers.append(TopPLogitsWarper(self.settings.top_p))
        return LogitsProcessorList([*warpers, GumbelNoise(seeds)])

    def _response(self, ids: list[int]) -> Response:
        """Cut at the first stop token; what follows it is padding."""
        for position, token in enumerate(ids):
            if token in self.stop_ids:
                return Response(self.chat.text(ids[:position]), "stop", position + 1)
        return Response(self.chat.text(ids), "length", len(ids))


class GumbelNoise(LogitsProcessor):
    """Makes greedy decoding an exact sample: argmax(logits + Gumbel noise) ~ softmax(logits).

    Each row draws from a generator of its own, so its sample does not depend on its batch.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = torch.stack(
            [
                torch.empty(scores.shape[-1]).exponential_(generator=generator)
                for generator in self.generators
            ]
        )
        return scores.float() - noise.log().to(scores.device)
