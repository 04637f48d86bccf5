"""`pip check`, less the complaints that a page expects; setup.sh ends with it.

    .venv/bin/python scripts/pip_check.py docs/dependencies.md

The page has a table whose first two columns are "asked for by" and "left out". Prints what else pip
complains about, and exits with 1 if there is any.
"""

import re
import subprocess
import sys
from pathlib import Path

HEADER = "| asked for by | left out |"
MISSING = re.compile(r"(\S+) \S+ requires ([^\s,]+), which is not installed\.")


def main() -> int:
    expected = left_out(Path(sys.argv[1]).read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "pip", "check", "--disable-pip-version-check"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    complaints = done.stdout.splitlines() if done.returncode else []
    found = [line for line in complaints if not is_expected(line, expected)]
    for line in found:
        print(line)
    return 1 if found or (done.returncode and not complaints) else 0


def left_out(page: str) -> set[tuple[str, str]]:
    """The rows of the page's table: (asked for by, left out).

    >>> left_out("| asked for by | left out |\\n|---|---|\\n| a | b |\\n\\n| c | d |")
    {('a', 'b')}
    """
    _, _, after = page.partition(HEADER)
    table = after.partition("\n\n")[0].splitlines()[2:]
    cells = ([cell.strip() for cell in row.strip("|").split("|")] for row in table)
    return {(by, package) for by, package, *_ in cells}


def is_expected(line: str, expected: set[tuple[str, str]]) -> bool:
    """
    >>> is_expected("a 1.0 requires b, which is not installed.", {("a", "b")})
    True
    >>> is_expected("a 1.0 has requirement b>=2, but you have b 1.", {("a", "b")})
    False
    """
    found = MISSING.fullmatch(line)
    return found is not None and found.groups() in expected


if __name__ == "__main__":
    sys.exit(main())
