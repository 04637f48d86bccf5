"""A browser for tests: Chromium as the system has it, driven by playwright, without a network."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find() -> str:
    """Path of a browser; skips the test where there is none, or nothing to drive it with."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"needs a browser: none of {', '.join(NAMES)} is installed")
    pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install -r requirements/browser.lock"
    )
    return found


@contextmanager
def started(path: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    # Chromium's own sandbox wants a user other than root, and containers often have root alone.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page, what it asked for and what it complained of."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def view(self, name: str) -> Any:
        """Open a view, or a prompt, by its address; the section that shows it."""
        self.page.evaluate("name => { location.hash = name }", name)
        view = "answers" if name.startswith("prompt-") else name
        self.page.locator(f'html[data-ready="{view}"]').wait_for(state="attached")
        section = self.page.locator(f'[data-view="{view}"]')
        section.wait_for()
        return section

    def assert_quiet(self) -> None:
        """It asked for nothing but itself, and there is no error in the console."""
        own = self.page.url.split("#")[0]
        outside = [url for url in self.requests if url != own and not url.startswith("data:")]
        assert outside == []
        assert self.complaints == []


def opened(browser: Any, path: Path, hash_: str = "", width: int = 1280, **options: Any) -> Opened:
    """The file in a new window, with the network off."""
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
    context.set_default_timeout(60_000)  # of a busy machine
    found = Opened(context.new_page())
    found.page.on("request", lambda request: found.requests.append(request.url))
    found.page.on("console", lambda message: found.complaints.append(message.text))
    found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
    found.page.goto(f"{path.as_uri()}{hash_}")
    found.page.locator("html[data-ready]").wait_for(state="attached")
    return found
