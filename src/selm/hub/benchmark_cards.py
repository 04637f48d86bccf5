"""The card of the dataset that holds the answers to a run's benchmarks, and their results."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from selm.data.schemas import BenchmarkRow, ResponseRow, described
from selm.hub.cards import TAGS, TEMPLATES, Manifest, Sources, figure, how_made, size_category
from selm.markdown import code, literal, table
from selm.recipe.schema import Recipe
from selm.run.on_hub import place
from selm.run.stages import benchmark_of, benchmarked_iterations

Artifact = tuple[Manifest, Sources]
Found = Mapping[str, Any]  # the content of a results.json


def dataset_card(recipe: Recipe, artifacts: Sequence[Artifact], results: Sequence[Found]) -> str:
    """The card of all that the benchmarks of a run have written.

    Args:
        artifacts: manifest and sources of everything in the dataset, in any order.
        results: the content of every results.json there.
    """
    ordered = sorted(artifacts, key=lambda found: _order(recipe, found[0]))
    configs = _configs(recipe, [facts for facts, _ in ordered])
    data = DatasetCardData(
        pretty_name=f"{recipe.run_name}: benchmarks",
        task_categories=["text-generation"],
        size_categories=[size_category(sum(facts["rows"] for facts, _ in ordered))],
        tags=TAGS,
        configs=configs,
    )
    last = ordered[-1][0]
    card = DatasetCard.from_template(
        data,
        template_path=str(TEMPLATES / "benchmarks.md"),
        run_name=recipe.run_name,
        repo=place(recipe, last["stage"], last["iteration"]).repo,
        example=configs[-1]["config_name"],
        split=configs[-1]["data_files"][-1]["split"],
        results=results_table(recipe, results),
        notes=notes(recipe, results),
        columns={"answers": described(ResponseRow), "results": described(BenchmarkRow)},
        artifacts=[
            how_made(recipe, facts["stage"], facts["iteration"], facts, sources)
            | dict(zip(("benchmark", "part"), _parts(facts), strict=True))
            for facts, sources in ordered
        ],
    )
    return str(card)


def _parts(facts: Manifest) -> tuple[str, str]:
    """The benchmark and `answers` or `results`."""
    return benchmark_of(facts["stage"]) or "", PurePosixPath(facts["stage"]).name


def _order(recipe: Recipe, facts: Manifest) -> tuple[Any, ...]:
    """Benchmarks in the recipe's order, then others; answers before results; by iteration."""
    benchmark, part = _parts(facts)
    return (*_place_of(recipe, benchmark), part, facts["iteration"])


def _place_of(recipe: Recipe, benchmark: str) -> tuple[int, str]:
    names = [*recipe.benchmarks.names, benchmark]
    return names.index(benchmark), benchmark


def _configs(recipe: Recipe, ordered: Sequence[Manifest]) -> list[dict[str, Any]]:
    """A config per benchmark and part with a split per iteration, for `load_dataset`."""
    splits: dict[str, list[dict[str, str]]] = {}
    for facts in ordered:
        t, where = facts["iteration"], place(recipe, facts["stage"], facts["iteration"])
        path = {"split": f"iter_{t}", "path": where.path("test.parquet")}
        splits.setdefault("-".join(_parts(facts)), []).append(path)
    return [{"config_name": name, "data_files": files} for name, files in splits.items()]


def results_table(recipe: Recipe, results: Sequence[Found]) -> str:
    """The first measure of every benchmark by iteration; empty if there are no results.

    What another judge has said, or another measure, stands in another row.
    """
    rows: dict[tuple[Any, ...], dict[int, Found]] = {}
    for found in results:
        for measure in list(found["measures"])[:1]:
            key = (_place_of(recipe, found["benchmark"]), measure, found["judge"] or "none")
            rows.setdefault(key, {})[found["iteration"]] = found
    iterations = sorted(
        {*benchmarked_iterations(recipe), *(found["iteration"] for found in results)}
    )
    lines = []
    for ((_, benchmark), measure, judge), of in sorted(rows.items()):
        counts = {found["n"] for found in of.values()}
        asked = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        values = {t: figure(found["measures"][measure]) for t, found in of.items()}
        cells = [values.get(t, "") for t in iterations]
        lines.append([benchmark, measure, judge, asked, *cells])
    heads = ["base model" if t == 0 else f"iteration {t}" for t in iterations]
    header = ["benchmark", "measure", "judge", "questions", *heads]
    return table(header, lines, left=3) if lines else ""


def notes(recipe: Recipe, results: Sequence[Found]) -> list[str]:
    """What a reader must know to compare the measures, a line each; the same note only once."""
    said = {
        (_place_of(recipe, found["benchmark"]), note): None
        for found in results
        for note in found["notes"]
    }
    return [f"{code(benchmark)}: {literal(note)}" for (_, benchmark), note in sorted(said)]
