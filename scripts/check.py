"""Look before you leap: check a recipe against its model, its data and this machine.

    python scripts/check.py recipes/zephyr-7b-sft/selm.yaml [key=value ...]

One line per check, "ok" or "PROBLEM" with the fix; exit code 0 if all is well, 2 otherwise. Loads
the tokenizer, the config and the data, no weights: seconds, once the data are downloaded.

    packages   those that only some recipes need: trackers, DeepSpeed, bitsandbytes
    model      its config is there; the context holds max_length and max_tokens
    template   BOS, what ends a turn, whether there is a system role
    data       columns and splits of the first 200 rows, and what is dropped of them
    tokens     one BOS at most, one end of turn in labels, prompts the same in every stage
    stop ids   all tokens that end a response: the template's, the tokenizer's, the model's
    lengths    share of the rows that training.max_length cuts or drops; mean lengths
    batch      global batch = processes x rows x accumulation steps
    training   trainer, optimizer, schedule, adapter: two steps of a small stand-in, and a save
    rankers    files and keys of whoever ranks and judges; RUNS a reward file, on one row
    hub        whether the token may push, if hub.push
    disk       free space beside the plan's estimate
    memory     this machine's GPUs (or memory) beside the plan's estimate
"""

import sys

from selm.cli import parse_run, run_main
from selm.escape import one_line


def main() -> None:
    run = parse_run(__doc__)

    from selm.check import results

    problems = 0
    for name, well, found in results(run):
        print(f"{'ok     ' if well else 'PROBLEM'} {name:<9} {one_line(found)}", flush=True)
        problems += not well
    sys.exit(2 if problems else 0)


if __name__ == "__main__":
    run_main(main)
