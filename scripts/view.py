"""Open a run's report.html in the browser, or print its path where there is no screen.

    python scripts/view.py runs/smollm2-135m-selm

Needs nothing but Python: the page is one file, which can be copied to any other machine.
"""

import os
import sys
import webbrowser
from pathlib import Path


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0 if "-h" in sys.argv or "--help" in sys.argv else 2)
    page = page_of(Path(sys.argv[1]))
    if page is None:
        print(
            f"{sys.argv[1]}: there is no report.html; name the folder of a run whose report is "
            "written (ls runs)",
            file=sys.stderr,
        )
        sys.exit(2)
    print(page)
    if has_screen():
        webbrowser.open(page.resolve().as_uri())


def page_of(path: Path) -> Path | None:
    """The page of a run's folder, of its report's folder, or the page itself."""
    places = (path, path / "report.html", path / "report" / "report.html")
    return next((each for each in places if each.suffix == ".html" and each.is_file()), None)


def has_screen() -> bool:
    """A browser without one, such as lynx, would take the terminal and show no scripts."""
    if sys.platform in ("darwin", "win32"):
        return "SSH_CONNECTION" not in os.environ
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


if __name__ == "__main__":
    main()
