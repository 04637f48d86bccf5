"""The tables of the page's overview: {id, title, note, header, rows, left, texts}.

`left` is the number of columns at the left that are text, `texts` are further ones; the others are
numbers. A cell is text.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selm.data import drops
from selm.ranking.kinds import in_words
from selm.report.measures import named, names_of, of, shown
from selm.report.metrics import Metrics
from selm.report.page import iteration_cells
from selm.report.paper_tables import Table, View, like_table_1, like_table_2, sources
from selm.report.results import Results
from selm.run.stages import describe, name

Manifests = Mapping[tuple[str, int], Mapping[str, Any]]
COMMIT = 12  # characters of a hash that are shown


def overview(metrics: Metrics, results: Results, view: View) -> list[dict[str, Any]]:
    """All tables that have rows, in the order of the page."""
    found = [
        _iterations(metrics),
        *_benchmarks(view),
        *_ranking(results),
        _stages(results.manifests),
        _versions(results.manifests),
        _lineage(results.manifests),
    ]
    return [each for each in found if each["rows"]]


def text_table(
    ident: str,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    note: str = "",
    left: int = 1,
    texts: Sequence[int] = (),
) -> dict[str, Any]:
    return {
        "id": ident,
        "title": title,
        "note": note,
        "header": list(header),
        "rows": [list(row) for row in rows],
        "left": left,
        "texts": list(texts),
    }


def _iterations(metrics: Metrics) -> dict[str, Any]:
    header = ["policy", "reward", "95% interval", "win rate", "difference", "95% interval"]
    rows = []
    for entry in metrics["iterations"]:
        of_base = entry["iteration"] == 0
        label = named(entry["iteration"]) + ("" if of_base else f" ({entry['objective']})")
        rows.append([label, *iteration_cells(entry)])
    note = (
        "Rewards are of greedy answers to held-out prompts; win rate and difference are against "
        "the base model. Intervals: bootstrap over prompts, 10,000 resamples. A tie is half a win."
    )
    return text_table("iterations", "Iterations", [*header, "tokens", "n"], rows, note)


def _benchmarks(view: View) -> Iterator[dict[str, Any]]:
    """The paper's tables 1 and 2 with its numbers beside ours, then every measure."""
    said, reasons = sources(view)
    why = [f"{reason} ({', '.join(columns)})" for reason, columns in reasons.items()]
    note = " ".join(said) + (f" {'; '.join(why)}." if why else "")
    for ident, table in (("chat", like_table_1(view)), ("tasks", like_table_2(view))):
        yield _of_paper(ident, table, note)
        note = "" if table.rows else note
    iterations = view.iterations(view.benchmarks)
    rows = [
        [
            benchmark,
            measure,
            ", ".join(dict.fromkeys(filter(None, (r["judge"] for r in found.values())))),
            *(shown(of(found.get(t), measure), 2) for t in iterations),
        ]
        for benchmark, found in view.benchmarks.items()
        for measure in names_of(found)
    ]
    header = ["benchmark", "measure", "judge", *map(view.label, iterations)]
    notes = (n for found in view.benchmarks.values() for r in found.values() for n in r["notes"])
    yield text_table(
        "measures", "All measures", header, rows, " ".join(dict.fromkeys(notes)), left=3
    )


def _of_paper(ident: str, table: Table, note: str) -> dict[str, Any]:
    return text_table(ident, table.title, table.header, table.rows, note)


def _ranking(results: Results) -> Iterator[dict[str, Any]]:
    """Whether exploration helps, and what rankers prefer."""
    roles = ("chosen", "rejected", "neither")
    rows = []
    for t, count in results.roles.items():
        summary = results.summaries.get(t, {"explored_against": {}, "length_correlation": None})
        against = (summary["explored_against"].get(side) for side in roles[:2])
        correlation = summary["length_correlation"]
        rows.append(
            [
                named(t),
                *(f"{count[role] / max(count.total(), 1):.1%}" for role in roles),
                *map(_share_won, against),
                "" if correlation is None else f"{correlation:+.2f}",
                f"{count.total():,}",
            ]
        )
    yield text_table(
        "roles",
        "What became of the explored answer",
        ["iteration", *roles, "above chosen", "above rejected", "score and length", "pairs"],
        rows,
        "The explored answer is the policy's own. Above: how often the ranker put it above the "
        "dataset's answers, ties one half. Score and length: correlation within prompts.",
    )
    agreement = [
        [*pair["rankers"], named(t), f"{pair['alike'] / pair['pairs']:.1%}", f"{pair['pairs']:,}"]
        for t, summary in results.summaries.items()
        for pair in summary["agreement"]
    ]
    yield text_table(
        "agreement",
        "Agreement of rankers",
        ["ranker", "and", "iteration", "agree", "pairs"],
        agreement,
        "Of the pairs of candidates that both put in an order, the share put in the same one; one "
        "half is chance. The dataset's order is chosen above rejected.",
        left=3,
    )
    counted = [
        [describe(stage).script, named(t), in_words(manifest["rankers"])]
        for (stage, t), manifest in results.manifests.items()
        if manifest.get("rankers")
    ]
    yield text_table(
        "rankers", "What rankers counted", ["stage", "policy", "counts"], counted, left=3
    )


def _share_won(counts: Mapping[str, int] | None) -> str:
    if counts is None:
        return "not in the pool"
    return f"{(counts['won'] + 0.5 * counts['tied']) / max(sum(counts.values()), 1):.1%}"


def _stages(manifests: Manifests) -> dict[str, Any]:
    rows = []
    for (stage, t), manifest in manifests.items():
        rows.append(
            [
                describe(stage).script,
                named(t),
                duration(manifest["seconds"]),
                f"{manifest['tokens']:,}" if manifest["tokens"] else "",
                f"{manifest['rows']:,}",
                drops.in_words(manifest["dropped"]) or "none",
            ]
        )
    total = sum(manifest["seconds"] for manifest in manifests.values())
    tokens = sum(manifest["tokens"] for manifest in manifests.values())
    rows.append(["all", "", duration(total), f"{tokens:,}", "", ""])
    header = ["stage", "policy", "time", "tokens", "rows", "dropped rows"]
    return text_table("stages", "Stages", header, rows, left=2, texts=[5])


def duration(seconds: float) -> str:
    """
    >>> [duration(s) for s in (7.25, 75, 3700)]
    ['7.2 s', '1 min 15 s', '1 h 1 min']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _versions(manifests: Manifests) -> dict[str, Any]:
    """Each package's version, or several if stages ran with different ones."""
    found: dict[str, dict[str, None]] = {}  # dicts as sets that keep their order
    for manifest in manifests.values():
        for package, version in manifest["versions"].items():
            found.setdefault(package, {})[version] = None
    rows = [[package, ", ".join(versions)] for package, versions in found.items()]
    return text_table("versions", "Versions", ["package", "version"], rows, left=2)


def _lineage(manifests: Manifests) -> dict[str, Any]:
    """Each artifact: what it was made of, by which code, of which commits of model and data."""
    rows = []
    for (stage, t), manifest in manifests.items():
        revisions = manifest.get("revisions", {})
        rows.append(
            [
                name(stage, t),
                ", ".join(manifest.get("inputs", {})) or "the base model and the data",
                _short(manifest["git_commit"] or "not a git checkout"),
                ", ".join(f"{key} {value[:COMMIT]}" for key, value in revisions.items()),
                manifest.get("written", ""),
                manifest.get("command", ""),
            ]
        )
    header = ["artifact", "made of", "code", "revisions", "written", "command"]
    note = (
        "Each artifact holds the hashes of those that it was made of, down to the base model. "
        "Code and revisions are commits; local files are held by their content."
    )
    return text_table("lineage", "Lineage", header, rows, note, left=6)


def _short(commit: str) -> str:
    """The first characters of a commit; what follows a dash, such as `dirty`, stays.

    >>> _short("a45e324631e4dc20350d1ea43eb6af298619dbd6-dirty"), _short("not a git checkout")
    ('a45e324631e4-dirty', 'not a git checkout')
    """
    number, dash, rest = commit.partition("-")
    return f"{number[:COMMIT]}{dash}{rest}" if len(number) == 40 else commit
