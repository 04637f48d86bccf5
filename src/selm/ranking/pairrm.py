"""PairRM, the paper's ranker: it reads a prompt and two candidates at once (arXiv 2306.02561).

    [CLS] <|source|> prompt [SEP] [CLS] <|candidate1|> a [SEP] [CLS] <|candidate2|> b [SEP]

It scores as `Blender.rank` of llm-blender 0.0.2 does with one example at a time. There, the room
for candidates depends on the longest prompt of the batch; here, on the example's own prompt.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, permutations
from pathlib import Path

from selm import progress
from selm.data.schemas import Message
from selm.errors import UserError
from selm.escape import well_formed
from selm.ranking.base import Matrix, Pool, Prompt, Ranker, RankerKind, scores_of
from selm.ranking.batches import DTYPES, TOKENS_PER_BATCH, batches
from selm.ranking.preflight import check_hub, readable
from selm.ranking.refused import PromptRefused
from selm.recipe.places import is_local_path
from selm.recipe.schema import Ranking

DEFAULT = "llm-blender/PairRM"  # if the recipe names none

# The tokens added to DeBERTa-v3's vocabulary, in the order of their ids. A candidate is tokenized
# after the last one, which is then exchanged for candidate1 or candidate2.
MARKERS = ("<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>")

# The instruction that PairRM was trained with for conversations, to the letter.
_CONVERSATION = (
    "Finish the following coversation in each i-th turn by filling in <Response i> "
    "with your response."
)


@dataclass(frozen=True)
class Comparison:
    """Token ids of one comparison; each part starts with [CLS] and its marker."""

    source: list[int]
    first: list[int]
    second: list[int]

    def __len__(self) -> int:
        return len(self.source) + len(self.first) + len(self.second)

    @property
    def markers(self) -> tuple[int, int, int]:
        """Positions of the three markers in the joined sequence."""
        return 1, len(self.source) + 1, len(self.source) + len(self.first) + 1


class PairRMRanker(Ranker):
    """Compares all ordered pairs of a prompt's candidates: 6 for three of them."""

    pairwise = True

    def __init__(
        self,
        name_or_path: str,
        revision: str = "main",
        dtype: str = "auto",
        tokens_per_batch: int | str = "auto",
        section: str = "ranking",
    ) -> None:
        """Load PairRM, on the GPU if there is one.

        Args:
            dtype: of the encoder; auto is float32 on a CPU and bfloat16 on a GPU. The head is
                float32 always.
            tokens_per_batch: padding included; a longer pair is a batch of its own. It changes
                speed and memory, not the result.
            section: of the recipe, for errors.

        Raises:
            UserError: see `pairrm_model.load`.
        """
        import torch

        from selm.ranking.pairrm_model import load

        self.section = section
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.published = load(name_or_path, revision, section)
        self.model = self.published.model.to(self.device)
        self.dtype = DTYPES[self.device] if dtype == "auto" else dtype
        self.model.pretrained_model.to(getattr(torch, self.dtype))
        self.tokens_per_batch = (
            TOKENS_PER_BATCH[self.device] if tokens_per_batch == "auto" else int(tokens_per_batch)
        )

    def score(self, pools: Sequence[Pool]) -> list[list[float]]:
        """See `Ranker`."""
        return [scores_of(matrix) for matrix in self.compare(pools)]

    def compare(self, pools: Sequence[Pool]) -> list[Matrix]:
        """`comparisons_P_N_N[p][i][j]`, above 0 if candidate i, shown first, beats j.

        Both orders of a pair are computed: they are different inputs.

        Raises:
            UserError: a turn is neither the user's nor the assistant's, or a logit is not a number.
        """
        rows = [rendered(pool) for pool in pools]
        rows = [(well_formed(source), [*map(well_formed, texts)]) for source, texts in rows]
        keys = {
            (p, i, j): (source, texts[i], texts[j])
            for p, (source, texts) in enumerate(rows)
            for i, j in permutations(range(len(texts)), 2)
        }
        distinct = list(dict.fromkeys(keys.values()))
        logits = dict(zip(distinct, self._compared(self._pairs(distinct)), strict=True))
        matrices = [[[0.0] * len(texts) for _ in texts] for _, texts in rows]
        for (p, i, j), key in keys.items():
            if not math.isfinite(logits[key]):
                prompt_id = pools[p].prompt_id
                raise UserError(
                    f"{self.section}.dtype: PairRM compares the candidates of {prompt_id} with "
                    f"{logits[key]}: the number is too large for {self.dtype}, or the weights "
                    "are damaged"
                )
            matrices[p][i][j] = logits[key]
        return matrices

    def _pairs(self, keys: Sequence[tuple[str, str, str]]) -> list[Comparison]:
        """Tokenize each distinct text once, then truncate to the limits.

        Each candidate also gets half of what the prompt leaves of its limit.
        """
        source_limit = self.published.source_limit
        source, first, second, candidate = MARKERS
        sources = self._encoded((key[0] for key in keys), source, MARKERS[:3])
        texts = self._encoded(chain.from_iterable(key[1:] for key in keys), candidate, MARKERS)
        pairs = []
        for prompt, a, b in keys:
            prompt_ids = cut(sources[prompt], source_limit)
            spare = source_limit - len(prompt_ids)
            limit = self.published.candidate_limit + spare // 2
            first_ids = self._marked(cut(texts[a], limit), first)
            second_ids = self._marked(cut(texts[b], limit), second)
            pairs.append(Comparison(prompt_ids, first_ids, second_ids))
        return pairs

    def _encoded(
        self, texts: Iterable[str], marker: str, forbidden: Sequence[str]
    ) -> Mapping[str, list[int]]:
        """`[CLS] marker text [SEP]` of each distinct text.

        A written [SEP] becomes a space, as in the original. Other markers written in a text are
        left out: the original fails on them, and a response must not forge another candidate.
        """
        tokenizer = self.published.tokenizer
        distinct = list(dict.fromkeys(texts))
        written = [text.replace("[SEP]", " ") for text in distinct]
        encodings = tokenizer.encode_batch([marker + text for text in written])
        drop = {tokenizer.token_to_id(name) for name in forbidden}
        encoded = {}
        for text, plain, encoding in zip(distinct, written, encodings, strict=True):
            ids = encoding.ids
            if ids[1] != tokenizer.token_to_id(marker):  # a combining character melted into it
                ids = tokenizer.encode(f"{marker} {plain}").ids
            encoded[text] = ids[:2] + [token for token in ids[2:] if token not in drop]
        return encoded

    def _marked(self, ids: list[int], marker: str) -> list[int]:
        return [ids[0], self.published.tokenizer.token_to_id(marker), *ids[2:]]

    def _compared(self, pairs: Sequence[Comparison]) -> list[float]:
        """One logit per pair, batch by batch."""
        found: dict[int, float] = {}
        made = batches([len(pair) for pair in pairs], self.tokens_per_batch)
        quiet = len(made) < 2
        with progress.Bar(len(pairs), "comparing", "pair", inner=True, hidden=quiet) as bar:
            for batch in made:
                logits = self.logits([pairs[i] for i in batch])
                found |= dict(zip(batch, logits, strict=True))
                bar.update(len(batch))
        return [found[i] for i in range(len(pairs))]

    def logits(self, pairs: Sequence[Comparison]) -> list[float]:
        """One batch, padded at its end: above 0 where the first candidate is better."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        sequences = [torch.tensor(pair.source + pair.first + pair.second) for pair in pairs]
        pad = self.model.pretrained_model.config.pad_token_id
        input_ids = pad_sequence(sequences, batch_first=True, padding_value=pad)
        lengths = torch.tensor([[len(pair)] for pair in pairs])
        with torch.inference_mode():
            logits = self.model(
                input_ids.to(self.device),
                (torch.arange(input_ids.shape[1]) < lengths).to(self.device),
                torch.tensor([pair.markers for pair in pairs]).to(self.device),
            )
        return logits.tolist()


def rendered(pool: Pool) -> tuple[str, list[str]]:
    """The texts that PairRM reads: the source and the candidates.

    One user turn is read as it is. A conversation is written as `Blender.compare_conversations`
    does: the user's turns in the source, the assistant's in the candidate.

    >>> from selm.ranking.base import Candidate
    >>> hello, again = {"role": "user", "content": "Hello"}, {"role": "user", "content": "Again"}
    >>> hi = {"role": "assistant", "content": "Hi"}
    >>> candidates = [Candidate("Good day", "policy")]
    >>> rendered(Pool("p", [hello], candidates))
    ('Hello', ['Good day'])
    >>> source, texts = rendered(Pool("p", [hello, hi, again], candidates))
    >>> source.removeprefix(_CONVERSATION)
    'USER: Hello\\nAssistant: <Response 1>\\nUSER: Again\\nAssistant: <Response 2>'
    >>> texts
    ['<Response 1>: Hi\\n<Response 2>: Good day']
    """
    asked, answered = _turns(pool.prompt_id, pool.prompt)
    if not answered:
        return asked[0], pool.texts
    questions = [f"USER: {u}\nAssistant: <Response {n}>" for n, u in enumerate(asked, start=1)]
    source = _CONVERSATION + "\n".join(questions)
    texts = [
        "\n".join(f"<Response {n}>: {a}" for n, a in enumerate([*answered, text], start=1))
        for text in pool.texts
    ]
    return source, texts


def _turns(prompt_id: str, prompt: Prompt) -> tuple[list[str], list[str]]:
    """The user's and the assistant's turns, which alternate; the first and the last are the user's.

    A system message belongs to the next user turn; neighbouring turns of one side are one turn.
    """

    def side(message: Message) -> str:
        return "user" if message["role"] == "system" else message["role"]

    turns = [
        (who, "\n\n".join(m["content"] for m in messages if m["content"]))
        for who, messages in groupby(prompt, key=side)
    ]
    strange = {who for who, _ in turns} - {"user", "assistant"}
    if strange:
        raise PromptRefused(
            f"prompt {prompt_id} has a turn of {min(strange)!r}; pairrm reads "
            "those of user and assistant",
            prompt_id,
        )
    if turns[0][0] == "assistant":
        turns.insert(0, ("user", ""))
    texts = [text for _, text in turns]
    return texts[::2], texts[1::2]


def cut(ids: list[int], limit: int) -> list[int]:
    """The first tokens, at most `limit`, with the closing [SEP].

    >>> cut([1, 8, 5, 6, 7, 2], 4)
    [1, 8, 5, 2]
    """
    return ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]


def _load(ranking: Ranking, seed: int, verdicts: Path | None) -> PairRMRanker:
    name, section = ranking.name_or_path or DEFAULT, ranking.section
    return PairRMRanker(name, ranking.revision, ranking.dtype, ranking.tokens_per_batch, section)


def _look(ranking: Ranking, pools: Sequence[Pool]) -> None:
    """Load it, but only from a folder: it is small."""
    name = ranking.name_or_path or DEFAULT
    if not is_local_path(name):
        check_hub(ranking, name)
        return
    from selm.ranking.pairrm_model import load

    load(name, ranking.revision, ranking.section)
    readable(pools, rendered)


def _tokens(candidates: int, prompt: float, response: float) -> float:
    return candidates * (candidates - 1) * min(prompt + 2 * response, 2048)


PAIRRM = RankerKind(
    load=_load,
    pairwise=PairRMRanker.pairwise,
    keys=frozenset({"name_or_path", "revision", "dtype"}),
    model=lambda ranking: ranking.name_or_path or DEFAULT,
    on_gpu=True,
    look=_look,
    parameters=lambda ranking: 435e6,
    tokens=_tokens,
)
