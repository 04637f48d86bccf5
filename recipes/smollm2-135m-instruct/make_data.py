"""Make the preference pairs that the SmolLM2 recipes start from.

    python recipes/smollm2-135m-instruct/make_data.py            # all of it
    python recipes/smollm2-135m-instruct/make_data.py --limit 12 --output /tmp/trial    # a look

The paper starts from UltraFeedback: prompts with one better and one worse answer. This makes the
same kind of data small enough for a CPU. Each prompt is a question about a topic under one
constraint of reward.py; the model that will be trained answers it several times, the reward
scores the answers, and a good and a bad one of similar length become the pair. The splits share no
topic, so the held-out reward measures whether the constraint was learned, not the subject.

The result is committed; run this only to change the task (about 10 minutes on two CPU cores).
"""

import argparse
import hashlib
import importlib.util
import itertools
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from types import ModuleType

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
MIN_GAP = 0.05  # a pair whose scores are closer teaches nothing: the prompt is sampled again
MAX_ROUNDS = 8
MAX_PROMPT_WORDS = 35
SIDES = ("chosen", "rejected")

# fmt: off
TOPICS = {
    "train": (
        "apples", "baking bread", "balloons", "beavers", "bicycles", "birthdays", "boats",
        "bridges", "butterflies", "camels", "camping", "candles", "carrots", "castles", "cats",
        "cheese", "chess", "chocolate", "clocks", "clouds", "coffee", "computers", "dancing",
        "deserts", "dolphins", "elephants", "farms", "fishing", "forests", "gardening", "glass",
        "grapes", "guitars", "honey bees", "horses", "ice cream", "islands", "kites", "libraries",
        "lighthouses", "lions", "maps", "mirrors", "mountains", "museums", "music", "onions",
        "owls", "paper", "penguins", "pianos", "pumpkins", "rain", "rivers", "robots", "salt",
        "sharks", "silk", "sleep", "snow", "soap", "soccer", "spiders", "tea", "trains",
        "trees", "umbrellas", "volcanoes", "whales", "windmills", "wolves", "zebras",
    ),
    "test": (
        "airplanes", "ants", "bamboo", "bananas", "bats", "cameras", "caves", "comets",
        "cooking", "coral reefs", "dogs", "drums", "eagles", "fire", "frogs", "giraffes",
        "hiking", "lakes", "milk", "moonlight", "olives", "painting", "pencils", "poems",
        "rabbits", "rainbows", "rice", "roses", "sailing", "schools", "stars", "swimming",
        "tigers", "tomatoes", "turtles", "wool",
    ),
}
# fmt: on


def load_reward() -> ModuleType:
    """reward.py as a module, by its path: a recipe folder is not a package."""
    spec = importlib.util.spec_from_file_location("smollm2_reward", HERE / "reward.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build_prompts(task: ModuleType, topics: tuple[str, ...], count: int, seed: int) -> list[str]:
    """`count` different prompts; kinds take turns, and each meets a topic at most once.

    "What is interesting about snow?" + "Answer in a sentence or two. " + "Do not use any commas."
    """
    rng = random.Random(seed)
    kinds, prompts = task.KINDS, []
    decks = {kind.name: rng.sample(topics, len(topics)) for kind in kinds}
    for kind in itertools.islice(itertools.cycle(kinds), count):
        question = rng.choice(task.QUESTIONS).format(decks[kind.name].pop())
        constraint = rng.choice(kind.phrasings).format(*rng.choice(kind.arguments))
        prompts.append(f"{question} {kind.brevity}{constraint}")
    rng.shuffle(prompts)
    assert all(len(task.words(prompt)) <= MAX_PROMPT_WORDS for prompt in prompts)
    return prompts


def batched(items: list[str], size: int) -> list[list[str]]:
    """`batched(["a", "b", "c"], 2) == [["a", "b"], ["c"]]`."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def contrast(better: tuple[float, str], worse: tuple[float, str]) -> float:
    """How well two scored answers teach the difference: far in score, alike in length.

    DPO learns the easiest difference first. Were the rejected answers shorter on average, that
    would be their length, and answers would grow from iteration to iteration.
    """
    lengths = [len(text.split()) for _, text in (better, worse)]
    return better[0] - worse[0] - abs(lengths[0] - lengths[1]) / max(*lengths, 1)


def pair(prompt: str, answers: list[str], scores: list[float]) -> dict | None:
    """The row of a prompt, or None where best and worst are too close to tell apart."""
    ranked = sorted(zip(scores, answers, strict=True))
    two_apart = [
        (better, worse)
        for worse, better in itertools.combinations(ranked, 2)
        if better[0] - worse[0] >= MIN_GAP
    ]
    if not two_apart or not ranked[0][1].strip():
        return None
    better, worse = max(two_apart, key=lambda two: contrast(*two))
    return {
        "prompt": prompt,
        "prompt_id": hashlib.sha256(prompt.encode()).hexdigest(),
        "chosen": [message("user", prompt), message("assistant", better[1])],
        "rejected": [message("user", prompt), message("assistant", worse[1])],
        "score_chosen": better[0],
        "score_rejected": worse[0],
    }


class Sampler:
    """Answers of the model to prompts, sampled in left-padded batches of similar length."""

    def __init__(self, args: argparse.Namespace) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.args, self.torch = args, torch
        self.tokenizer = AutoTokenizer.from_pretrained(args.model, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16)
        self.model = model.eval()

    def sample(self, prompts: list[str], seed: int) -> Iterator[tuple[str, list[str]]]:
        """(prompt, its answers), in any order."""
        self.torch.manual_seed(seed)
        by_length = sorted(prompts, key=lambda prompt: (len(prompt), prompt))
        for batch in batched(by_length, self.args.batch_size):
            answers = batched(self.answer(batch), self.args.samples)
            yield from zip(batch, answers, strict=True)

    def answer(self, prompts: list[str]) -> list[str]:
        """`samples` answers to each prompt, in order; answers that ended leave the batch."""
        from transformers import DynamicCache

        torch, ended_id = self.torch, self.tokenizer.eos_token_id
        step_ids, mask = self.encode(prompts)
        tokens = torch.full((len(step_ids), self.args.max_tokens), ended_id)
        rows, cache = torch.arange(len(step_ids)), DynamicCache(config=self.model.config)
        for step in range(self.args.max_tokens):
            positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -step_ids.shape[1] :]
            with torch.inference_mode():
                logits = self.model(
                    step_ids,
                    attention_mask=mask,
                    position_ids=positions,
                    past_key_values=cache,
                    logits_to_keep=1,
                ).logits[:, -1]
            step_ids = self.draw(logits)
            tokens[rows, step] = step_ids[:, 0]
            mask = torch.cat([mask, torch.ones_like(step_ids)], dim=1)
            going = (tokens[rows, : step + 1] != ended_id).all(-1)
            if not going.any():
                break
            if going.float().mean() < 0.8:  # shrinking the cache costs about half a step
                cache.batch_select_indices(going.nonzero()[:, 0])
                step_ids, mask, rows = step_ids[going], mask[going], rows[going]
        return [self.decode(row.tolist()) for row in tokens]

    def encode(self, prompts: list[str]) -> tuple:
        """Token ids and mask, padded on the left, each prompt `samples` times."""
        inputs = self.tokenizer.apply_chat_template(
            [[message("user", prompt)] for prompt in prompts],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        both = (inputs["input_ids"], inputs["attention_mask"])
        return tuple(tensor.repeat_interleave(self.args.samples, dim=0) for tensor in both)

    def draw(self, logits):
        """One token per row, among the `top_k` likeliest: (rows, vocabulary) -> (rows, 1)."""
        likeliest = (logits.float() / self.args.temperature).topk(self.args.top_k)
        choice = self.torch.multinomial(likeliest.values.softmax(-1), 1)
        return likeliest.indices.gather(-1, choice)

    def decode(self, ids: list[int]) -> str:
        """The text before the end of the turn."""
        end = self.tokenizer.eos_token_id
        return self.tokenizer.decode(ids[: [*ids, end].index(end)]).strip()


def make_rows(task: ModuleType, sampler: Sampler, prompts: list[str], name: str) -> list[dict]:
    """One row per prompt, in their order; prompts whose answers tie are sampled again."""
    from tqdm import tqdm

    rows: dict[str, dict] = {}
    with tqdm(total=len(prompts), desc=name, unit="prompt") as progress:
        for round_ in range(MAX_ROUNDS):
            open_prompts = [prompt for prompt in prompts if prompt not in rows]
            for prompt, answers in sampler.sample(open_prompts, seed=sampler.args.seed + round_):
                scores = task.reward([message("user", prompt)], answers)
                if row := pair(prompt, answers, scores):
                    rows[prompt] = row
                    progress.update()
    if missing := [prompt for prompt in prompts if prompt not in rows]:
        raise SystemExit(f"{len(missing)} prompts got only ties, such as: {missing[0]}")
    return [rows[prompt] for prompt in prompts]


def write_jsonl(path: Path, rows: list[dict]) -> None:
    """All or nothing: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    unfinished.write_text("".join(lines), encoding="utf-8")
    os.replace(unfinished, path)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default=str(REPOSITORY / "models/smollm2-135m-instruct"), help="who answers")
    add("--output", type=Path, default=HERE / "data", help="folder for train.jsonl, test.jsonl")
    add("--train", type=int, default=360, help="prompts in the train split (default: 360)")
    add("--test", type=int, default=120, help="prompts in the test split (default: 120)")
    add("--limit", type=int, help="at most this many prompts per split, for a trial")
    add("--samples", type=int, default=6, help="answers per prompt, to pick a pair from (6)")
    add("--temperature", type=float, default=0.7, help="of the sampling (0.7)")
    add("--top-k", type=int, default=50, help="sample among this many likeliest tokens (50)")
    add("--max-tokens", type=int, default=64, help="longer answers are cut, and score low (64)")
    add("--batch-size", type=int, default=8, help="prompts at once; changes the samples (8)")
    add("--seed", type=int, default=42, help="same seed, machine and versions: same data (42)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    task, sampler = load_reward(), Sampler(args)
    for name, count, offset in (("train", args.train, 0), ("test", args.test, 1)):
        prompts = build_prompts(task, TOPICS[name], count, args.seed + offset)[: args.limit]
        rows = make_rows(task, sampler, prompts, name)
        path = args.output / f"{name}.jsonl"
        write_jsonl(path, rows)
        chosen, rejected = (mean(row[f"score_{side}"] for row in rows) for side in SIDES)
        print(f"wrote {len(rows)} pairs to {path}: chosen {chosen:.3f}, rejected {rejected:.3f}")


if __name__ == "__main__":
    main()
