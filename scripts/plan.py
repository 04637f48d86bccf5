"""Print the plan of a run: a bash script with one command per stage. Runs nothing.

    python scripts/plan.py recipes/zephyr-7b-sft/selm.yaml [key=value ...]

Each command can be pasted, edited or queued by itself; `scripts/run.sh` runs them all.
"""

from selm.cli import parse_run, run_main
from selm.plan import script


def main() -> None:
    print(script(parse_run(__doc__)), end="")


if __name__ == "__main__":
    run_main(main)
