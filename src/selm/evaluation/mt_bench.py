"""The benchmark `mt_bench`: two-turn questions, each answer rated from 1 to 10 by an LLM.

Zheng et al., arXiv 2306.05685. Questions, temperatures by category, reference answers and
single-answer grading are as published; the prompts of the judge (`templates/`) are our own words.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from selm.data.drops import Drops, in_words
from selm.data.schemas import BenchmarkRow, ResponseRow
from selm.errors import UserError
from selm.evaluation import mt_bench_data as data
from selm.evaluation.base import Answering, Benchmark, Measure, Measured, Measuring, Workload
from selm.evaluation.mt_bench_judging import Rated, asks, judgments, model_answers, rated
from selm.evaluation.rating import mean_rating
from selm.ranking.kinds import KINDS, kind_of, label, naming
from selm.recipe.schema import Recipe

if TYPE_CHECKING:  # the description is read where nothing heavy is imported
    from selm.generation.respond import Answered

# Category -> of both answers to its questions.
TEMPERATURES = {
    **{"writing": 0.7, "roleplay": 0.7},
    **{"extraction": 0.0, "math": 0.0, "coding": 0.0, "reasoning": 0.0},
    **{"stem": 0.1, "humanities": 0.1},
}
OTHER_TEMPERATURE = 0.7  # FastChat's for any other category
ANSWER_TOKENS = 1024  # at most, of each answer

# For the plan, of the published questions: a turn of 202 characters has 50 tokens, and a chat
# template adds 20. A reference has 190; 30 of 80 questions have two, of which the judge sees the
# first for turn 1. Its prompt has 210 tokens beside texts and references, its reply about 200.
_TURN_TOKENS, _CHAT_TOKENS = 50, 20
_REFERENCE_TOKENS, _JUDGE_TOKENS, _REPLY_TOKENS = 190 * 1.5 * 30 / 80, 210, 200


def as_asked(recipe: Recipe) -> Recipe:
    """The recipe as MT-Bench generates with it, except for the temperatures."""
    settings = {"max_tokens": _answer_tokens(recipe), "top_p": 1.0, "num_samples": 1}
    return recipe.model_copy(update={"generation": recipe.generation.model_copy(update=settings)})


def temperature_of(category: str) -> float:
    return TEMPERATURES.get(category, OTHER_TEMPERATURE)


def _answer_tokens(recipe: Recipe) -> int:
    return min(recipe.generation.max_tokens, ANSWER_TOKENS)


def _answer(asked: Answering) -> "Answered":
    from selm.generation.converse import converse

    rows = data.questions(asked.recipe)
    temperatures = {row["prompt_id"]: temperature_of(row["columns"]["category"]) for row in rows}
    recipe = as_asked(asked.recipe)
    return converse(rows, asked.policy, recipe, asked.t, asked.folder, asked.what, temperatures)


def _measure(asked: Measuring) -> Measured:
    """Ask the judge for the ratings of both turns at once, and summarise them."""
    answers, ranking = asked.answers[asked.t], asked.recipe.benchmark_judge()
    asker = kind_of(ranking).asker
    assert asker is not None, "`check` has seen to it"
    to_ask = asks(answers, data.references(asked.recipe))
    with naming(ranking):
        replies = asker(ranking, asked.verdicts).ask([ask.question for ask in to_ask])
    ratings = [rated(ask, reply) for ask, reply in zip(to_ask, replies, strict=True)]
    dropped = _dropped(ratings)
    if sum(dropped.values()) == len(ratings):
        raise UserError(
            f"benchmarks.judge: no reply of {label(ranking)} holds a rating ({in_words(dropped)}); "
            "take another judge"
        )
    model = f"{asked.recipe.run_name}-iter-{asked.t}"
    return Measured(
        measures=_measures(ratings),
        rows=[_row(each, each.score) for each in ratings if each.score is not None],
        judge=label(ranking),
        notes=_notes(answers, ratings, dropped),
        dropped=dropped,
        facts=_facts(ratings),
        files={
            "model_answer.jsonl": model_answers(answers, model),
            "judgment.jsonl": judgments(ratings, model, str(ranking.name_or_path)),
        },
    )


def _dropped(ratings: Sequence[Rated]) -> Drops:
    """Ratings that there are not, by reason."""
    dropped = Drops()
    for each in ratings:
        if each.reason:
            dropped.add(each.reason, f"question {each.ask.row['prompt_id']}, turn {each.ask.turn}")
    return dropped


def _measures(ratings: Sequence[Rated]) -> dict[str, Measure]:
    """The mean of all ratings, of those of each turn, and of each category.

    Standard errors are over questions, not ratings: see `mean_rating`.
    """
    groups: dict[str, list[tuple[str, float]]] = {
        name: [] for name in ("average", "first_turn", "second_turn")
    }
    for each in ratings:
        if each.score is not None:
            turn = ("first_turn", "second_turn")[each.ask.turn - 1]
            for name in ("average", turn, each.ask.category):
                groups.setdefault(name, []).append((each.ask.row["prompt_id"], each.score))
    return {name: mean_rating(group) for name, group in groups.items() if group}


def _row(each: Rated, score: float) -> BenchmarkRow:
    return {
        "prompt_id": each.ask.row["prompt_id"],
        "part": f"turn {each.ask.turn}",
        "score": score,
        "details": json.dumps({"category": each.ask.category}),
    }


def _facts(ratings: Sequence[Rated]) -> dict[str, int]:
    return {
        "ratings": sum(each.score is not None for each in ratings),
        "judge_prompt_tokens": sum(each.reply.prompt_tokens for each in ratings),
        "judge_completion_tokens": sum(each.reply.completion_tokens for each in ratings),
    }


def _notes(answers: Sequence[ResponseRow], ratings: Sequence[Rated], dropped: Drops) -> list[str]:
    """What makes these figures differ from published ones."""
    notes = [
        "The judge was asked in our own words; the paper's ratings are those of GPT-4 (gpt-4-0613) "
        "to FastChat's prompts, so that the figures do not compare."
    ]
    if len(answers) < data.PUBLISHED:
        notes.append(
            f"{len(answers)} questions were answered; the published MT-Bench has {data.PUBLISHED}."
        )
    if dropped:
        notes.append(
            f"{sum(dropped.values())} of {len(ratings)} ratings are left out: {in_words(dropped)}."
        )
    second = [each.ask for each in ratings if each.ask.turn == data.TURNS]
    found = [ask.reference for ask in second if ask.category in data.WITH_REFERENCE]
    of_them = f"of {len(found)} questions in {', '.join(data.WITH_REFERENCE)}"
    if short := found.count(data.QUESTIONS):
        notes.append(
            f"For {short} {of_them} the judge had the short reference of {data.QUESTIONS} instead "
            f"of GPT-4's answers ({data.REFERENCES})."
        )
    if without := found.count(None):
        notes.append(f"For {without} {of_them} the judge had no reference.")
    other = sorted({ask.category for ask in second} - set(TEMPERATURES))
    if other:
        notes.append(
            f"Categories that the published MT-Bench does not have ({', '.join(other)}) were "
            f"answered at temperature {OTHER_TEMPERATURE}, as FastChat does."
        )
    return notes


def _workload(recipe: Recipe) -> Workload:
    """Turn 2 is read, by policy and judge, after turn 1 and its answer: so the halves."""
    questions = data.number_of_questions(recipe)
    texts, turn = data.TURNS * questions, _TURN_TOKENS + _CHAT_TOKENS
    answer = min(recipe.estimate.response_tokens, _answer_tokens(recipe))
    shown = 1.5 * (_TURN_TOKENS + answer) + _REFERENCE_TOKENS
    return Workload(
        questions=questions,
        texts=texts,
        text_tokens=1.5 * turn + answer / 2,
        answer_tokens=answer,
        requests=texts,
        request_tokens=_JUDGE_TOKENS + shown + _REPLY_TOKENS,
    )


def _check(recipe: Recipe) -> None:
    """UserError for a judge that is no LLM, and for local questions that cannot be read."""
    ranking = recipe.benchmark_judge()
    if kind_of(ranking).asker is None:
        able = " or ".join(name for name, kind in KINDS.items() if kind.asker is not None)
        raise UserError(
            f"benchmarks.judge: mt_bench needs an LLM that rates answers, which {label(ranking)} "
            f"is not; set benchmarks.judge.ranker={able}, benchmarks.judge.name_or_path to the "
            "LLM's name, and benchmarks.judge.judge.base_url to its address"
        )
    if recipe.benchmarks.data is not None:
        data.questions(recipe)
        data.references(recipe)


MT_BENCH = Benchmark(
    revision=1,
    measure=_measure,
    workload=_workload,
    answer=_answer,
    files=data.local_questions,
    references=data.local_references,
    judged=True,
    check=_check,
)
