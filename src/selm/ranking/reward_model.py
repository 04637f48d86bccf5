"""Reward models: a transformer with one output, which scores each response by itself."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selm import progress
from selm.errors import UserError
from selm.model.shape import shape_of
from selm.ranking.base import Facts, Pool, Ranker, RankerKind
from selm.ranking.batches import TOKENS_PER_BATCH, batches
from selm.ranking.preflight import check_hub, readable
from selm.ranking.refused import PromptRefused
from selm.recipe.places import is_local_path
from selm.recipe.schema import Ranking

if TYPE_CHECKING:  # the description is read where nothing heavy is imported
    from selm.ranking.reward_model_parts import Encoded


class RewardModelRanker(Ranker):
    """A reward model in the recipe's dtype, on the GPU if there is one."""

    def __init__(self, ranking: Ranking) -> None:
        import torch

        from selm.ranking.reward_model_parts import load_encoder, load_model

        self.settings = ranking
        self.encoder = load_encoder(ranking)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = load_model(ranking, self.device)
        budget = ranking.tokens_per_batch
        self.tokens_per_batch = TOKENS_PER_BATCH[self.device] if budget == "auto" else budget
        self.model.config.use_cache = False
        self.pad = self.model.config.get_text_config().pad_token_id

    def score(self, pools: Sequence[Pool]) -> list[list[float]]:
        """See `Ranker`. Computes each distinct text of a prompt once, sorted by length.

        Raises:
            PromptRefused: the template refuses a prompt.
            UserError: a score is not a number, or the output is not one number per text.
        """
        encoded: dict[tuple[int, str], Encoded] = {}
        for i, pool in enumerate(pools):
            try:
                for text in dict.fromkeys(pool.texts):
                    encoded[i, text] = self.encoder.encode(pool.prompt, text)
            except UserError as error:
                message = f"{error}, for the prompt {pool.prompt_id}"
                raise PromptRefused(message, pool.prompt_id) from error
        self._warn(list(encoded.values()))
        scores = dict(zip(encoded, self._scores(list(encoded.values())), strict=True))
        for (i, _), score in scores.items():
            if not math.isfinite(score):
                raise UserError(
                    f"{self.settings.name_or_path}: the score {score} for the prompt "
                    f"{pools[i].prompt_id} is not a number; "
                    f"{self.settings.section}.dtype=float32 may help"
                )
        return [[scores[i, text] for text in pool.texts] for i, pool in enumerate(pools)]

    def _warn(self, encoded: Sequence["Encoded"]) -> None:
        cuts = Counter(text.cut for text in encoded)
        if cuts["prompt"] or cuts["response"]:
            progress.say(
                f"{self.settings.name_or_path}: {len(encoded) - cuts['']} of {len(encoded)} texts "
                f"are longer than its {self.encoder.limit} tokens and lost their start, "
                f"{cuts['response']} of them also a part of the response"
            )

    def _scores(self, encoded: Sequence["Encoded"]) -> list[float]:
        groups = batches([len(text.ids) for text in encoded], self.tokens_per_batch)
        found: dict[int, float] = {}
        with progress.Bar(len(encoded), "scoring", "text", inner=True) as bar:
            for group in groups:
                found |= dict(zip(group, self._batch([encoded[i] for i in group]), strict=True))
                bar.update(len(group))
        return [found[i] for i in range(len(encoded))]

    def _batch(self, texts: Sequence["Encoded"]) -> list[float]:
        """One forward over right-padded texts."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        def padded(rows: Sequence[Sequence[int]], pad: int = 0) -> torch.Tensor:
            tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
            return pad_sequence(tensors, batch_first=True, padding_value=pad).to(self.device)

        ids = [text.ids for text in texts]
        inputs = {
            "input_ids": padded(ids, self._pad_token(ids)),
            "attention_mask": padded([(1,) * len(row) for row in ids]),
        }
        if texts[0].token_types:
            inputs["token_type_ids"] = padded([text.token_types for text in texts])
        with torch.inference_mode():
            output = self.model(**inputs)
        key = self.settings.output_key or "logits"
        if key not in output:
            raise self.settings.error(
                "output_key",
                f"the output of {self.settings.name_or_path} has no {key!r}; "
                f"it has {', '.join(output)}",
            )
        scores = output[key]
        if tuple(scores.shape) not in ((len(texts),), (len(texts), 1)):
            raise self.settings.error(
                "output_key",
                f"{key!r} of {self.settings.name_or_path} has the shape "
                f"{tuple(scores.shape)} for {len(texts)} texts; wanted one number for each",
            )
        return scores.float().reshape(-1).tolist()

    def _pad_token(self, ids: Sequence[Sequence[int]]) -> int:
        """The config's padding token; decoders score at the last token that is not padding.

        Without one in the config, the last token is the end, whatever it is. Then the padding is a
        token that is in no text of this batch.
        """
        if self.pad is not None:
            return self.pad
        held = {token for row in ids for token in row}
        pad = next(token for token in range(len(held) + 1) if token not in held)
        self.model.config.get_text_config().pad_token_id = pad
        return pad


def _check(ranking: Ranking) -> None:
    if not ranking.name_or_path:
        raise ranking.error(
            "name_or_path",
            "missing (a model with one output, such as Skywork/Skywork-Reward-V2-Llama-3.1-8B)",
        )


def _look(ranking: Ranking, pools: Sequence[Pool]) -> None:
    """Tokenize the prompts, and for a model in a folder check names and shapes of its weights."""
    from selm.ranking.reward_model_parts import load_encoder, load_model

    name = ranking.name_or_path or ""
    if not is_local_path(name):
        check_hub(ranking, name)
    encoder = load_encoder(ranking)

    def read(pool: Pool) -> None:
        try:
            encoder.encode(pool.prompt, pool.texts[0])
        except UserError as error:
            raise UserError(f"{error}, for the prompt {pool.prompt_id}") from error

    readable(pools, read)
    if is_local_path(name) and not ranking.trust_remote_code:  # foreign code may want real numbers
        load_model(ranking, "meta")


def _facts(ranking: Ranking, pools: Sequence[Pool], verdicts: Path | None) -> Facts:
    from selm.ranking.reward_model_parts import load_encoder

    return load_encoder(ranking).facts(pools)


def _parameters(ranking: Ranking) -> float:
    shape = shape_of(ranking.name_or_path or "", ranking.revision)
    return shape.parameters if shape else 0.0


REWARD_MODEL = RankerKind(
    load=lambda ranking, seed, verdicts: RewardModelRanker(ranking),
    pairwise=RewardModelRanker.pairwise,
    keys=frozenset({"name_or_path", "revision", "dtype", "output_key", "trust_remote_code"}),
    model=lambda ranking: ranking.name_or_path,
    on_gpu=True,
    check=_check,
    look=_look,
    facts=_facts,
    parameters=_parameters,
    tokens=lambda candidates, prompt, response: candidates * (prompt + response),
)
