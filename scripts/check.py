"""Look before you leap: check a recipe against its model, its data and this machine.

    python scripts/check.py recipes/zephyr-7b-sft/selm.yaml [--quick] [key=value ...]

One line per check, "ok" or "PROBLEM" with the fix; exit code 0 if all is well, 2 otherwise. Reads
the tokenizer, all rows of the data, and names and sizes of the weights, but no weights: seconds,
and about a minute for 60,000 rows, once the data are downloaded. With --quick only what is
marked * is looked at, of the data the first rows, and only problems are printed: `scripts/run.sh`
does that before the first stage of a run.

    packages   * those that only some recipes need: vLLM, trackers, DeepSpeed, bitsandbytes
    output     * the run's folder can be written and locked; the Hub's cache; git or none
    model      * every weight is there in its size; the context holds max_length and max_tokens
    template   * BOS, what ends a turn, whether there is a system role; an embedding for every token
    data       * forms, splits, dropped rows by reason; prompts both trained on and held out
    tokens     one BOS at most, one end of turn in labels, prompts the same in every stage
    stop ids   all tokens that end a response: the template's, the tokenizer's, the model's
    lengths    share of the rows that training.max_length cuts or drops; mean lengths
    batch      global batch = processes x rows x accumulation steps
    training   * trainer, optimizer, schedule, adapter: two steps of a small stand-in, and a save
    rankers    * files and keys of whoever ranks and judges; RUNS a reward file, on one row
    hub        whether the token may push, if hub.push
    disk       free space beside the plan's estimate
    memory     this machine's GPUs (or memory) beside the plan's estimate
"""

import sys

from selm.cli import parse_check, run_main
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
    """Before the first stage; a run that has one behind it was looked at then."""
    if artifacts.done(run.recipe):
        return 0

    from selm.check.checks import results
    from selm.check.quick import QUICK

    problems = [(name, found) for name, well, found in results(run, QUICK) if not well]
    for name, found in problems:
        print(f"PROBLEM {name:<9} {one_line(found)}", file=sys.stderr)
    if not problems:
        print(f"checked: {', '.join(QUICK)}")
    return 2 if problems else 0


if __name__ == "__main__":
    run_main(main)
