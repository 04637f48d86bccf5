"""The benchmark `alpaca_eval`: AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475).

The policy answers 805 instructions. A judge compares each answer with that of the baseline, GPT-4
Turbo. The win rate is the mean of its preferences; the length-controlled one is what it would be if
all answers were as long as the baseline's (`length_control.py`).
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from selm.data.columns import columns_of
from selm.data.drops import row_name
from selm.data.schemas import ResponseRow
from selm.evaluation import alpaca_data
from selm.evaluation.alpaca_data import QUESTIONS, REPO, TABLE, WHOLE, Instruction
from selm.evaluation.annotator import TEMPLATE_TOKENS, Pair, preferences, ranker_facts
from selm.evaluation.base import Answering, Benchmark, Measured, Measuring, Workload
from selm.evaluation.held_out import greedy
from selm.ranking.kinds import label
from selm.recipe.schema import Recipe

if TYPE_CHECKING:  # they import what is heavy
    from selm.evaluation.compared import Compared
    from selm.generation.respond import Answered

PAPERS_JUDGE = "gpt-4-1106-preview"


def answer(asked: Answering) -> "Answered":
    """The policy's greedy answers to the instructions."""
    from selm.generation.respond import respond

    rows = [each.row for each in _asked(asked.recipe)]
    recipe = greedy(asked.recipe)
    return respond(rows, asked.policy, recipe, asked.t, asked.folder, asked.what)


def measure(asked: Measuring) -> Measured:
    """The win rates, and files in the form of the package alpaca-eval."""
    from selm.evaluation.compared import Compared, check_some, mean_length
    from selm.evaluation.length_control import FOLDS, check_installed

    recipe = asked.recipe
    known = alpaca_data.instructions(recipe)
    reference = alpaca_data.reference(recipe, known)
    wanted = known[: recipe.benchmarks.limit]
    answers = {row["prompt_id"]: row for row in asked.answers[asked.t]}
    pairs = [_pair(each, answers[each.prompt_id]) for each in wanted if each.prompt_id in answers]
    if len(pairs) >= FOLDS:
        check_installed()
    found = preferences(pairs, recipe, asked.folder, asked.verdicts, asked.what)
    compared = Compared(pairs, found, "the baseline")
    check_some(compared, recipe)

    dropped = compared.dropped
    for each in wanted:
        if each.prompt_id not in answers:
            dropped.add("not_answered", row_name(each.row))
    measures = compared.measures(reference)
    measures["length"] = mean_length([pair.output for pair in pairs])
    return Measured(
        measures=measures,
        rows=compared.rows(),
        judge=label(recipe.benchmark_judge()),
        notes=_notes(recipe, len(compared.judged)) + compared.notes(reference),
        dropped=dropped,
        facts={
            "annotation": compared.facts(),
            "rankers": ranker_facts(pairs, recipe, asked.verdicts),
            "baseline": _names(wanted),
        },
        files=_files(compared, wanted, recipe, asked.t),
    )


def _asked(recipe: Recipe) -> list[Instruction]:
    return alpaca_data.instructions(recipe)[: recipe.benchmarks.limit]


def _pair(instruction: Instruction, row: ResponseRow) -> Pair:
    output, columns = row["responses"][0], columns_of(row)
    return Pair(instruction.prompt_id, row["prompt"], output, instruction.output, columns)


def _names(wanted: Sequence[Instruction]) -> str:
    return ", ".join(sorted({each.generator for each in wanted}))


def _notes(recipe: Recipe, judged: int) -> list[str]:
    notes = []
    if judged < WHOLE:
        notes.append(f"Of AlpacaEval's {WHOLE} instructions, {judged} count here.")
    judge = recipe.benchmark_judge()
    if judge.name_or_path != PAPERS_JUDGE:
        notes.append(f"The judge is {label(judge)}, the paper's was {PAPERS_JUDGE}.")
    return notes


def _files(
    compared: "Compared", wanted: Sequence[Instruction], recipe: Recipe, t: int
) -> dict[str, str]:
    """Answers and annotations as alpaca-eval reads them; an index is a place in its dataset."""
    by_id = {each.prompt_id: (n, each) for n, each in enumerate(wanted)}
    name, judge = f"{recipe.run_name}-iter-{t}", label(recipe.benchmark_judge())
    outputs = [
        {
            "dataset": by_id[pair.prompt_id][1].dataset,
            "instruction": pair.text,
            "output": pair.output,
            "generator": name,
        }
        for pair in compared.pairs
    ]
    annotations = [
        {
            "index": by_id[each.pair.prompt_id][0],
            "dataset": by_id[each.pair.prompt_id][1].dataset,
            "instruction": each.pair.text,
            "output_1": each.pair.other,
            "generator_1": by_id[each.pair.prompt_id][1].generator,
            "output_2": each.pair.output,
            "generator_2": name,
            "annotator": judge,
            "preference": each.preference,
            "raw_completion": each.found.said,
        }
        for each in compared.judged
    ]
    return {
        "model_outputs.json": json.dumps(outputs, indent=2) + "\n",
        "annotations.json": json.dumps(annotations, indent=2) + "\n",
    }


def _workload(recipe: Recipe) -> Workload:
    count, given = alpaca_data.count(recipe), recipe.estimate
    response = min(given.response_tokens, recipe.generation.max_tokens)
    return Workload(
        questions=count,
        texts=count,
        text_tokens=given.prompt_tokens,
        answer_tokens=response,
        requests=count,
        request_tokens=TEMPLATE_TOKENS + given.prompt_tokens + 2 * response + 1,
    )


def _settings(recipe: Recipe) -> Mapping[str, Any]:
    return {"from": REPO if recipe.benchmarks.data is None else "benchmarks.data"}


ALPACA_EVAL = Benchmark(
    revision=1,
    measure=measure,
    workload=_workload,
    answer=answer,
    files=lambda recipe: alpaca_data.local_files(recipe, QUESTIONS),
    references=lambda recipe: alpaca_data.local_files(recipe, TABLE),
    settings=_settings,
    judged=True,
    check=alpaca_data.check,
)
