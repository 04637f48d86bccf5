"""Print the plan of a run: a bash script with one command per stage. Runs nothing.

    python scripts/plan.py recipes/zephyr-7b-sft/selm.yaml [key=value ...]

Each command can be pasted, edited or queued by itself; `scripts/run.sh` runs them all.
"""

from selm import artifacts
from selm.cli import parse_plan, run_main
from selm.plan import script


def main() -> None:
    run, remaining = parse_plan(__doc__)
    print(script(run, artifacts.done(run.recipe) if remaining else None), end="")


if __name__ == "__main__":
    run_main(main)
