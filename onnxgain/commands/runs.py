"""The runs that `track` shows: the result of every snapshot, by folder, and the file of records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxgain.errors import NonFiniteError, OnnxgainError, ZeroGradientError

if TYPE_CHECKING:
    from onnxgain.analysis.series import Found, Series
    from onnxgain.analysis.training_log import TrainingLog
    from onnxgain.commands.track_options import SeriesOptions
    from onnxgain.fleet.batch import Request, Result, Source


class Runs:
    """The runs so far."""

    def __init__(self, options: SeriesOptions) -> None:
        self._options = options
        self._snapshots: dict[str, dict[str, Found]] = {}
        self._store = None
        if options.records is not None:
            from onnxgain.fleet.record_lines import RecordLines

            self._store = RecordLines(options.records)

    def recall(self, sources: Iterable[Source], request: Request) -> dict[int, tuple[Any, ...]]:
        """The records of sources that the file of records already has, by index of the source."""
        if self._store is None:
            return {}
        recalled = {
            s.index: self._store.recall(s.path, request) for s in sources if s.error is None and not s.has_records
        }
        return {index: records for index, records in recalled.items() if records}

    def add_known(self, source: Source, records: tuple[Any, ...]) -> None:
        """Add a snapshot whose records are known."""
        from onnxgain.analysis.series import Found

        self._enter(Found(source.name, records, None, _modified(source.path)))

    def add(self, result: Result) -> None:
        """Add the result of a source."""
        from onnxgain.analysis.series import Found

        if result.source.has_records:
            for path, records in _by_model(result.records):
                self._enter(Found(path, records))
            if result.error is not None:
                self._enter(Found(result.source.name, problem=str(result.error)))
            return
        records = result.records if result.error is None else ()  # a snapshot must have all stimuli
        if records and self._store is not None:
            self._store.append(records)
        problem = None if result.error is None else str(result.error)
        broken = isinstance(result.error, (ZeroGradientError, NonFiniteError))
        diverged = isinstance(result.error, NonFiniteError)
        self._enter(Found(result.source.name, records, problem, _modified(result.source.path), broken, diverged))

    def _enter(self, found: Found) -> None:
        folder = found.path.replace("\\", "/").rpartition("/")[0]
        self._snapshots.setdefault(folder, {})[found.path] = found

    def series(self) -> list[Series]:
        """The runs, in the order in which their first snapshots were given."""
        from onnxgain.analysis.series import make_series
        from onnxgain.analysis.training_log import read_log

        if self._options.logs and len(self._options.logs) != len(self._snapshots):
            raise OnnxgainError(
                f"{len(self._options.logs)} logs are given for {len(self._snapshots)} runs",
                where="--log",
                remedy="give one log for each folder of snapshots, in their order",
            )
        logs: list[TrainingLog | None] = [read_log(path) for path in self._options.logs]
        logs = logs or [None] * len(self._snapshots)
        return [
            make_series(name, self._snapshots[folder].values(), order=self._options.order, log=log)
            for (folder, name), log in zip(_names(list(self._snapshots)).items(), logs, strict=True)
        ]


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _by_model(records: Sequence[Any]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    from onnxgain.analysis.baseline import by_model

    for path, found in by_model(records).items():
        yield path, tuple(found)


def _names(folders: Sequence[str]) -> dict[str, str]:
    """The name of each run: the shortest end of its folder's path that distinguishes it from the others."""
    parts = {folder: [part for part in folder.split("/") if part not in ("", ".")] for folder in folders}
    for length in range(1, max(map(len, parts.values()), default=1) + 1):
        names = {folder: "/".join(part[-length:]) or "." for folder, part in parts.items()}
        if len(set(names.values())) == len(names):
            return names
    return {folder: folder or "." for folder in folders}
