"""Watches for files that are being written, and hands them out when they are whole.

A file is whole when neither its size nor its time of writing (nor those of the files whose names begin with its own,
where external data lie) has changed for `QUIET` seconds. That it can be loaded is for the reader to find out: a file
that was given back by `again` is handed out once more a little later, and at any time after it has changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

QUIET = 0.4
"""Seconds without a change after which a file counts as written."""

INTERVAL = 0.15
"""Seconds between two looks."""

PATIENCE = 6.0
"""Seconds for which a file that does not load is thought to be unfinished."""

Mark = tuple[tuple[str, int, int], ...]


@dataclass
class _State:
    mark: Mark
    since: float
    done: bool = False
    not_before: float = 0.0


class Watch:
    """Looks for new and changed files.

    Args:
        find: gives the files there are now.
        clock: for tests.
    """

    def __init__(self, find: Callable[[], Iterable[Path]], clock: Callable[[], float] = time.monotonic) -> None:
        self._find = find
        self._clock = clock
        self._states: dict[Path, _State] = {}

    def ready(self) -> list[Path]:
        """The files that are whole and have not been handed out as they are now."""
        now = self._clock()
        found: list[Path] = []
        for path in self._find():
            mark = _mark(path)
            if mark is None:
                continue
            state = self._states.get(path)
            if state is None or state.mark != mark:
                self._states[path] = _State(mark, now)
            elif not state.done and now - state.since >= QUIET and now >= state.not_before:
                state.done = True
                found.append(path)
        return found

    def again(self, path: Path) -> bool:
        """Hand out a file once more that could not be loaded; False where it has had time enough to be finished."""
        state, now = self._states[path], self._clock()
        if now - state.since > PATIENCE:
            return False
        state.done, state.not_before = False, now + 0.5
        return True

    @property
    def pending(self) -> bool:
        """Whether a file is not handed out yet."""
        return any(not state.done for path, state in self._states.items() if path.exists())


def _mark(path: Path) -> Mark | None:
    """What changes while a file and its external data are written; None where there is no such file."""
    try:
        beside = [e for e in os.scandir(path.parent) if e.name.startswith(path.name) and e.is_file()]
        marks = [(entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in beside]
    except OSError:
        return None
    return tuple(sorted(marks)) if any(name == path.name and size > 0 for name, size, _ in marks) else None


def models_in(folders: Sequence[Path], files: Sequence[Path] = ()) -> list[Path]:
    """The .onnx files that lie in folders and below, and those given; hidden ones are passed over."""
    found = [path for path in files if path.is_file()]
    for folder in folders:
        for here, below, names in os.walk(folder):
            below[:] = [name for name in below if not name.startswith(".")]
            found += [Path(here, n) for n in names if n.lower().endswith(".onnx") and not n.startswith(".")]
    return found
