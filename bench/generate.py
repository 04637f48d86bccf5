"""The generation stage beside the bare engine: what shards, resuming and workers cost or gain.

    python bench/generate.py [RECIPE] [--prompts N] [--workers 1 2] [--json FILE] [key=value ...]

The same prompts of the recipe's first portion, answered by its base model: by one call of the
engine with all token ids at once, and by `respond` as scripts/generate.py calls it, in shards that
are written to disk, with each number of workers. Every way has a process of its own, in turns; its
time is from a loaded library to the last answer, the loading of the model included.
"""

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from tables import spread

from selm.recipe.loading import load_recipe
from selm.recipe.schema import Recipe

QUICKSTART = Path(__file__).parents[1] / "recipes/smollm2-135m-instruct/selm.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", nargs="?", default=str(QUICKSTART))
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--prompts", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--way", help=argparse.SUPPRESS)  # what a process of its own does
    arguments = parser.parse_intermixed_args()
    if arguments.way:
        print(json.dumps(measure(arguments)))
        return
    ways = ["engine", *(f"stage, workers={count}" for count in arguments.workers)]
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for turn in range(arguments.rounds):
        for way in sorted(ways, reverse=turn % 2 == 1):
            command = [sys.executable, *sys.argv, "--way", way]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {turn + 1}, {way:18}: {found[way][-1]['seconds']:.1f} s", flush=True)
    report(found, arguments)


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds and generated tokens of one way."""
    from selm.data.portions import training_portion
    from selm.generation.base import sample_seed
    from selm.generation.kinds import load_engine
    from selm.generation.respond import respond

    way, _, count = arguments.way.partition(", workers=")
    workers = [f"generation.workers={count}"] if count else []
    recipe: Recipe = load_recipe(arguments.recipe, [*arguments.overrides, *workers])
    rows = training_portion(recipe, 1)[0][: arguments.prompts]
    policy = recipe.model.name_or_path
    importlib.import_module(f"selm.generation.{recipe.generation.engine}_engine")
    started = time.perf_counter()
    if way == "engine":
        engine = load_engine(policy, recipe.model, recipe.generation)
        prompts = [engine.chat.prompt_ids(row["prompt"]) for row in rows]
        seeds = [sample_seed(recipe.seed, 1, row["prompt_id"], 0) for row in rows]
        tokens = sum(response.num_tokens for response in engine.generate(prompts, seeds))
    else:
        with tempfile.TemporaryDirectory() as folder:
            tokens = respond(rows, policy, recipe, 1, Path(folder), "answering").tokens
    return {"seconds": time.perf_counter() - started, "tokens": tokens}


def report(found: dict[str, list[dict[str, float]]], arguments: argparse.Namespace) -> None:
    bare = found["engine"]
    facts: dict[str, Any] = {}
    for way, rounds in found.items():
        rate = sum(r["tokens"] for r in rounds) / sum(r["seconds"] for r in rounds)
        pairs = zip(rounds, bare, strict=True)
        ratios = [one["seconds"] / other["seconds"] for one, other in pairs]
        facts[way] = {
            "tokens_per_second": round(rate, 2),
            "seconds_to_engines": round(median(ratios), 3),
            "lowest": round(min(ratios), 3),
            "highest": round(max(ratios), 3),
        }
        times = spread(f"{median(ratios):.2f}", min(ratios), max(ratios))
        print(f"{way:18}: {rate:8.1f} tokens/s, {times} times the engine's seconds")
    if arguments.json:
        machine = {"machine": platform.machine(), "cores": os.cpu_count()}
        what = {"ways": facts, "prompts": arguments.prompts, "overrides": arguments.overrides}
        arguments.json.write_text(json.dumps(what | machine, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
