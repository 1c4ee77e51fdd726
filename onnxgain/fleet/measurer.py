"""Turns sources into results: from a file of records, the cache, or a child process."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING

from onnxgain.errors import ModelError, OnnxgainError, UnreadableModelError
from onnxgain.fleet.cache import Cache
from onnxgain.fleet.cached_result import CachedResult, file_digest
from onnxgain.fleet.pool import Slot
from onnxgain.fleet.remote import Downloads
from onnxgain.fleet.result import Result, from_records, of_source
from onnxgain.fleet.sources import Source
from onnxgain.measure.record_file import read_records
from onnxgain.measure.request import Request
from onnxgain.model.companions import read_companions

if TYPE_CHECKING:
    from onnxgain.fleet.cluster import RemoteSlot

    Place = Slot | RemoteSlot


class Measurer:
    """Turns sources into results. Several threads may share it.

    Args:
        request: what to measure; a source's own `scale` overrides the request's.
        cache: where results are looked up and stored; None for no cache.
        memory_limit: the limit of the child processes.
        downloads: where models from URLs are stored; None for the default cache folder.

    Raises:
        OnnxgainError: a photograph or a library of operators cannot be read.
    """

    def __init__(
        self, request: Request, cache: Cache | None, memory_limit: int | None, downloads: Downloads | None = None
    ) -> None:
        self.request = request
        self.digests = request.digests()
        self.cache = cache
        self.memory_limit = memory_limit
        self.downloads = downloads or Downloads()

    def result(self, source: Source, slot: Place) -> Result:
        """The result of a source; if it has to be measured, wait for the slot's child."""
        start = time.perf_counter()
        if source.error is not None:
            result = Result(source, error=source.error, origin="file")
        elif source.has_records:
            result = _saved(source)
        else:
            result = of_source(self._fetched(source, slot), source)
        return dataclasses.replace(result, seconds=time.perf_counter() - start)

    def _fetched(self, source: Source, slot: Place) -> Result:
        if source.url is None:
            return self._recalled_or_measured(source, source.path, slot)
        try:
            path = self.downloads.model(source.url)
            result = self._recalled_or_measured(source, path, slot)
            if not self.downloads.complete(source.url, path, result.external):
                return result
        except OnnxgainError as error:
            return Result(source, error=error)
        return self._recalled_or_measured(source, path, slot)

    def _recalled_or_measured(self, source: Source, path: Path, slot: Place) -> Result:
        request = self.request.with_scale(source.scale)
        if self.cache is None:
            return slot.measure(path, request)
        deadline = None if slot.timeout is None else time.monotonic() + slot.timeout
        try:
            digest = file_digest(path, deadline)
            # The result depends on these files: they say how to preprocess images for the model.
            companions = read_companions(path)
        except ModelError as error:
            beside = error.where if error.where != str(path) else None
            return Result(source, error=type(error)(error.what, where=beside, remedy=error.remedy))
        except OSError as problem:
            reason = problem.strerror or str(problem)
            return Result(source, error=UnreadableModelError(f"cannot be read: {reason}", remedy="check the file"))
        values = request.to_json() | self.digests | ({"companions": companions} if companions else {})
        cached = CachedResult(self.cache, path, digest, values, deadline)
        result = cached.recall(self.memory_limit)
        if result is None:
            result = slot.measure(path, request)
            cached.deadline = None if slot.timeout is None else time.monotonic() + slot.timeout
            cached.keep(result, self.memory_limit)
        return result


def _saved(source: Source) -> Result:
    try:
        return Result(source, from_records(read_records(source.path)), origin="file")
    except OnnxgainError as error:
        return Result(source, error=error, origin="file")
