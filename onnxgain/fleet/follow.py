"""Watches for files that are being written, and returns them when they are complete.

A file counts as complete when its size and modification time, and those of files whose names start with its name
(external data), have not changed for `QUIET` seconds. Whether it can be loaded is up to the caller: after a call of
`again`, the file is returned once more a little later, or when it has changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

QUIET = 0.4
"""Seconds without a change after which a file counts as complete."""

INTERVAL = 0.15
"""Seconds between two checks."""

PATIENCE = 6.0
"""Seconds since the last change during which a file that cannot be loaded is considered incomplete."""

Mark = tuple[tuple[str, int, int], ...]


@dataclass
class _State:
    mark: Mark
    since: float
    done: bool = False
    not_before: float = 0.0


class Watch:
    """Finds new and changed files.

    Args:
        find: returns the files that exist now.
        clock: a monotonic clock in seconds; tests replace it.
    """

    def __init__(self, find: Callable[[], Iterable[Path]], clock: Callable[[], float] = time.monotonic) -> None:
        self._find = find
        self._clock = clock
        self._states: dict[Path, _State] = {}

    def ready(self) -> list[Path]:
        """The complete files that have not been returned in their current state."""
        now = self._clock()
        complete: list[Path] = []
        for path in self._find():
            mark = _mark(path)
            if mark is None:
                continue
            state = self._states.get(path)
            if state is None or state.mark != mark:
                self._states[path] = _State(mark, now)
            elif not state.done and now - state.since >= QUIET and now >= state.not_before:
                state.done = True
                complete.append(path)
        return complete

    def again(self, path: Path) -> bool:
        """Schedule a file that could not be loaded to be returned again; False if it has not changed for `PATIENCE`."""
        state, now = self._states[path], self._clock()
        if now - state.since > PATIENCE:
            return False
        state.done, state.not_before = False, now + 0.5
        return True

    @property
    def pending(self) -> bool:
        """Whether a file exists that has not been returned in its current state."""
        return any(not state.done for path, state in self._states.items() if path.exists())


def _mark(path: Path) -> Mark | None:
    """Names, sizes and modification times of a file and its external data; None if the file is missing or empty."""
    try:
        entries = [e for e in os.scandir(path.parent) if e.name.startswith(path.name) and e.is_file()]
        marks = [(entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries]
    except OSError:
        return None
    return tuple(sorted(marks)) if any(name == path.name and size > 0 for name, size, _ in marks) else None


def models_in(folders: Sequence[Path], files: Sequence[Path] = ()) -> list[Path]:
    """Those of ``files`` that exist, and the .onnx files in ``folders`` and their subfolders, except hidden ones."""
    models = [path for path in files if path.is_file()]
    for folder in folders:
        for current, subfolders, names in os.walk(folder):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            models += [Path(current, n) for n in names if n.lower().endswith(".onnx") and not n.startswith(".")]
    return models
