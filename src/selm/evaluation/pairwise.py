"""The benchmark `pairwise`: each policy against every earlier one, as in Fig. 2 of the paper.

It reads answers that are there already: those to AlpacaEval's instructions if `benchmarks.names`
has alpaca_eval, or else those to the held-out prompts. The results of all policies are a matrix.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selm.data.columns import columns_of
from selm.data.counting import held_out_rows
from selm.data.drops import Drops, row_name
from selm.data.schemas import BenchmarkRow, ResponseRow
from selm.errors import UserError
from selm.evaluation import alpaca_data
from selm.evaluation.annotator import TEMPLATE_TOKENS, Pair, preferences, ranker_facts
from selm.evaluation.base import Benchmark, Measure, Measured, Measuring, Workload
from selm.ranking.kinds import label
from selm.recipe.schema import Recipe
from selm.run.stages import benchmarked_iterations

if TYPE_CHECKING:  # it imports numpy
    from selm.evaluation.compared import Compared

ALPACA = "alpaca_eval"


def reads(recipe: Recipe, t: int) -> list[tuple[str, int]]:
    """The answers of policy t and of every earlier one that is benchmarked."""
    stage = f"benchmarks/{ALPACA}/answers" if _is_of_alpaca(recipe) else "answers"
    return [(stage, i) for i in sorted({*benchmarked_iterations(recipe), t}) if i <= t]


def measure(asked: Measuring) -> Measured:
    """Win rates against each earlier policy; nothing if there is none."""
    recipe = asked.recipe
    judge = label(recipe.benchmark_judge())
    earlier = sorted(i for i in asked.answers if i < asked.t)
    if not earlier:
        note = f"No policy before iteration {asked.t} is benchmarked, so there is none to compare."
        return Measured({}, [], judge=judge, notes=[note])
    known = alpaca_data.Reference()
    if _is_of_alpaca(recipe):
        table = alpaca_data.reference(recipe, alpaca_data.instructions(recipe))
        known = alpaca_data.Reference(table.difficulties)  # the gamed ones met another opponent
    measures: dict[str, Measure] = {}
    rows: list[BenchmarkRow] = []
    notes: list[str] = []
    dropped, annotation, rankers = Drops(), {}, {}
    for i in earlier:
        compared, unmatched = _compared(asked, i)
        measures |= {f"{name}_vs_{i}": m for name, m in compared.measures(known).items()}
        rows += compared.rows(part=str(i))
        notes += [note for note in compared.notes(known) if note not in notes]
        dropped = dropped + compared.dropped + unmatched
        annotation[str(i)] = compared.facts()
        rankers[str(i)] = ranker_facts(compared.pairs, recipe, asked.verdicts)
    facts = {"annotation": annotation, "rankers": rankers}
    return Measured(measures, rows, judge, notes, dropped, facts=facts)


def _compared(asked: Measuring, i: int) -> tuple["Compared", Drops]:
    """Policy t beside policy i, and the prompts that one of them has not answered."""
    from selm.evaluation.compared import Compared, check_some
    from selm.evaluation.length_control import FOLDS, check_installed

    recipe = asked.recipe
    pairs, unmatched = pairs_of(asked.answers[asked.t], asked.answers[i])
    pairs = pairs[: recipe.benchmarks.limit]
    if len(pairs) >= FOLDS:
        check_installed()
    folder, what = Path(asked.folder) / f"vs-{i}", f"{asked.what}, against {i}"
    found = preferences(pairs, recipe, folder, asked.verdicts, what)
    compared = Compared(pairs, found, f"iteration {i}")
    check_some(compared, recipe)
    return compared, unmatched


def pairs_of(
    answers: Sequence[ResponseRow], others: Sequence[ResponseRow]
) -> tuple[list[Pair], Drops]:
    """The answers to the same prompts, and the prompts that only one side has answered."""
    by_id: Mapping[str, ResponseRow] = {row["prompt_id"]: row for row in others}
    pairs, dropped = [], Drops()
    for row in answers:
        other = by_id.get(row["prompt_id"])
        if other is None:
            dropped.add("not_answered_by_both", row_name(row))
            continue
        texts = row["responses"][0], other["responses"][0]
        pairs.append(Pair(row["prompt_id"], row["prompt"], *texts, columns_of(row)))
    own = {row["prompt_id"] for row in answers}
    for row in others:
        if row["prompt_id"] not in own:
            dropped.add("not_answered_by_both", row_name(row))
    return pairs, dropped


def _is_of_alpaca(recipe: Recipe) -> bool:
    return ALPACA in recipe.benchmarks.names


def _references(recipe: Recipe) -> Mapping[str, Path]:
    if not _is_of_alpaca(recipe):
        return {}
    return {
        name: path
        for file in (alpaca_data.QUESTIONS, alpaca_data.TABLE)
        for name, path in alpaca_data.local_files(recipe, file).items()
    }


def _workload(recipe: Recipe) -> Workload:
    """The mean over the policies: the first has no opponent, the last has all others."""
    count = alpaca_data.count(recipe) if _is_of_alpaca(recipe) else held_out_rows(recipe)
    count = min(count, recipe.benchmarks.limit or count)
    opponents = (len(benchmarked_iterations(recipe)) - 1) / 2
    given = recipe.estimate
    response = min(given.response_tokens, recipe.generation.max_tokens)
    return Workload(
        questions=round(count * opponents),
        texts=0,
        text_tokens=0,
        requests=round(count * opponents),
        request_tokens=TEMPLATE_TOKENS + given.prompt_tokens + 2 * response + 1,
    )


def _check(recipe: Recipe) -> None:
    names = recipe.benchmarks.names
    first = next((name for name in names if name in ("pairwise", ALPACA)), ALPACA)
    if _is_of_alpaca(recipe) and first != ALPACA:
        raise UserError(f"benchmarks.names: put {ALPACA} before pairwise, which reads its answers")


PAIRWISE = Benchmark(
    revision=1,
    measure=measure,
    workload=_workload,
    reads=reads,
    references=_references,
    settings=lambda recipe: {"answers_of": ALPACA if _is_of_alpaca(recipe) else "held_out"},
    judged=True,
    check=_check,
)
