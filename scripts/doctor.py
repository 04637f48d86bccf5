"""Print what a report of a problem needs: versions, GPU, driver, locale, disk, memory. No secrets.

    python scripts/doctor.py        (or: make doctor)

Of environment variables that may hold secrets, or names of people and machines, only the name is
printed. Needs no package, so it also speaks where the set-up has failed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # also without an installation

from selm.check.doctor import lines


def main() -> None:
    for line in lines():
        print(line.encode("ascii", "backslashreplace").decode(), flush=True)


if __name__ == "__main__":
    main()
