"""Link the finished artifacts that other runs of the same output folder share with this one.

    python scripts/link.py recipes/smollm2-135m-instruct/selm.yaml run_name=b training.alpha=0.01

Two runs share an artifact if the part of the recipe that decides it and its inputs are the same:
with another alpha the responses of iteration 1, after an iteration of objective dpo its checkpoint.
It is then on the disk once, under both names (hard links). A sweep calls this before each run.
"""

from collections import defaultdict

from selm.cli import parse_run, run_main
from selm.errors import OutsideError
from selm.escape import one_line
from selm.run.artifacts import run_folder
from selm.run.linking import link_all
from selm.run.stages import name


def main() -> None:
    run = parse_run(__doc__)
    folder = run_folder(run.recipe)
    try:
        linked = link_all(run.recipe)
    except OSError as error:
        raise OutsideError(f"{folder}: cannot link artifacts here ({error.strerror})") from error
    of_run = defaultdict(list)
    for entry, other in linked:
        of_run[other].append(name(*entry))
    for other, names in of_run.items():
        print(one_line(f"{folder}: shared with {other}: {', '.join(names)}"))
    if not linked:
        print(one_line(f"{folder}: no artifact of another run to share"))


if __name__ == "__main__":
    run_main(main)
