"""Opens reports in the system's Chromium, driven by Playwright.

with Browser() as browser:
    page = browser.open(path, width=1280)
    assert page.run("document.title") == "..."
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip

_DRAWN = """[...document.querySelectorAll('.chart')].every(chart => chart.classList.contains('drawn')
  || chart.closest('details:not([open]), dialog:not([open])') || chart.getBoundingClientRect().top > {})"""

_MIDDLE = """(() => {{
  const element = document.querySelector({});
  element.scrollIntoView({{block: 'center', behavior: 'instant'}});
  const box = element.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
}})()"""

LIMIT = 60.0
"""Timeout in seconds for every wait; far more than an idle machine needs."""


def find_browser() -> str | None:
    """The program, or None if it is not installed."""
    return next((path for name in NAMES if (path := shutil.which(name)) is not None), None)


def why_none() -> str | None:
    """The reason for skipping tests that need a browser; None if there is one."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed"
    return "no Chromium is installed" if find_browser() is None else None


class Browser:
    """A running browser."""

    def __enter__(self) -> Browser:
        from playwright.sync_api import sync_playwright

        self._manager = sync_playwright()
        playwright = self._manager.__enter__()
        self._browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        self._context: Any = None
        return self

    def __exit__(self, *what: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._browser.close()
        self._manager.__exit__(*what)

    def open(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False, fragment: str = "") -> Page:
        """Open a file in a new window and wait until the initially visible charts are drawn. Closes the last window."""
        if self._context is not None:
            self._context.close()
        self._context = self._browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            is_mobile=width < 600,
        )
        return Page(self._context.new_page(), path.as_uri() + fragment)


class Page:
    """A window.

    Attributes:
        seconds: time from the start of the navigation until the initially visible charts are drawn.
        page: Playwright's page.
    """

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        self._requests: list[str] = []
        self._complaints: list[str] = []
        page.on("request", lambda request: self._requests.append(request.url))
        page.on("console", lambda message: self._complaints.append(f"{message.type}: {message.text}"[:600]))
        page.on("pageerror", lambda error: self._complaints.append(str(error)[:600]))
        # Playwright's own evaluate() needs eval, which the content security policy of the pages forbids.
        self._protocol = page.context.new_cdp_session(page)
        start = time.perf_counter()
        page.goto(address)
        self.wait(f"document.readyState === 'complete' && {_DRAWN.format('innerHeight')}")
        self.seconds = time.perf_counter() - start

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression. Promises are awaited."""
        result = self._protocol.send(
            "Runtime.evaluate", {"expression": expression, "returnByValue": True, "awaitPromise": True}
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        self._until(lambda: self.run(f"Boolean({condition})"), condition)

    def _until(self, done: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + LIMIT
        while not done():
            assert time.monotonic() < end, f"never: {what}"
            self.page.wait_for_timeout(20)

    def all_drawn(self) -> None:
        """Wait until all charts that are not collapsed are drawn."""
        self.wait(_DRAWN.format("Infinity"))

    def move(self, x: float, y: float) -> None:
        """Move the pointer to a point in the window."""
        self.page.mouse.move(x, y)

    def middle(self, selector: str) -> tuple[float, float]:
        """Scroll to an element; returns the position of its middle in the window."""
        x, y = self.run(_MIDDLE.format(json.dumps(selector)))
        return x, y

    def click(self, selector: str) -> None:
        """Click on the middle of an element."""
        self.page.mouse.click(*self.middle(selector))

    def click_at(self, x: float, y: float) -> None:
        """Click on a point in the window."""
        self.page.mouse.click(x, y)

    def type(self, text: str) -> None:
        """Type text into the focused element."""
        self.page.keyboard.insert_text(text)

    def screenshot(self, *, whole: bool = False) -> bytes:
        """A PNG of the window, or of the whole page."""
        data: bytes = self.page.screenshot(full_page=whole)
        return data

    def pdf(self) -> bytes:
        """The page printed to PDF."""
        data: bytes = self.page.pdf(print_background=True, prefer_css_page_size=True)
        return data

    def requests(self) -> list[str]:
        """The addresses that the window requested, except content of the file itself."""
        return [address for address in self._requests if not address.startswith("data:")]

    def complaints(self) -> list[str]:
        """Console messages and exceptions."""
        return list(self._complaints)
