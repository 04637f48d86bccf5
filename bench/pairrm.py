"""Pairs per second of PairRM, ours beside the original's way of batching.

    python bench/pairrm.py [--data FILE ...] [--shape small|large] [--rows N] [--json FILE]

The original's way (llm-blender 0.0.2): batches of 8 prompts in the order of the dataset, every
ordered pair of candidates a forward, padded to the batch's longest, the room for candidates by the
batch's longest prompt. Both ways start from the same texts and end at logits, with the same random
weights in one process, in turns; tokenising counts. The default shape is a small DeBERTa-v3, about
two minutes on two idle cores; `large` has PairRM's own 0.4B parameters (minutes for a pair).

On a CPU half of the difference is memory: the original's larger tensors are given back to the
kernel and zeroed again at every operation. With scripts/cpu_settings.sh glibc keeps them;
`MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184 python bench/pairrm.py`
measures what remains, which is mostly the padding.

Without --data the texts are those of the quickstart's data, strung together to lengths as they
were measured on 500 chat preferences (words, log-normal: prompts 30, responses 200 in the middle).
--data: JSONL files with prompt, chosen, rejected, read as the training data are.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path

import sentencepiece
import torch
from safetensors.torch import save_file
from texts import QUICKSTART, Row, load
from transformers import DebertaV2Config

from selm.ranking.base import Candidate, Pool
from selm.ranking.pairrm import MARKERS, Comparison, PairRMRanker, cut
from selm.ranking.pairrm_model import DEBERTA_V3, PairRM

SHAPES = {  # hidden, intermediate, layers, heads
    "small": (256, 1024, 2, 4),
    "large": (1024, 4096, 24, 16),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--rows", type=int, default=32, help="prompts, two candidates each")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()

    rows = load(arguments.data, 10 * arguments.rows)
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), arguments.shape, rows)
        ranker = PairRMRanker(folder)
    rows = rows[: arguments.rows]
    describe(ranker, rows)

    ways: dict[str, Callable[[Sequence[Row]], list[float]]] = {
        "original": lambda part: original_way(ranker, part),
        "ours": lambda part: our_way(ranker, part),
    }
    for way in ways.values():
        way(rows[:8])  # the first calls allocate and compile
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(arguments.rounds):
        for name in sorted(ways, reverse=turn % 2 == 1):
            started = time.perf_counter()
            ways[name](rows)
            seconds[name].append(time.perf_counter() - started)
            print(f"round {turn + 1}, {name:8}: {2 * len(rows) / seconds[name][-1]:8.2f} pairs/s")
    report(seconds, rows, ranker, arguments)


def our_way(ranker: PairRMRanker, rows: Sequence[Row]) -> list[float]:
    """Logits of (chosen, rejected) and (rejected, chosen) of every row."""
    pools = [
        Pool(
            str(n),
            [{"role": "user", "content": prompt}],
            [Candidate(text, "policy") for text in texts],
        )
        for n, (prompt, texts) in enumerate(rows)
    ]
    matrices = ranker.compare(pools)
    return [matrix[i][j] for matrix in matrices for i, j in ((0, 1), (1, 0))]


def original_way(ranker: PairRMRanker, rows: Sequence[Row], batch_size: int = 8) -> list[float]:
    """The same in the original's batches."""
    logits = [0.0] * (2 * len(rows))
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        for order, (i, j) in enumerate(permutations(range(2))):
            found = ranker.logits(original_pairs(ranker, batch, i, j))
            logits[2 * start + order : 2 * (start + len(batch)) : 2] = found
    return logits


def original_pairs(ranker: PairRMRanker, batch: Sequence[Row], i: int, j: int) -> list[Comparison]:
    source_limit, candidate_limit = (
        ranker.published.source_limit,
        ranker.published.candidate_limit,
    )
    sources = [cut(ids, source_limit) for ids in encode(ranker, [row[0] for row in batch], 0)]
    limit = candidate_limit + (source_limit - max(map(len, sources))) // 2
    first = encode(ranker, [row[1][i] for row in batch], 1)
    second = encode(ranker, [row[1][j] for row in batch], 2)
    return [
        Comparison(source, cut(a, limit), cut(b, limit))
        for source, a, b in zip(sources, first, second, strict=True)
    ]


def encode(ranker: PairRMRanker, texts: Sequence[str], marker: int) -> list[list[int]]:
    marked = [MARKERS[marker] + text for text in texts]
    return [encoding.ids for encoding in ranker.published.tokenizer.encode_batch(marked)]


def write_model(folder: Path, shape: str, rows: Sequence[Row]) -> None:
    """Random weights in the transformers layout, and a tokenizer trained on the texts."""
    lines = [
        line for prompt, candidates in rows for t in (prompt, *candidates) for line in t.split("\n")
    ]
    with (folder / "spm.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=file,
            vocab_size=16000,
            hard_vocab_limit=False,
            **{"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3},
            **{"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]"},
            unk_piece="[UNK]",
            minloglevel=2,
        )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    hidden, intermediate, layers, heads = SHAPES[shape]
    config = DebertaV2Config(
        **DEBERTA_V3,
        vocab_size=len(pieces) + 5,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        position_buckets=256,
    )
    ids = {
        f"{name}_prefix_id": len(pieces) + 1 + n
        for n, name in enumerate(("source", "cand1", "cand2"))
    }
    (folder / "config.json").write_text(
        json.dumps(config.to_dict() | ids | {"n_tasks": 1}), encoding="utf-8"
    )
    torch.manual_seed(0)
    save_file(PairRM(config, n_tasks=1).state_dict(), folder / "model.safetensors")


def describe(ranker: PairRMRanker, rows: Sequence[Row]) -> None:
    """What the rows are, and how much of the original's work is padding."""
    batches = [
        original_pairs(ranker, rows[start : start + 8], i, j)
        for start in range(0, len(rows), 8)
        for i, j in permutations(range(2))
    ]
    lengths = [len(pair) for batch in batches for pair in batch]
    padded = sum(len(batch) * max(map(len, batch)) for batch in batches)
    print(
        f"{len(rows)} prompts, {len(lengths)} pairs, tokens per pair: mean "
        f"{sum(lengths) / len(lengths):.0f}, median {sorted(lengths)[len(lengths) // 2]}, longest "
        f"{max(lengths)}; the original computes {padded / sum(lengths):.2f} times as many"
    )


def report(
    seconds: dict[str, list[float]],
    rows: Sequence[Row],
    ranker: PairRMRanker,
    arguments: argparse.Namespace,
) -> None:
    rates = {name: 2 * len(rows) * len(s) / sum(s) for name, s in seconds.items()}
    rounds = [a / b for a, b in zip(seconds["original"], seconds["ours"], strict=True)]
    ratio = rates["ours"] / rates["original"]
    print(
        f"ours {rates['ours']:.2f}, original {rates['original']:.2f} pairs/s: {ratio:.2f} times, "
        f"{min(rounds):.2f} to {max(rounds):.2f} in single rounds ({ranker.device}, "
        f"{torch.get_num_threads()} threads, {ranker.dtype}, shape {arguments.shape})"
    )
    if arguments.json:
        found = {
            "pairs_per_second_ratio": round(ratio, 3),
            "pairs_per_second_ratio_by_round": [round(r, 3) for r in rounds],
            "pairs_per_second": {name: round(rate, 3) for name, rate in rates.items()},
            "prompts": len(rows),
            "shape": arguments.shape,
            "data": [str(file) for file in arguments.data or [QUICKSTART.name]],
            "device": ranker.device,
            "dtype": ranker.dtype,
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "glibc_keeps_memory": "MALLOC_TRIM_THRESHOLD_" in os.environ,
            "torch": torch.__version__,
        }
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
