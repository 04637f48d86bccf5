"""Write what `make bench` measured into the tables of docs/results.md.

    python bench/tables.py FOLDER docs/results.md

The table between `<!-- bench:NAME -->` and `<!-- bench end -->` is made of FOLDER/NAME.json.
"""

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Facts = dict[str, Any]


def main() -> None:
    folder, page = map(Path, sys.argv[1:])
    text = page.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        facts = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        text = between(text, name, "\n".join(table(facts)))
    page.write_text(text, encoding="utf-8")
    print(f"{page}: {', '.join(TABLES)}")


def between(text: str, name: str, table: str) -> str:
    """The text with the table in its place.

    Raises:
        ValueError: the page has no place for it.
    """
    place = re.compile(rf"(<!-- bench:{name} -->\n).*?(<!-- bench end -->)", re.DOTALL)
    found, count = place.subn(lambda match: f"{match[1]}\n{table}\n\n{match[2]}", text)
    if count != 1:
        raise ValueError(f"<!-- bench:{name} --> stands {count} times in the page, not once")
    return found


def rows(head: Sequence[str], *body: Sequence[str]) -> list[str]:
    lines = [head, ["---"] * len(head), *body]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def spread(median: str, lowest: float, highest: float, digits: int = 2) -> str:
    """The median and, unless there was one measurement only, the range of them all.

    >>> spread("2.1", 1.93, 2.26, digits=1), spread("1.29", 1.29, 1.29)
    ('2.1, 1.9 to 2.3', '1.29')
    """
    if lowest == highest:
        return median
    return f"{median}, {lowest:.{digits}f} to {highest:.{digits}f}"


def ratio(facts: Facts) -> str:
    return spread(f"**{facts['median']:.2f}**", facts["lowest"], facts["highest"])


def train_step(facts: Facts) -> list[str]:
    named = {
        "vs_original_without_reference": "the original's computation",
        "vs_original": "the same, and the reference pass of both",
        "vs_trl_dpo": "TRL's DPOTrainer",
    }
    return [
        _setting(facts),
        "",
        *_ways(facts),
        "",
        *rows(
            ["faster than", "median, single steps"],
            *([what, ratio(facts["ratios"][key])] for key, what in named.items()),
        ),
    ]


def ablation(facts: Facts) -> list[str]:
    ratios = facts["ratios"].items()
    return [
        _setting(facts),
        "",
        *rows(["", "times the seconds"], *([name, ratio(found)] for name, found in ratios)),
    ]


def _setting(facts: Facts) -> str:
    return (
        f"{facts['model']}, {facts['dtype']}, {facts['device']}, {facts['threads']} threads, "
        f"{facts['steps']} steps of {facts['rows_per_step']} rows, {facts['rows_at_a_time']} at a "
        f"time, max_length {facts['max_length']}."
    )


def _ways(facts: Facts) -> list[str]:
    return rows(
        ["", "examples/s", "tokens", "of them no padding", "peak memory, GB"],
        *(
            [
                name,
                f"{way['examples_per_second']:.2f}",
                str(sum(computed for computed, _ in way["tokens"])),
                f"{way['padding_efficiency']:.0%}",
                f"{way['peak_bytes'] / 1e9:.1f}",
            ]
            for name, way in facts["ways"].items()
        ),
    )


def pairrm(facts: Facts) -> list[str]:
    rates, rounds = facts["pairs_per_second"], facts["pairs_per_second_ratio_by_round"]
    faster = f"**{facts['pairs_per_second_ratio']:.1f}**"
    memory = "kept" if facts["glibc_keeps_memory"] else "glibc's defaults"
    return rows(
        ["prompts", "memory", "original", "ours", "ratio, rounds"],
        [
            str(facts["prompts"]),
            memory,
            f"{rates['original']:.1f}",
            f"{rates['ours']:.1f}",
            spread(faster, min(rounds), max(rounds), digits=1),
        ],
    )


def generate(facts: Facts) -> list[str]:
    return rows(
        ["", "tokens/s", "times the engine's seconds"],
        *(
            [
                name,
                f"{way['tokens_per_second']:.0f}",
                spread(f"{way['seconds_to_engines']:.2f}", way["lowest"], way["highest"]),
            ]
            for name, way in facts["ways"].items()
        ),
    )


TABLES: dict[str, Callable[[Facts], list[str]]] = {
    "train_step": train_step,
    "ablation": ablation,
    "generate": generate,
    "pairrm": pairrm,
}


if __name__ == "__main__":
    main()
