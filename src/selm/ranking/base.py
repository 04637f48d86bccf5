"""The interface of rankers (pools in, scores out), and the description of a kind.

This file and the descriptions import no torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from selm.data.schemas import FinishReason, Message
from selm.recipe.schema import Ranking

Prompt = Sequence[Message]

Columns = Mapping[str, Any]

Matrix = list[list[float]]

Facts = dict[str, int | float]

Scores = tuple[list[float], list[list[float]]]  # of a pool: the ranker's, and by member


@dataclass(frozen=True)
class Candidate:
    """One response in the pool of a prompt.

    Attributes:
        source: its writer: "chosen" or "rejected" of the dataset, the policy, the base model.
        finish_reason: "length" if the response was truncated at the token limit.
    """

    text: str
    source: Literal["chosen", "rejected", "policy", "base"]
    finish_reason: FinishReason = "stop"


@dataclass(frozen=True)
class Pool:
    """A prompt and the candidates that are compared.

    Attributes:
        columns: what else the row holds (`data.columns`); most rankers ignore it.
    """

    prompt_id: str
    prompt: Prompt
    candidates: Sequence[Candidate]
    columns: Columns = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        return [candidate.text for candidate in self.candidates]


class Ranker(ABC):
    """Scores the candidates of each pool; higher is better.

    Attributes:
        pairwise: a score has a meaning only beside the other candidates of its prompt (PairRM);
            otherwise it has a meaning by itself (a reward).
        tie: if `pairwise`, the score of a candidate that is compared only with equal texts.
    """

    pairwise = False
    tie = 0.0

    @abstractmethod
    def score(self, pools: Sequence[Pool]) -> list[list[float]]:
        """`scores_P_N[p][n]` for candidate n of pool p; N may differ from pool to pool."""

    def score_by_member(self, pools: Sequence[Pool]) -> list[Scores]:
        """The scores of each pool, and `[r][n]`, the score that member r gave candidate n.

        A ranker that is not an ensemble is its own only member.
        """
        return [(scores_N, [scores_N]) for scores_N in self.score(pools)]


@dataclass(frozen=True)
class Question:
    """One user message to an LLM.

    Attributes:
        prompt_id: names the row that it is about in messages.
        logprobs: ask for the log-probs of the first token, too.
    """

    text: str
    prompt_id: str
    max_tokens: int
    logprobs: bool = False


@dataclass(frozen=True)
class Reply:
    """What an LLM said.

    Attributes:
        finish_reason: the endpoint's, or "content_filter" (it refused) or "too_long" (the question
            exceeds the model's context); with these two `text` is what the endpoint said.
        logprobs: of the likeliest first tokens, by text; None if the endpoint gives none.
    """

    text: str
    finish_reason: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    logprobs: Mapping[str, float] | None = None


class Asker(Protocol):
    """An LLM that is asked. Every reply is kept when it arrives, and nothing is asked twice."""

    def ask(self, questions: Sequence[Question]) -> list[Reply]:
        """The replies in order.

        Raises:
            UserError: the endpoint refuses to answer, or keeps failing.
        """
        ...


@dataclass(frozen=True)
class Said:
    """What a judge said of a pool's first two candidates, shown in one order.

    Attributes:
        who: the judge.
        first_shown: index of the candidate that was shown first.
        winner: index of the one that won; None for neither.
        outcome: the judge's, such as `tie` or `refusal`.
        text: the start of its answer.
    """

    who: str
    first_shown: int
    winner: int | None
    outcome: str
    text: str


def _nothing(*_: Any) -> None:
    return None


def _zero(*_: Any) -> float:
    return 0.0


@dataclass(frozen=True)
class RankerKind:
    """What the rest of the code knows of a kind of ranker.

    Attributes:
        load: the ranker of a section, by the recipe's seed and the folder of kept verdicts.
        pairwise: see `Ranker`.
        keys: keys of the section that decide its scores, beside `ranker`. A recipe that sets any
            other key is refused, because it would have no effect.
        model: name or path of the model that it loads, if it loads one.
        on_gpu: it is faster on a GPU, so `workers: auto` is one for each GPU.
        files: key of the section -> path of a file that is read, beside the model's folder.
        check: UserError for a section that cannot work; it does not read the model.
        look: UserError if the ranker cannot score the given pools of the dataset. It runs before
            hours of work, so it loads no weights from the Hub.
        facts: counts from scoring pools, for the manifest.
        parameters: number of its model's parameters; 0 without a model or with an unknown size.
        tokens: tokens that its model reads for a pool, from the number of candidates and the mean
            tokens of a prompt and of a response.
        limited: it has limits that hold for each worker, so `workers: auto` is one.
        said: for each pool, what is kept of its words about the first two candidates; it asks
            nobody. None for a kind that only gives numbers.
        asker: its LLM, which benchmarks ask in their own words, by the folder of kept replies; None
            for a ranker that is no LLM.
    """

    load: Callable[[Ranking, int, Path | None], Ranker]
    pairwise: bool
    keys: frozenset[str] = frozenset()
    model: Callable[[Ranking], str | None] = _nothing
    on_gpu: bool = False
    files: Callable[[Ranking], dict[str, str]] = lambda ranking: {}
    check: Callable[[Ranking], None] = _nothing
    look: Callable[[Ranking, Sequence[Pool]], None] = _nothing
    facts: Callable[[Ranking, Sequence[Pool], Path | None], Facts] | None = None
    parameters: Callable[[Ranking], float] = _zero
    tokens: Callable[[int, float, float], float] = _zero
    limited: bool = False
    asker: Callable[[Ranking, Path | None], Asker] | None = None
    said: Callable[[Ranking, Sequence[Pool], Path | None], list[list[Said]]] | None = None


def scores_of(comparisons_N_N: Matrix) -> list[float]:
    """score_i = mean over j of M[i,j] - M[j,i]; the diagonal counts as a comparison of 0.

    >>> scores_of([[0.0, 3.0], [-1.0, 0.0]])
    [2.0, -2.0]
    """
    n = len(comparisons_N_N)
    return [
        sum(comparisons_N_N[i][j] - comparisons_N_N[j][i] for j in range(n)) / n for i in range(n)
    ]
