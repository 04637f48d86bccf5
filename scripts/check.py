"""Check a recipe against its model, its data and this machine before the run.

    python scripts/check.py recipes/zephyr-7b-sft/selm.yaml [--quick] [key=value ...]

Prints one line per check: "ok", or "PROBLEM" with the fix. The exit code is 0 if there is no
problem and 2 otherwise. It reads the tokenizer, all rows of the data, and the names and sizes of
the weights, but no weights. This takes seconds, or about a minute for 60,000 rows, after the data
are downloaded. With --quick it runs only the checks marked *, on the first rows of the data, and
prints only problems; `scripts/run.sh` does this before the first stage of a run.

    packages   * packages that only some recipes need: vLLM, trackers, DeepSpeed, bitsandbytes
    gpu        * driver, C compiler and Python.h for the GPUs of this machine, if it has any
    output     * the run's folder can be written and locked; the Hub's cache; git
    model      * all weights, with the right sizes; the context holds max_length and max_tokens
    template   * BOS, end of turn, system role; every token has an embedding
    data       * forms, splits, dropped rows by reason; prompts both trained on and held out
    tokens     at most one BOS, one end of turn in labels, the same prompts in every stage
    stop ids   all tokens that end a response: the template's, the tokenizer's, the model's
    lengths    share of rows that max_length truncates, or max_tokens drops; mean lengths
    batch      global batch = processes x rows x accumulation steps
    training   * trainer, optimizer, schedule, adapter: two steps of a small model, and a save
    rankers    * files and keys of the rankers; RUNS a reward file on one row
    hub        if hub.push is true: whether the token may push
    disk       free space compared with the plan's estimate
    memory     this machine's GPUs (or memory) compared with the plan's estimate
"""

import sys

from selm.cli import check_access, parse_check, run_main
from selm.escape import one_line
from selm.run import artifacts
from selm.run.plan import Run


def main() -> None:
    run, quick = parse_check(__doc__)
    if quick:
        sys.exit(look_quickly(run))

    from selm.check.checks import results

    problems = 0
    for name, well, found in results(run):
        print(f"{'ok     ' if well else 'PROBLEM'} {name:<9} {one_line(found)}", flush=True)
        problems += not well
    sys.exit(2 if problems else 0)


def look_quickly(run: Run) -> int:
    """Check before the first stage; a run with a finished stage has been checked."""
    check_access(run.recipe)
    if artifacts.done(run.recipe):
        return 0

    from selm.check.checks import QUICK, results

    problems = [(name, found) for name, well, found in results(run, QUICK) if not well]
    for name, found in problems:
        print(f"PROBLEM {name:<9} {one_line(found)}", file=sys.stderr)
    if not problems:
        print(f"checked: {', '.join(QUICK)}")
    return 2 if problems else 0


if __name__ == "__main__":
    run_main(main)
