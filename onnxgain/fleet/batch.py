"""Measures many models: in child processes that share the cores, with a cache, and one error for one bad model.

`score_batch` is what compare and its relatives are built on:

    cache = Cache(default_folder())
    for result in score_batch(collect_models(["exports/"]), Request(), cache=cache):
        print(result.source.name, result.error or result.records)

A result is in the cache before it is handed out. So a run that is killed at any moment loses at most the models being
measured just then, and the same call takes up where it ended. A model whose result is cached costs its hash: no child
is started, and neither onnx nor onnxruntime is imported.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import queue
import stat
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from onnxgain.engine.device import CPU, Device
from onnxgain.engine.environment import usable_cores, usable_memory
from onnxgain.errors import ModelError, OnnxgainError, UnsupportedOperatorError, ZeroGradientError, located
from onnxgain.fleet.answer import Answer
from onnxgain.fleet.cache import Cache, default_folder, key_of
from onnxgain.fleet.child import COMMAND
from onnxgain.fleet.error_json import error_from_json, error_to_json
from onnxgain.fleet.pool import Plan, Slot, require_no_limit
from onnxgain.fleet.remote import Downloads
from onnxgain.fleet.sources import Source, collect_models
from onnxgain.measure import preview
from onnxgain.measure.preview import Preview
from onnxgain.measure.record import Record, from_json, to_json
from onnxgain.measure.record_file import read_records
from onnxgain.measure.request import Request

if TYPE_CHECKING:
    from onnxgain.fleet.cluster import Cluster, RemoteSlot

    Place = Slot | RemoteSlot

__all__ = ["Cache", "Plan", "Request", "Result", "Source", "collect_models", "default_folder", "plan", "score_batch"]

TIMEOUT = 120.0
"""Seconds a model may take."""

_LEAST_MEMORY = 2 << 30
"""Bytes that each of several processes should have."""

_LASTING = (ModelError, UnsupportedOperatorError, ZeroGradientError)
"""Errors that a model has every time; others (a crash, a timeout) are tried again."""


@dataclass(frozen=True)
class Result:
    """What came of a source: records, or the reason that there are none.

    Attributes:
        origin: "measured" now, from the "cache", or from a "file" of saved records.
        seconds: what that took.
        previews: pictures of the records, one each, where the request asks for them; saved records have none.
    """

    source: Source
    records: tuple[Record, ...]
    error: OnnxgainError | None
    origin: Literal["measured", "cache", "file"]
    seconds: float
    previews: tuple[Preview, ...] = ()


# ---------------------------------------------------------------------------------------- sharing the machine
def plan(
    models: int,
    *,
    jobs: int | None = None,
    threads: int | None = None,
    memory_limit: int | None = None,
    device: Device = CPU,
) -> Plan:
    """Share the machine's cores and memory among processes. What is given is taken as it is.

    One model gets all cores; several are measured at the same time, each with its part. A process may use its share of
    nine tenths of the memory; fewer run at a time where each would have less than 2 GiB. Any other device than the CPU
    is given to one process at a time, without a limit: drivers reserve more addresses than any machine has memory.

    Raises:
        OnnxgainError: a memory limit for such a device.
    """
    require_no_limit(device, memory_limit)
    if not device.is_cpu:
        return Plan(jobs or 1, threads or max(usable_cores() // (jobs or 1), 1), None)
    cores, memory = usable_cores(), usable_memory()
    if jobs is None:
        fitting = max(memory // _LEAST_MEMORY, 1) if memory is not None else cores
        jobs = max(min(cores // (threads or 1), models, fitting), 1)
    if memory_limit is None and memory is not None:
        memory_limit = memory * 9 // 10 // jobs
    return Plan(jobs, threads or max(cores // jobs, 1), memory_limit)


def score_batch(
    sources: Sequence[Source],
    request: Request,
    *,
    jobs: int | None = None,
    threads: int | None = None,
    timeout: float | None = TIMEOUT,
    memory_limit: int | None = None,
    cache: Cache | None = None,
    command: Sequence[str] = COMMAND,
    cluster: Cluster | None = None,
    downloads: Downloads | None = None,
) -> Generator[Result]:
    """Measure models, and read saved records; yield one result a source as it is ready, in no particular order.

    Sort the results by `source.index` for the order of the arguments. Closing the iterator ends the children.

    Args:
        sources: from `collect_models`.
        request: what to measure; a source's own `scale` goes before the request's.
        jobs, threads, memory_limit: see `plan`. The limit is enforced on Linux.
        timeout: seconds a model may take, None for no limit.
        cache: where results are looked up and kept, None for neither.
        command: what to start as a child.
        cluster: where to measure instead of on this machine (`onnxgain.fleet.cluster`).
        downloads: where models that are URLs go; beside the default cache where None.

    Raises:
        RuntimeUnavailableError: no usable onnxruntime.
        OnnxgainError: no child process can be started, a photograph cannot be read, or the memory limit is below what
            a process needs before it has read a model.
    """
    models = sum(1 for source in sources if source.error is None and not source.has_records)
    asked: Any = {"jobs": jobs, "threads": threads, "memory_limit": memory_limit, "device": request.device}
    shared = plan(models, **asked) if cluster is None else cluster.plan(**asked)
    measurer = Measurer(request, cache, shared.memory_limit, downloads)
    waiting: queue.SimpleQueue[Source] = queue.SimpleQueue()
    for source in sorted(sources, key=_size, reverse=True):
        waiting.put(source)
    done: queue.SimpleQueue[Result | BaseException] = queue.SimpleQueue()
    stop = threading.Event()
    slots: list[Place] = [
        Slot(threads=shared.threads, timeout=timeout, memory_limit=shared.memory_limit, command=command)
        if cluster is None
        else cluster.slot(shared, timeout=timeout, device=request.device, reserve=memory_limit is not None)
        for _ in range(min(shared.jobs, len(sources)))
    ]
    workers = [
        threading.Thread(target=_work, args=(measurer, slot, waiting, done, stop), daemon=True) for slot in slots
    ]
    for worker in workers:
        worker.start()
    try:
        for _ in sources:
            yield _next(done)
    finally:
        stop.set()
        for slot in slots:
            slot.close()
        for worker in workers:
            worker.join(2.0)


def _size(source: Source) -> int:
    """Bytes of a source's file. The largest go first: one of them at the end would keep one process busy alone."""
    try:
        return source.path.stat().st_size if source.error is None else 0
    except OSError:
        return 0


def _next(done: queue.SimpleQueue[Result | BaseException]) -> Result:
    """The next result; in short waits, because on Windows a long one cannot be interrupted."""
    while True:
        try:
            result = done.get(timeout=1.0)
        except queue.Empty:
            continue
        if isinstance(result, BaseException):
            raise result
        return result


def _work(
    measurer: Measurer,
    slot: Place,
    waiting: queue.SimpleQueue[Source],
    done: queue.SimpleQueue[Result | BaseException],
    stop: threading.Event,
) -> None:
    """Take sources until there are none. A problem that is not a source's own ends the batch."""
    with slot:
        while not stop.is_set():
            try:
                done.put(measurer.result(waiting.get_nowait(), slot))
            except queue.Empty:
                return
            except BaseException as error:
                done.put(error)
                return


# ------------------------------------------------------------------------------------------ one source
class Measurer:
    """Turns sources into results: from a file of records, the cache, or a child. Used by several threads."""

    def __init__(
        self, request: Request, cache: Cache | None, memory_limit: int | None, downloads: Downloads | None = None
    ) -> None:
        self.request = request.to_json()
        self.digests = request.digests()
        self.cache = cache
        self.memory_limit = memory_limit
        self.downloads = downloads or Downloads(default_folder())

    def result(self, source: Source, slot: Place) -> Result:
        """The result of a source; waits for the slot's child where it has to be measured."""
        start = time.perf_counter()
        origin: Literal["measured", "cache", "file"] = "file"
        records: Sequence[Record] = ()
        previews: tuple[Preview, ...] = ()
        error = source.error
        if error is None and source.has_records:
            records, error = _saved_records(source.path)
        elif error is None:
            origin, answer = self._fetched(source, slot)
            records = [renamed(record, source) for record in answer.records]
            previews = answer.previews
            error = answer.error and located(answer.error, source.name)
        return Result(source, tuple(records), error, origin, time.perf_counter() - start, previews)

    def _fetched(self, source: Source, slot: Place) -> tuple[Literal["measured", "cache"], Answer]:
        if source.url is None:
            return self._answer(source, source.path, slot)
        try:
            path = self.downloads.model(source.url)
        except OnnxgainError as error:
            return "measured", Answer(error=error)
        origin, answer = self._answer(source, path, slot)
        try:
            if not self.downloads.complete(source.url, path, answer.external):
                return origin, answer
        except OnnxgainError as error:
            return "measured", Answer(error=error)
        return self._answer(source, path, slot)

    def _answer(self, source: Source, path: Path, slot: Place) -> tuple[Literal["measured", "cache"], Answer]:
        request = self.request
        if source.scale is not None:
            request = request | {"scale": dataclasses.asdict(source.scale)}
        if self.cache is None:
            return "measured", slot.measure(str(path), request)
        try:
            digest = _file_digest(path)
        except OSError as problem:
            reason = problem.strerror or str(problem)
            return "measured", Answer(error=ModelError(f"cannot be read: {reason}", remedy="check the file"))
        entry = _Entry(self.cache, path, digest, request | self.digests)
        answer = entry.recall(self.memory_limit)
        if answer is not None:
            return "cache", answer
        answer = slot.measure(str(path), request)
        entry.keep(answer, self.memory_limit)
        return "measured", answer


def renamed(record: Record, source: Source) -> Record:
    """The record under the name that the model has now: the cache knows contents, not names."""
    model = dataclasses.replace(record.model, path=source.name, name=source.file_name)
    return dataclasses.replace(record, model=model)


def _saved_records(path: Path) -> tuple[list[Record], OnnxgainError | None]:
    try:
        return read_records(path), None
    except OnnxgainError as error:
        return [], error


# ---------------------------------------------------------------------------------------------- the cache
class _Entry:
    """A model's place in the cache.

    The key is the content of the model file, that of its external data, the request, and the software. Which files
    hold external data follows from the model file, but only a parser can say: so that is kept in an entry of its own.
    """

    def __init__(self, cache: Cache, path: Path, digest: str, request: Mapping[str, Any]) -> None:
        self.cache = cache
        self.path = path
        self.digest = digest
        # Pictures have entries of their own: records are the same with and without them.
        kept = {name: value for name, value in request.items() if name not in ("picture_side", "arrays", "series")}
        self.request = kept
        self.picture_side = request["picture_side"]

    def recall(self, memory_limit: int | None) -> Answer | None:
        """The answer kept for just this content and request; None where there is none."""
        try:
            for content in self._contents():
                text = self.cache.get(self._key(content))
                if text is not None:
                    return self._recalled(json.loads(text), content, memory_limit)
            return None
        except (ValueError, KeyError, TypeError, OnnxgainError):
            return None

    def _contents(self) -> Iterator[str]:
        """The content that the model may have: its file alone, or with what is known as its external data."""
        yield self.digest
        listed = self.cache.get(self._external_key())
        content = _content_digest(self.path, json.loads(listed)) if listed is not None else None
        if content is not None:
            yield content

    def _recalled(self, kept: dict[str, Any], content: str, memory_limit: int | None) -> Answer | None:
        if "records" not in kept:
            # With more memory, what failed may succeed: an error holds for the limit it was met under, and lower ones.
            met = kept["memory_limit"]
            holds = met is None or (memory_limit is not None and memory_limit <= met)
            return Answer(error=error_from_json(kept["error"])) if holds else None
        records = tuple(from_json(kept["records"]))
        if not self.picture_side:
            return Answer(records)
        text = self.cache.get(self._picture_key(content))
        return Answer(records, previews=tuple(map(preview.from_json, json.loads(text)))) if text is not None else None

    def keep(self, answer: Answer, memory_limit: int | None) -> None:
        """Keep an answer, if the model would give it again and its files are still those that were hashed."""
        if answer.external is None or (answer.error is not None and not isinstance(answer.error, _LASTING)):
            return
        folder = self.path.parent
        try:
            external = [str(Path(file).relative_to(folder)) for file in answer.external]
            content = _content_digest(self.path, external)
        except (OSError, ValueError):
            return
        measured = {record.model.sha256 for record in answer.records}
        if content is None or not measured <= {content} or (not external and content != self.digest):
            return
        if external:
            self.cache.put(self._external_key(), json.dumps(external))
        if answer.error is not None:
            kept: dict[str, Any] = {"error": error_to_json(answer.error), "memory_limit": memory_limit}
        else:
            kept = {"records": to_json(answer.records)}
            if answer.previews:
                self.cache.put(self._picture_key(content), json.dumps([preview.to_json(p) for p in answer.previews]))
        self.cache.put(self._key(content), json.dumps(kept))

    def _key(self, content: str) -> str:
        return key_of("answer", self.digest, content, self.request)

    def _picture_key(self, content: str) -> str:
        return key_of("pictures", self.digest, content, self.request, self.picture_side)

    def _external_key(self) -> str:
        return key_of("external", self.digest)


def _content_digest(path: Path, external: Sequence[str]) -> str | None:
    """As `onnxgain.model.model_file.content_hash` gives it; None where a name leads out of the folder or to nothing."""
    digest = hashlib.sha256()
    for name in ("", *external):
        if name and (Path(name).is_absolute() or ".." in Path(name).parts):
            return None
        try:
            _update(digest, path.parent / name if name else path)
        except OSError:
            return None
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    _update(digest, path)
    return digest.hexdigest()


def _update(digest: hashlib._Hash, path: Path) -> None:
    """Hash a file; raises OSError where it is none (a pipe would wait for ever)."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(None, "not a regular file")
    with path.open("rb") as stream:
        hashlib.file_digest(stream, lambda: digest)
