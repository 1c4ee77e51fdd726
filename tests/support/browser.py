"""A headless Chromium that tests look through, over its debugging pipe: nothing to install but the browser.

with Browser() as browser:
    page = browser.open(path, width=1280)
    assert page.run("document.title") == "..."
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
)  # fmt: skip

# The browser reads its file 3 and writes its file 4.
_LAUNCH = """
import os, sys
reading, writing = (os.dup(os.dup(os.dup(int(n)))) for n in sys.argv[1:3])
os.dup2(reading, 3)
os.dup2(writing, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""

_DRAWN = """[...document.querySelectorAll('.chart')].every(chart => chart.classList.contains('drawn')
  || chart.closest('details:not([open]), dialog:not([open])') || chart.getBoundingClientRect().top > {})"""

_MIDDLE = """(() => {{
  const element = document.querySelector({});
  element.scrollIntoView({{block: 'center', behavior: 'instant'}});
  const box = element.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
}})()"""

LIMIT = 60.0
"""Seconds to wait for anything; far more than is needed on an idle machine."""


def find_browser() -> str | None:
    """The program, or None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name)) is not None), None)


class Browser:
    """The process, and the messages to and from it."""

    def __init__(self) -> None:
        program = find_browser()
        assert program is not None
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        command = [program, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(theirs_in), str(theirs_out), *command],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._out = os.fdopen(ours_out, "wb", buffering=0)
        self._in = os.fdopen(ours_in, "rb")
        self._numbers = itertools.count(1)
        self._windows: list[str] = []
        self._replies: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self.events: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(5.0)
        self._out.close()
        self._in.close()
        self._profile.cleanup()

    def call(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        """The result of a command of the Chrome DevTools Protocol."""
        number = next(self._numbers)
        reply: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._replies[number] = reply
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self._out.write(json.dumps(message).encode() + b"\0")
        answer = reply.get(timeout=LIMIT)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> Page:
        """A new window with a file in it, once the charts are drawn that are seen first. The last one is closed."""
        for old in self._windows:
            self.call("Target.closeTarget", targetId=old)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._windows = [target]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return Page(self, session, path, width, height, dark)

    def _read(self) -> None:
        buffer = b""
        while True:
            try:
                block = os.read(self._in.fileno(), 1 << 16)
            except (OSError, ValueError):
                return
            if not block:
                return
            *messages, buffer = (buffer + block).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._replies.pop(message["id"]).put(message)
                else:
                    self.events.append(message)


class Page:
    """A window.

    Attributes:
        seconds: from the start of the navigation until all was drawn that is seen first.
    """

    def __init__(self, browser: Browser, session: str, path: Path, width: int, height: int, dark: bool) -> None:
        self._browser = browser
        self._session = session
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)
        start = time.perf_counter()
        self.call("Page.navigate", url=path.as_uri())
        self.wait(f"document.readyState === 'complete' && {_DRAWN.format('innerHeight')}")
        self.seconds = time.perf_counter() - start

    def call(self, method: str, **parameters: Any) -> Any:
        """A command to this window."""
        return self._browser.call(method, self._session, **parameters)

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, promises waited for."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        self._until(lambda: self.run(f"Boolean({condition})"), condition)

    def _until(self, done: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + LIMIT
        while not done():
            assert time.monotonic() < end, f"never: {what}"
            time.sleep(0.02)

    def all_drawn(self) -> None:
        """Wait until every chart is drawn that is not folded away."""
        self.wait(_DRAWN.format("Infinity"))

    def move(self, x: float, y: float) -> None:
        """Put the pointer somewhere in the window."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def middle(self, selector: str) -> tuple[float, float]:
        """Where an element is in the window, once it has been scrolled to."""
        x, y = self.run(_MIDDLE.format(json.dumps(selector)))
        return x, y

    def click(self, selector: str) -> None:
        """Press the middle of an element."""
        x, y = self.middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, *, whole: bool = False) -> bytes:
        """PNG of the window, or of the whole page."""
        return base64.b64decode(
            self.call("Page.captureScreenshot", captureBeyondViewport=whole, **self._clip(whole))["data"]
        )

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"])

    def requests(self) -> list[str]:
        """Addresses that the window asked for, what is in the file itself left out."""
        return [
            event["params"]["request"]["url"]
            for event in self._own("Network.requestWillBeSent")
            if not event["params"]["request"]["url"].startswith("data:")
        ]

    def complaints(self) -> list[str]:
        """What came to the console, and exceptions."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"])[:600] for kind in kinds for event in self._own(kind)]

    def _own(self, method: str) -> list[dict[str, Any]]:
        return [e for e in self._browser.events if e["method"] == method and e.get("sessionId") == self._session]
