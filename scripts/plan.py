"""Print the plan of a run: a bash script with one command per stage. Runs nothing.

    python scripts/plan.py recipes/zephyr-7b-sft/selm.yaml [key=value ...]

Its comments estimate what each stage takes (see `src/selm/cost/`). If a stage will not fit, a line
at the top and on stderr says so and names the overrides with which it does. Each command can be
pasted, edited or queued by itself; `scripts/run.sh` runs them all. With --keep the plan is also
written to runs/<run_name>/plan.sh; with --remaining the printed plan leaves out finished stages.
"""

import sys

from selm.cli import check_access, keep_text, parse_plan, run_main
from selm.escape import one_line
from selm.run import artifacts
from selm.run.plan import script, warnings


def main() -> None:
    run, remaining, keep = parse_plan(__doc__)
    if keep or not remaining:
        for warning in warnings(run):
            print(one_line(warning), file=sys.stderr)
    if keep:
        keep_text(artifacts.run_folder(run.recipe) / "plan.sh", script(run))
    done = None
    if remaining:
        check_access(run.recipe)
        done = artifacts.done(run.recipe)
    print(script(run, done), end="")


if __name__ == "__main__":
    run_main(main)
