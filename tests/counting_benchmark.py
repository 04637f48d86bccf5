"""A benchmark of two questions without right answers: a score is the length of an answer."""

from selm.evaluation.base import Answering, Benchmark, Measured, Measuring, Workload
from selm.evaluation.held_out import greedy
from selm.generation.respond import Answered, respond

PROMPTS = ("Count to three.", "Count to five.")


def answer(asked: Answering) -> Answered:
    blank = {"chosen": None, "rejected": None, "columns": {}, "tools": None}
    texts = [[{"role": "user", "content": text}] for text in PROMPTS]
    rows = [{"prompt_id": f"c{n}", "prompt": prompt} | blank for n, prompt in enumerate(texts)]
    return respond(rows, asked.policy, greedy(asked.recipe), asked.t, asked.folder, asked.what)


def measure(asked: Measuring) -> Measured:
    lengths = {row["prompt_id"]: len(row["responses"][0]) for row in asked.answers[asked.t]}
    rows = [
        {"prompt_id": key, "part": "", "score": float(length), "details": "{}"}
        for key, length in lengths.items()
    ]
    mean = sum(lengths.values()) / len(lengths)
    return Measured({"length": {"value": mean, "standard_error": None}}, rows, files={"a.txt": "b"})


COUNTING = Benchmark(
    revision=1,
    measure=measure,
    workload=lambda recipe: Workload(2, 2, text_tokens=9.0, answer_tokens=20.0),
    answer=answer,
)
