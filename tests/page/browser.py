"""Browser for tests: Debian's Chromium, driven by Playwright, whose pages may ask this machine alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

PATIENCE_MS = 60_000
"""Milliseconds that a test waits for what it expects to see, since the machine may be busy."""

GRAVE = ("serious", "critical")
"""Impacts of findings of axe-core that fail a test."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, which is closed when the block ends."""
    arguments = ["--disable-background-networking", "--no-first-run", "--force-color-profile=srgb"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # which root cannot have
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """One visitor's page, with whom it asked and what went wrong in it."""

    def __init__(self, context: BrowserContext) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.requests: list[str] = []
        self.errors: list[str] = []
        context.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._hear)

    def _hear(self, message: Any) -> None:
        # What the browser itself writes of refused and broken requests is expected where tests provoke these.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    def strangers(self) -> set[str]:
        """The hosts that were asked besides this machine."""
        hosts = {urlsplit(url).hostname for url in self.requests if urlsplit(url).scheme not in ("blob", "data")}
        return {str(host) for host in hosts - {"127.0.0.1"}}

    def go(self, address: str) -> None:
        """Show a screen by its address behind the `#`."""
        self.page.evaluate("where => { location.hash = where }", address)

    def drop(self, selector: str, *paths: Path) -> None:
        """Drop files or folders of this machine on an element, as a user's hand does."""
        box = self.page.locator(selector).bounding_box()
        assert box is not None, "it can be seen"
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + 20}
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        session = self.page.context.new_cdp_session(self.page)
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, **at, "data": data})
        session.detach()

    def faults(self) -> list[str]:
        """What axe-core finds grave on the screen that is shown."""
        found = Axe().run(self.page).response["violations"]
        return [
            f"{one['id']}: {one['help']}: {[node['html'] for node in one['nodes']][:3]}"
            for one in found
            if one["impact"] in GRAVE
        ]


@contextmanager
def visiting(browser: Browser, **settings: Any) -> Iterator[Visit]:
    """A visit without what others left in the browser; at its end nothing has gone wrong, and nobody else was asked."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
    try:
        visit = Visit(context)
        yield visit
        assert visit.errors == []
        assert visit.strangers() == set()
    finally:
        context.close()
