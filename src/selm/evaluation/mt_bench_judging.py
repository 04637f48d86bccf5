"""What MT-Bench's judge is asked, what it said, and both in FastChat's form for other programs."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selm.data.columns import columns_of
from selm.data.schemas import ResponseRow
from selm.evaluation.mt_bench_data import QUESTIONS, REFERENCES, TURNS, WITH_REFERENCE
from selm.evaluation.rating import read_rating
from selm.ranking.base import Question, Reply
from selm.ranking.texts import filled

TEMPLATES = Path(__file__).with_name("templates")
RATING_TOKENS = 2048  # at most, as published: the judge explains itself before it rates
UNREAD = -1  # FastChat's score for a rating that is none; its own tables leave it out


@dataclass(frozen=True)
class Ask:
    """A question to the judge about the answer to one turn.

    Attributes:
        turn: 1 or 2.
        template: name of the file in `templates/`.
        reference: the file that holds the reference to which the answer is compared, if any.
    """

    row: ResponseRow
    turn: int
    template: str
    question: Question
    reference: str | None

    @property
    def category(self) -> str:
        return str(columns_of(self.row)["category"])


@dataclass(frozen=True)
class Rated:
    """An answer that was rated; `score` is None if there is a reason for which it has none."""

    ask: Ask
    reply: Reply
    score: float | None
    reason: str


def asks(answers: Sequence[ResponseRow], by_gpt4: Mapping[str, list[str]]) -> list[Ask]:
    """The questions about both answers of every row.

    Args:
        by_gpt4: question id -> reference answers; without them the short ones of the row count.
    """
    return [_ask(row, turn, by_gpt4) for row in answers for turn in range(1, TURNS + 1)]


def _ask(row: ResponseRow, turn: int, by_gpt4: Mapping[str, list[str]]) -> Ask:
    """With references in the categories that need them, if there are any for what is shown."""
    columns, source = columns_of(row), REFERENCES
    references = by_gpt4.get(row["prompt_id"])
    if references is None:
        references, source = columns.get("reference", []), QUESTIONS
    references = [text.strip() for text in references]
    compared = columns["category"] in WITH_REFERENCE and any(references[:turn])
    values: dict[str, str] = {}
    for n, (message, answer) in enumerate(zip(row["prompt"], row["responses"], strict=True), 1):
        values |= {f"question_{n}": message["content"], f"answer_{n}": answer}
    for n, reference in enumerate(references, 1):
        values[f"reference_{n}"] = reference or "(none)"
    name = f"mt_bench_turn_{turn}{'_reference' if compared else ''}"
    template = (TEMPLATES / f"{name}.txt").read_text(encoding="utf-8")
    text = filled(template, values)
    question = Question(text, row["prompt_id"], RATING_TOKENS)
    return Ask(row, turn, name, question, source if compared else None)


def rated(ask: Ask, reply: Reply) -> Rated:
    """The rating in a reply, or why there is none."""
    if reply.finish_reason == "too_long":
        return Rated(ask, reply, None, "too_long_for_judge")
    if reply.finish_reason == "content_filter":
        return Rated(ask, reply, None, "refused_by_judge")
    score = read_rating(reply.text)
    return Rated(ask, reply, score, "rating_not_read" if score is None else "")


def model_answers(answers: Sequence[ResponseRow], model: str) -> str:
    """FastChat's `model_answer/<model>.jsonl`, without times, so that it is always the same."""
    return _jsonl([_model_answer(row, model) for row in answers])


def _model_answer(row: ResponseRow, model: str) -> dict[str, Any]:
    texts = json.dumps([model, row["prompt_id"], row["responses"]])
    return {
        "question_id": columns_of(row)["question_id"],
        "answer_id": hashlib.sha256(texts.encode()).hexdigest()[:22],
        "model_id": model,
        "choices": [{"index": 0, "turns": row["responses"]}],
    }


def judgments(ratings: Sequence[Rated], model: str, judge: str) -> str:
    """FastChat's `model_judgment/<judge>_single.jsonl`, without times."""
    return _jsonl(
        [
            {
                "question_id": columns_of(each.ask.row)["question_id"],
                "model": model,
                "judge": [judge, each.ask.template],
                "user_prompt": each.ask.question.text,
                "judgment": each.reply.text,
                "score": UNREAD if each.score is None else each.score,
                "turn": each.ask.turn,
            }
            for each in ratings
        ]
    )


def _jsonl(lines: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)
