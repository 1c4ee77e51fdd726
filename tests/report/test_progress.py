"""The progress bar appears after a second, only on a terminal, for any number of steps."""

from __future__ import annotations

import io
import sys
import time

import pytest

from onnxgain.report.text import progress as module
from onnxgain.report.text.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal_for(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Replace standard error from here on. A fixture cannot, as pytest sets it again before the test."""
    made = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", made)
    return made


def wait_for(terminal: Terminal, text: str) -> None:
    end = time.monotonic() + 30
    while text not in terminal.getvalue() and time.monotonic() < end:
        time.sleep(0.02)
    assert text in terminal.getvalue()


def test_short_work_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    with progress("measuring", 100) as advance:
        advance(100)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize(("total", "shown"), [(1, "0:00:0"), (3, "2/3"), (100, "2/100")])
def test_bar_of_long_work_includes_earlier_steps(total: int, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    with progress("measuring", total) as advance:
        advance(1)
        wait_for(terminal, "measuring")
        advance(1)
        wait_for(terminal, shown)


def test_bar_removed_before_it_shows_stays_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    bar = module._Bar("measuring", 3)
    bar.remove()
    bar.show()
    bar.advance(1)
    assert terminal.getvalue() == ""


def test_no_bar_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    with progress("measuring", 100) as advance:
        time.sleep(0.1)
        advance(1)
    assert written.getvalue() == ""
