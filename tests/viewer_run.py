"""A finished run written by hand, of any size and with any texts, for the tests of report.html."""

import random
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selm.ranking.base import Said
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Recipe
from selm.report.metrics import metrics
from selm.report.paper import Paper, Policy
from selm.report.results import Results
from selm.viewer.content import Content, content
from selm.viewer.page import MOST_BYTES, page

# Texts that would break a page that takes text for markup, or hide what they say.
HOSTILE = {
    "markup": "</script><img src=x onerror=\"document.title='hacked'\"><b>bold</b>",
    "template": "${7*7} {{7*7}} <%= 7*7 %> $title <!-- ]]>",
    "nul": "before\x00after\x1b[31m",
    "right-to-left": "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd 123",
    "override": "safe\u202etxt.exe",
    "long": "word " * 20_000,
    "emoji": "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1ee e\u0301",
    "lone": "half \ud83d of a pair",
    "empty": "",
}
WORDS = """answers of a policy that explores are often longer than those of the base model and some
of them are better because the ranker prefers what it has not seen before in the data"""


def recipe(folder: Path, iterations: int = 2) -> Recipe:
    """SELM iterations on files that are there, but empty."""
    for file in ("data.jsonl", "reward.py"):
        (folder / file).touch()
    accelerate = 'distributed_type: "NO"\nnum_processes: 1\n'
    (folder / "accelerate.yaml").write_text(accelerate, encoding="utf-8")
    text = f"""\
        run_name: by-hand
        model: {{name_or_path: a/model}}
        data: {{name_or_path: {folder}/data.jsonl}}
        ranking: {{ranker: function, name_or_path: "{folder}/reward.py:reward"}}
        training: {{accelerate_config: {folder}/accelerate.yaml}}
        iterations:
    """
    entries = "".join("  - {objective: selm, learning_rate: 1.0}\n" for _ in range(iterations))
    path = folder / "recipe.yaml"
    path.write_text(textwrap.dedent(text) + entries, encoding="utf-8")
    return load_recipe(path)


def sentence(seed: int, words: int) -> str:
    """Words in an order of their own, about as compressible as answers are."""
    draw, known = random.Random(seed), WORDS.split()
    ends = draw.choices(("", " ", ","), k=words)
    return " ".join(map("".join, zip(draw.choices(known, k=words), ends, strict=True)))


def results(
    prompts: int = 12,
    iterations: int = 2,
    answer: Callable[[int, int], str] = lambda i, t: sentence(100 * i + t, 30),
) -> Results:
    """A run of which prompt i won at iteration t where i % 3 is 0, tied at 1, lost at 2.

    Args:
        answer: (prompt, iteration) -> text.
    """
    gains = (0.5, 0.0, -0.25)
    evaluations = {
        t: [
            {
                "prompt_id": f"prompt {i}",
                "prompt": [{"role": "user", "content": f"Question number {i}?"}],
                "response": answer(i, t),
                "finish_reason": "length" if i == 1 else "stop",
                "num_tokens": 10 + i,
                "reward": 0.5 + (gains[i % 3] if t > 0 else 0.0),
                "reward_of_base": 0.5,
            }
            for i in range(prompts)
        ]
        for t in range(iterations + 1)
    }
    pairs = {t: [_pair(i, t) for i in range(3)] for t in range(1, iterations + 1)}
    log = {"loss": 0.7, "loss/dpo": 0.7, "loss/optimism": 0.01, "rewards/chosen": 0.1}
    logs = {t: [{"step": s, **log} for s in range(1, 21)] for t in pairs}
    judged = {"won": 0, "tied": None, "lost": 1}
    said = {
        1: {
            "prompt 0": [
                Said("a judge", shown, judged[outcome], outcome, f"I say {outcome}.")
                for shown, outcome in ((0, "won"), (1, "lost"))
            ]
        }
    }
    return Results(
        evaluations=evaluations,
        roles={t: Counter(row["explored_role"] for row in rows) for t, rows in pairs.items()},
        logs=logs,
        manifests=_manifests(iterations),
        benchmarks=_benchmarks(iterations),
        responses={t: [_response(i) for i in range(5)] for t in pairs},
        preferences=pairs,
        said=said,
    )


def _pair(i: int, t: int) -> dict[str, Any]:
    """The dataset's two answers, and the policy's between them: it is neither."""
    return {
        "prompt_id": f"train {i}",
        "prompt": [{"role": "user", "content": f"Task {i}"}],
        "chosen": [{"role": "assistant", "content": f"good {i}"}],
        "rejected": [{"role": "assistant", "content": f"bad {i}"}],
        "explored": f"own {i}",
        "explored_role": "neither",
        "chosen_finish_reason": "stop",
        "rejected_finish_reason": "stop",
        "explored_finish_reason": "length",
        "scores": [0.9, 0.1, 0.5],
    }


def _response(i: int) -> dict[str, Any]:
    """Of the five rows the fourth has one text only, the fifth a tie."""
    texts = (f"good {i}", f"bad {i}", f"own {i}") if i != 3 else ("same",) * 3
    good, bad, own = texts
    return {
        "prompt_id": f"train {i}",
        "prompt": [{"role": "user", "content": f"Task {i}"}],
        "chosen": [{"role": "assistant", "content": good}],
        "rejected": [{"role": "assistant", "content": bad}],
        "responses": [own],
        "finish_reasons": ["length"],
        "num_tokens": [3],
        "columns": None,
    }


def _manifests(iterations: int) -> dict[tuple[str, int], dict[str, Any]]:
    plain = {
        **{"rows": 4, "tokens": 1000, "seconds": 75.0, "dropped": {}, "inputs": {}},
        **{"git_commit": "0123456789abcdef0123456789abcdef01234567-dirty"},
        **{"versions": {"torch": "2.0"}, "revisions": {"model": "f" * 40}},
        **{"written": "2026-01-01T00:00:00Z", "command": "python scripts/x.py"},
    }
    summary = {
        "rows": 4,
        "explored_against": {"chosen": {"won": 1, "tied": 1, "lost": 2}},
        "scores": {"chosen": [0.0, 0.1, 0.2, 0.3, 0.4], "policy": [0.0, 0.2, 0.3, 0.4, 0.9]},
        "length_correlation": 0.25,
        "agreement": [{"rankers": ["the dataset", "function f"], "pairs": 8, "alike": 6}],
    }
    found: dict[tuple[str, int], dict[str, Any]] = {("answers", 0): plain, ("evaluation", 0): plain}
    for t in range(1, iterations + 1):
        dropped = {"identical_candidates": 1, "tie": 1}
        found["responses", t] = plain
        found["preferences", t] = plain | {"summary": summary, "dropped": dropped}
        found["checkpoint", t] = plain | {"inputs": {f"iter-{t}/preferences": "00"}}
        found["evaluation", t] = plain
    return found


def _benchmarks(iterations: int) -> dict[str, dict[int, dict[str, Any]]]:
    """One that the paper has, too, and a matrix."""
    result = {"judge": "a judge", "n": 805, "notes": [], "facts": {}}

    def measured(**values: float) -> dict[str, Any]:
        measures = {key: {"value": v, "standard_error": 1.0} for key, v in values.items()}
        return result | {"measures": measures}

    policies = range(iterations + 1)
    against = {t: {f"win_rate_vs_{i}": 55.0 + t for i in range(t)} for t in policies}
    return {
        "alpaca_eval": {t: measured(lc_win_rate=20.0 + t, win_rate=18.0 + t) for t in policies},
        "pairwise": {t: measured(**against[t]) for t in policies},
    }


PAPER = Paper(
    source="the paper",
    model="a/model",
    iterations=2,
    results=(
        Policy(name="SFT", iteration=0, alpaca_eval={"lc_win_rate": 8.0, "win_rate": 5.0}),
        Policy(
            name="SELM-2",
            iteration=2,
            objective="selm",
            alpaca_eval={"lc_win_rate": 24.0, "win_rate": 22.0},
        ),
    ),
)


def content_of(folder: Path, found: Results) -> Content:
    iterations = len(found.preferences)
    made = recipe(folder, iterations)
    return content(made, metrics(made, found), found, PAPER)


def page_of(folder: Path, found: Results, most_bytes: int = MOST_BYTES) -> Path:
    """The file report.html of these results."""
    path = folder / "report.html"
    path.write_text(page(content_of(folder, found), most_bytes), encoding="utf-8")
    return path
