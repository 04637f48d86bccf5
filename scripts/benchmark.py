"""Measure a policy with benchmarks.

    python scripts/benchmark.py recipes/smollm2-135m-instruct/selm.yaml --iteration 1 \\
        --benchmark hellaswag,alpaca_eval [key=value ...]

Iteration 0 is the base model. Writes runs/<run_name>/iter-<T>/benchmarks/<NAME>/results, and before
that the answers beside it if the benchmark needs them. If it is killed, the same command continues.
`make benchmark-smollm2-selm` does this for all policies and puts the results into the report.
"""

import json
from pathlib import Path

from selm.cli import Stage, parse_benchmark, run_main
from selm.run import artifacts
from selm.run.benchmarks import groups, stages_of
from selm.run.child import run_to_end
from selm.run.plan import Run


def main() -> None:
    run, t, names = parse_benchmark(__doc__)
    together = groups(names)
    if len(together) > 1:
        for group in together:
            run_to_end([__file__, *_words(run, t, ",".join(group))])
        return
    for name in names:
        measure(run, t, name)


def _words(run: Run, t: int, names: str) -> list[str]:
    return [run.path, "--iteration", str(t), "--benchmark", names, *run.overrides]


def measure(run: Run, t: int, name: str) -> None:
    """One benchmark; missing answers are made by a process that ends before the judge starts."""
    stage = Stage(run, f"benchmarks/{name}/results", t)
    if stage.is_done():
        return
    for answers in stages_of(name)[:-1]:
        if not artifacts.state(run.recipe, answers, t).current:
            run_to_end([str(Path(__file__).with_name("answer.py")), *_words(run, t, name)])
    stage.begin()

    from selm.data.parquet import save_rows
    from selm.data.schemas import BenchmarkRow
    from selm.evaluation.measuring import in_words, measured, results

    found = measured(run, name, t)

    with stage.writing() as record:
        save_rows(found.rows, BenchmarkRow, record.folder / "test.parquet")
        texts = {"results.json": json.dumps(results(name, t, found), indent=1) + "\n"}
        for file, text in {**found.files, **texts}.items():
            (record.folder / file).write_text(text, encoding="utf-8")
        record.rows, record.tokens, record.dropped = len(found.rows), found.tokens, found.dropped
        record.note = in_words(found)


if __name__ == "__main__":
    run_main(main)
