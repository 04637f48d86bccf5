"""The interface of benchmarks: questions in, measures out.

A benchmark has two artifacts for each policy. Its `answers` are made by the recipe's engine; its
`results` are read from them, by a judge or by rule. A benchmark without answers of its own, such as
the tasks of lm-eval, measures the policy itself. This file and the descriptions import no torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from selm.data.drops import Drops
from selm.data.schemas import BenchmarkRow, ResponseRow
from selm.recipe.schema import Recipe

if TYPE_CHECKING:  # descriptions are read where nothing heavy is imported
    from selm.generation.respond import Answered


class Measure(TypedDict):
    """A number with the standard error of its mean, which is None if it is not known."""

    value: float
    standard_error: float | None


@dataclass(frozen=True)
class Answering:
    """A policy that is about to answer a benchmark's questions.

    Attributes:
        policy: what `from_pretrained` loads.
        folder: where finished shards are kept.
        what: label of the progress bar.
    """

    recipe: Recipe
    t: int
    policy: str
    folder: Path
    what: str


@dataclass(frozen=True)
class Measuring(Answering):
    """A policy that is about to be measured.

    Attributes:
        answers: iteration -> its answers, of the artifacts that `Benchmark.reads` names.
        verdicts: folder in which a judge keeps what it said.
    """

    answers: Mapping[int, Sequence[ResponseRow]]
    verdicts: Path


@dataclass(frozen=True)
class Measured:
    """What a benchmark found out about a policy.

    Attributes:
        measures: name -> measure; the first one stands in the report's table.
        rows: the score of every question.
        judge: who judged, None for a benchmark that needs no judge.
        notes: what a reader must know to compare the measures, a sentence each.
        dropped: reason -> questions without a score.
        tokens: that the policy read and wrote for the results; not those of its answers.
        facts: further facts as JSON values, such as the version of a task.
        files: name -> text of further files for other programs.
    """

    measures: Mapping[str, Measure]
    rows: Sequence[BenchmarkRow]
    judge: str | None = None
    notes: Sequence[str] = ()
    dropped: Drops = field(default_factory=Drops)
    tokens: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Workload:
    """What a benchmark takes for one policy, for the plan; tokens are means.

    Attributes:
        questions: their number.
        texts: texts that the policy reads.
        text_tokens: tokens of each.
        answer_tokens: tokens that the policy writes for each text; 0 if only log-probs are read.
        requests: to the judge, if an LLM judges.
        request_tokens: tokens of each request with its reply.
    """

    questions: int
    texts: int
    text_tokens: float
    answer_tokens: float = 0.0
    requests: int = 0
    request_tokens: float = 0.0


def _nothing(recipe: Recipe) -> None:
    return None


@dataclass(frozen=True)
class Benchmark:
    """What the rest of the code knows of a benchmark. Reading it imports nothing heavy.

    Attributes:
        revision: raise it if questions or scoring change; older artifacts are then stale.
        measure: the results of a policy.
        workload: what the plan says of it.
        answer: the policy's answers and the dropped questions; None if `measure` asks the policy.
        reads: (stage, iteration) of the answers that `measure` reads; None: its own, of the same t.
        files: paths on this disk that hold its questions, by a name; their content counts.
        references: the same of what only `measure` reads, such as the right answers.
        settings: further settings of the recipe that decide the results.
        judged: whether `benchmarks.judge`, or else the recipe's ranker, judges the answers.
        check: UserError for a recipe with which it cannot work.
    """

    revision: int
    measure: Callable[[Measuring], Measured]
    workload: Callable[[Recipe], Workload]
    answer: "Callable[[Answering], Answered] | None" = None
    reads: Callable[[Recipe, int], list[tuple[str, int]]] | None = None
    files: Callable[[Recipe], Mapping[str, Path]] = lambda recipe: {}
    references: Callable[[Recipe], Mapping[str, Path]] = lambda recipe: {}
    settings: Callable[[Recipe], Mapping[str, Any]] = lambda recipe: {}
    judged: bool = False
    check: Callable[[Recipe], None] = _nothing

    @property
    def asks_policy(self) -> bool:
        """Whether `measure` loads the policy itself."""
        return self.answer is None and self.reads is None
