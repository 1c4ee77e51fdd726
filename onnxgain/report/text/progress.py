"""A progress bar for work that takes longer than a second, only on a terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

PATIENCE = 1.0
"""Delay before the bar appears, seconds."""


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that advances a bar on standard error by a number of steps. The bar disappears at the end.

    Work that is done within `PATIENCE` seconds shows no bar.
    """
    if not sys.stderr.isatty():
        yield lambda steps: None
        return
    bar = _Bar(label, total)
    timer = threading.Timer(PATIENCE, bar.show)
    timer.daemon = True
    timer.start()
    try:
        yield bar.advance
    finally:
        timer.cancel()
        bar.remove()


class _Bar:
    """Counts steps, and shows them from `show` until `remove`."""

    def __init__(self, label: str, total: int) -> None:
        self._label = label
        self._total = total
        self._done = 0
        self._removed = False
        self._shown: Progress | None = None
        self._lock = threading.Lock()

    def show(self) -> None:
        """Draw the bar, unless it has been removed in the meantime."""
        from rich import progress as rich
        from rich.console import Console

        # For a single step, the remaining work is unknown.
        several = (rich.MofNCompleteColumn(), rich.TimeRemainingColumn())
        counted = several if self._total > 1 else (rich.TimeElapsedColumn(),)
        columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), *counted)
        with self._lock:
            if self._removed:
                return
            self._shown = rich.Progress(*columns, console=Console(stderr=True), transient=True)
            self._shown.add_task(self._label, total=self._total if self._total > 1 else None, completed=self._done)
            self._shown.start()

    def advance(self, steps: int) -> None:
        """Count steps."""
        with self._lock:
            self._done += steps
            if self._shown is not None:
                self._shown.update(self._shown.task_ids[0], completed=self._done)

    def remove(self) -> None:
        """Remove the bar permanently."""
        with self._lock:
            self._removed = True
            if self._shown is not None:
                self._shown.stop()
