"""Print the plan of a run: a bash script with one command per stage. Runs nothing.

    python scripts/plan.py recipes/zephyr-7b-sft/selm.yaml [key=value ...]
    python scripts/plan.py --benchmarks recipes/zephyr-7b-sft/selm.yaml [key=value ...]

Its comments estimate what each stage takes (see `src/selm/cost/`). If a stage will not fit, a line
at the top and on stderr says so and names the overrides with which it does. Each command can be
pasted, edited or queued by itself; `scripts/run.sh` runs them all. With --keep the plan is also
written to runs/<run_name>/plan.sh; with --remaining the printed plan leaves out finished stages.
With --benchmarks it is the plan of the recipe's benchmarks, kept as benchmarks.sh.
"""

import sys

from selm.cli import check_access, keep_text, parse_plan, run_main
from selm.escape import one_line
from selm.run import artifacts, benchmark_plan, plan


def main() -> None:
    run, options = parse_plan(__doc__)
    script, file = (plan.script, "plan.sh")
    if options.benchmarks:
        script, file = (benchmark_plan.script, "benchmarks.sh")
    elif options.keep or not options.remaining:
        for warning in plan.warnings(run):
            print(one_line(warning), file=sys.stderr)
    if options.keep:
        keep_text(artifacts.run_folder(run.recipe) / file, script(run))
    done = None
    if options.remaining:
        check_access(run.recipe)
        done = artifacts.done(run.recipe, options.benchmarks)
    print(script(run, done), end="")


if __name__ == "__main__":
    run_main(main)
