"""Measures many models in child processes that share the cores, with a cache. A bad model gives an error of its own.

`compare` and other commands are built on `score_batch`:

    cache = Cache(default_folder())
    for result in score_batch(collect_models(["exports/"]), Request(), cache=cache):
        print(result.source.name, result.error or result.records)

A result is in the cache before it is yielded. So a run that is killed loses at most the models being measured at that
moment, and the same call resumes the work. A model with a cached result costs only the hash of its file: no child is
started, and neither onnx nor onnxruntime is imported.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from onnxgain.fleet.cache import Cache, default_folder
from onnxgain.fleet.child import COMMAND
from onnxgain.fleet.measurer import Measurer
from onnxgain.fleet.pool import Limits, Slot
from onnxgain.fleet.remote import Downloads
from onnxgain.fleet.result import Result
from onnxgain.fleet.sources import Source, collect_models
from onnxgain.measure.request import Request

if TYPE_CHECKING:
    from onnxgain.fleet.cluster import Cluster
    from onnxgain.fleet.measurer import Place

__all__ = ["Cache", "Limits", "Request", "Result", "Source", "collect_models", "default_folder", "score_batch"]


def score_batch(
    sources: Sequence[Source],
    request: Request,
    limits: Limits | None = None,
    *,
    cache: Cache | None = None,
    command: Sequence[str] = COMMAND,
    cluster: Cluster | None = None,
    downloads: Downloads | None = None,
) -> Generator[Result]:
    """Measure models and read saved records; yield one result per source as soon as it is ready, in any order.

    Sort the results by `source.index` to get the order of the arguments. Closing the generator kills the children.

    Args:
        sources: from `collect_models`.
        request: what to measure; a source's own `scale` overrides the request's.
        limits: how to share the machine, and limits per model.
        cache: where results are looked up and stored; None for no cache.
        command: the command that starts a child.
        cluster: a cluster to measure on instead of this machine (`onnxgain.fleet.cluster`).
        downloads: where models from URLs are stored; None for the default cache folder.

    Raises:
        RuntimeUnavailableError: no usable onnxruntime.
        OnnxgainError: no child process can be started, a photograph cannot be read, or the memory limit is less than a
            process needs before it reads a model.
    """
    limits = limits or Limits()
    models = sum(1 for source in sources if source.error is None and not source.has_records)
    plan = limits.plan(models, request.device) if cluster is None else cluster.plan(limits, request.device)
    measurer = Measurer(request, cache, plan.memory_limit, downloads)
    waiting: queue.SimpleQueue[Source] = queue.SimpleQueue()
    for source in sorted(sources, key=_size, reverse=True):
        waiting.put(source)
    done: queue.SimpleQueue[Result | BaseException] = queue.SimpleQueue()
    stop = threading.Event()
    slots: list[Place] = [
        Slot(plan, command) if cluster is None else cluster.slot(plan, request.device, limits)
        for _ in range(min(plan.jobs, len(sources)))
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
        measurer.downloads.abandon()


def _size(source: Source) -> int:
    """Bytes of a source's file. The largest are measured first, so that the run does not end with one busy process."""
    try:
        return source.path.stat().st_size if source.error is None else 0
    except OSError:
        return 0


def _next(done: queue.SimpleQueue[Result | BaseException]) -> Result:
    """Wait for the next result, in short steps, because Windows cannot interrupt a long wait."""
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
    """Process sources until there are none left. An error that does not belong to a source ends the batch."""
    with slot:
        while not stop.is_set():
            try:
                done.put(measurer.result(waiting.get_nowait(), slot))
            except queue.Empty:
                return
            except BaseException as error:
                done.put(error)
                return
