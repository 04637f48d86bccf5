"""Make pairrm.json.gz: what the original PairRM package says of the weights of pairrm_weights.py.

    python3.11 -m venv golden-env
    golden-env/bin/pip install llm-blender==0.0.2 transformers==4.42.4 torch==2.5.1 "numpy<2" \\
        "accelerate<1" sentencepiece==0.2.3
    golden-env/bin/python tests/golden/make_pairrm_golden.py

In an environment of its own: the package does not import with a current transformers. Python up to
3.12, CPU, about two minutes. `--tokenizer` first trains pairrm_spm.model anew; the file that is
committed was made that way. Everything is asked at batch size 1, the only one at which the
original's answer depends on the example alone.
"""

# ruff: noqa: RUF001 - ambiguous characters are what it is about

import argparse
import gzip
import json
import random
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import pairrm_weights as small  # noqa: E402

TEXT = HERE.parents[1] / "recipes" / "smollm2-135m-instruct" / "data" / "train.jsonl"

# Full-width letters, ligatures, combining characters, other scripts, characters that no vocabulary
# has, control characters, all sorts of space.
UNICODE = (
    "ﬁne ﬂow Ｆｕｌｌ ｗｉｄｔｈ ① Ⅷ ½ ㎞",
    "cafe\u0301 café naïve Ầ A\u0302\u0300 각 \u1100\u1161\u11a8",
    "你好，世界。 Привет, мир! שלום مرحبا สวัสดี",
    "😀 👩‍👧 🇫🇷 ☃ \U0001f9ff \U000e0041",
    "a\u00a0b\u3000c\u2003d\u200be\u00adf\ufeffg\u2028h",
    "tab\there\r\nnew\n\n\nlines\x00\x07\x1f end  of   it \n",
    "　 leading and trailing \u2009",
    "“quotes” — dashes… ‘single’ ﷺ",
)


def words(rng: random.Random, count: int) -> str:
    """Text of about so many tokens, with punctuation and line breaks."""
    common = ("the", "sea", "is", "a", "cold", "and", "old", "friend", "of", "every", "red", "fox")
    odd = ("however,", "42", "3.14", "(see)", "don't", "e-mail", "x_y", "\n", "\n\n- ", "Zürich")
    return " ".join(rng.choice(odd if rng.random() < 0.2 else common) for _ in range(count))


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def chat(*texts: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]


def cases_at_small_limits(rng: random.Random) -> list[dict]:
    """Every length around limits of 40 and 16 tokens, and every odd text."""
    cases = []
    for prompt_words in (1, 5, 10, 20, 30, 36, 37, 38, 39, 40, 41, 42, 60):
        lengths = rng.sample(range(1, 60), 3)
        cases.append(case(user(words(rng, prompt_words)), [words(rng, n) for n in lengths]))
    for text in UNICODE:
        cases.append(case(user(text), [rng.choice(UNICODE), text + " yes", "no " + text]))
    cases += [
        case(user(""), ["", "a"]),
        case(user(" \n "), [" ", "b", ""]),
        case(user("Same?"), ["yes", "yes"]),
        case(user("Same?"), ["yes", "no", "yes", "no"]),
        case(user("One?"), ["alone"]),
        case(user("Five?"), ["1", "22", "333", "4444", "55555"]),
        case(user("A [SEP] B[SEP]C"), ["[SEP]", "x[SEP][SEP]y", "[ SEP ]"]),
        case(user("[CLS] [MASK]"), ["[PAD] a", "[UNK][CLS]", "[sep]"]),
        case(user("About <|candidate|> tokens"), ["<source> a", "<|source |>", "< |candidate1|>"]),
        # behind the limits a marker is cut off before it can be found twice
        case(user(words(rng, 50) + " <|source|> x"), ["a", words(rng, 60) + "<|candidate1|>"]),
        case(chat("Hi", "Hello", "More"), ["Sure", "No way, never"]),
        case(chat("Hi", "", "More", "b c", "End?"), ["Sure", "", "Sure Sure"]),
        case(chat(words(rng, 20), words(rng, 20), "So?"), [words(rng, 9), words(rng, 30)]),
    ]
    return cases


def cases_at_published_limits(rng: random.Random) -> list[dict]:
    """Short ones, and a few beyond the limits of 1224 and 412 tokens."""
    lengths = {5: (3, 7, 60), 60: (900, 40), 1300: (500, 450)}
    cases = [
        case(user(words(rng, prompt_words)), [words(rng, n) for n in candidates])
        for prompt_words, candidates in lengths.items()
    ]
    long = chat(words(rng, 200), words(rng, 150), words(rng, 40))
    return [*cases, case(user(UNICODE[2]), list(UNICODE[:3])), case(long, ["Yes.", words(rng, 90)])]


def case(prompt: list[dict[str, str]], candidates: list[str]) -> dict:
    return {"prompt": prompt, "candidates": candidates}


def train_tokenizer() -> None:
    """Unigram with byte pieces, the special tokens' names and ids of DeBERTa-v3."""
    import sentencepiece

    rows = [json.loads(line) for line in TEXT.read_text(encoding="utf-8").splitlines()]
    texts = [message["content"] for row in rows for message in row["chosen"]]
    lines = [line for text in texts for line in text.split("\n")] + list(UNICODE[2:3])
    with small.SENTENCEPIECE.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=file,
            vocab_size=small.VOCABULARY,
            model_type="unigram",
            character_coverage=0.999,
            byte_fallback=True,
            num_threads=1,
            **{"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3},
            **{"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]"},
            unk_piece="[UNK]",
            minloglevel=2,
        )


def original(folder: Path, limits: str, n_tasks: int):
    """The package's ranker with our weights."""
    import llm_blender
    from transformers import AutoConfig, AutoModel

    encoder = folder / "encoder"
    small.write_encoder(encoder)
    # The package wants weights for the encoder, too; it overwrites them.
    AutoModel.from_config(AutoConfig.from_pretrained(encoder)).save_pretrained(encoder)
    ranker = small.write_package(folder / limits, encoder, limits, n_tasks)
    blender = llm_blender.Blender(llm_blender.BlenderConfig(device="cpu", use_tqdm=False))
    blender.loadranker(str(ranker))
    loaded = blender.ranker.state_dict()
    assert {n: v.numpy().tobytes() for n, v in loaded.items()} == {
        n: v.tobytes() for n, v in small.weights(n_tasks).items()
    }
    return blender


def answers(blender, found: dict) -> dict:
    """The case with `comparisons` (N x N) and `scores` (N)."""
    prompt, candidates = found["prompt"], found["candidates"]
    if len(prompt) > 1:
        return found | conversation_answers(blender, prompt, candidates)
    source = prompt[0]["content"]
    batch = blender.ranker_collator([{"source": source, "candidates": candidates}])
    batch = {name: tensor for name, tensor in batch.items() if tensor is not None}
    comparisons = blender.ranker._full_predict(**batch)["logits"][0].tolist()
    scores = blender.rank([source], [candidates], return_scores=True, batch_size=1)[0].tolist()
    return found | {"comparisons": comparisons, "scores": scores}


def conversation_answers(blender, prompt: list[dict[str, str]], candidates: list[str]) -> dict:
    """By `compare_conversations`, pair by pair; scores only where it gives any, for two."""

    def compared(a: str, b: str, mode: str) -> float:
        before = [{"role": m["role"].upper(), "content": m["content"]} for m in prompt]
        first, second = ([*before, {"role": "ASSISTANT", "content": t}] for t in (a, b))
        logits = blender.compare_conversations(
            [first], [second], batch_size=1, return_logits=True, mode=mode
        )
        return float(logits[0])

    comparisons = [
        [0.0 if i == j else compared(a, b, "[A,B]") for j, b in enumerate(candidates)]
        for i, a in enumerate(candidates)
    ]
    found: dict = {"comparisons": comparisons, "scores": None}
    if len(candidates) == 2:
        difference = compared(*candidates, "[A,B]+[B,A]")
        found["scores"] = [difference / 2, -difference / 2]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", action="store_true", help="train pairrm_spm.model first")
    if parser.parse_args().tokenizer:
        train_tokenizer()

    import torch

    rng = random.Random(1)
    made = []
    for limits, n_tasks, cases in (
        ("small", 3, cases_at_small_limits(rng)),
        ("published", 1, cases_at_published_limits(rng)),
    ):
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            blender = original(Path(folder), limits, n_tasks)
            rows = [answers(blender, found) for found in cases]
        weights = small.digest(small.weights(n_tasks))
        made.append({"limits": limits, "n_tasks": n_tasks, "weights": weights, "cases": rows})
    logits = [
        abs(m) for part in made for row in part["cases"] for r in row["comparisons"] for m in r
    ]
    print(f"{len(logits)} comparisons, the largest {max(logits):.2f}")
    with gzip.GzipFile(HERE / "pairrm.json.gz", "wb", mtime=0) as file:
        file.write(json.dumps(made, ensure_ascii=False, indent=1).encode())


if __name__ == "__main__":
    main()
