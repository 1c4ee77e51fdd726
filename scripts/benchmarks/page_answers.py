"""Measures how far into a page a reader must go to find an answer.

    python -m scripts.benchmarks.page_answers URL ANSWER [ANSWER ...] [--click TEXT ...] [--width 1280] [--height 800]

Opens the page in Chromium, clicks on the elements with the given texts (or CSS selectors, after `css=`) in turn, and
looks for each answer, a text on the page. Prints for each: clicks, pixels from the top of the page, whether it can be
read without scrolling, how many words stand before it, and seconds: loading and clicking as measured, 1.3 s for each
click (to find and to hit it), 0.24 s for each word read until the answer (250 words a minute), and 1 s for each further
screen.

Needs: playwright, and Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import dataclass
from typing import Any

CLICK, WORD, SCREEN = 1.3, 0.24, 1.0
"""Seconds."""
PATIENCE = 30_000
"""Milliseconds to wait for an element."""

_WORDS_BEFORE = """found => {
  let words = 0
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  for (let node = walker.nextNode(); node && !found.contains(node); node = walker.nextNode()) {
    const parent = node.parentElement
    if (parent.checkVisibility({visibilityProperty: true}) && !parent.closest('script, style, noscript'))
      words += (node.data.match(/\\S+/g) || []).length
  }
  return words
}"""


@dataclass(frozen=True)
class Answer:
    """Where an answer stands.

    Attributes:
        text: the answer.
        clicks: how many are needed.
        pixels: from the top of the page to the answer; None if the page does not have it.
        words: how many are before it.
        seconds: the time to find it, as modelled above.
        at_once: whether it is visible without scrolling.
    """

    text: str
    clicks: int
    pixels: int | None = None
    words: int = 0
    seconds: float = 0.0
    at_once: bool = False

    def row(self) -> str:
        """A row of the table."""
        if self.pixels is None:
            return f"| {self.text} | {self.clicks} | not on the page | | | |"
        seen = "yes" if self.at_once else "no"
        return f"| {self.text} | {self.clicks} | {self.pixels} | {seen} | {self.words} | {self.seconds:.1f} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("answers", nargs="+", metavar="ANSWER")
    parser.add_argument("--click", action="append", default=[], metavar="TEXT")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--picture", help="where to save what is visible at first")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": options.width, "height": options.height})
        began = time.perf_counter()
        page.goto(options.url, wait_until="load")
        for target in options.click:
            _located(page, target).click(timeout=PATIENCE)
        _located(page, options.answers[0]).wait_for(timeout=PATIENCE)
        loaded = time.perf_counter() - began
        print("| answer | clicks | pixels | at once | words before | seconds |\n|---|---:|---:|---|---:|---:|")
        for answer in options.answers:
            print(_found(page, answer, loaded, len(options.click), options.height).row())
        if options.picture:
            page.screenshot(path=options.picture)
        browser.close()


def _located(page: Any, target: str) -> Any:
    return page.locator(target if target.startswith("css=") else f"text={target}").first


def _found(page: Any, answer: str, loaded: float, clicks: int, height: int) -> Answer:
    from playwright.sync_api import Error

    place = _located(page, answer)
    try:
        place.wait_for(state="visible", timeout=PATIENCE // 5)
    except Error:
        return Answer(answer, clicks)
    top = round(place.bounding_box()["y"] + page.evaluate("window.scrollY"))
    words = place.evaluate(_WORDS_BEFORE)
    seconds = loaded + CLICK * clicks + WORD * words + SCREEN * (top // height)
    return Answer(answer, clicks, top, words, seconds, top < height and not clicks)


if __name__ == "__main__":
    main()
