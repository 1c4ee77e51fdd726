"""The child process that measures models: `python -m onnxgain.fleet.worker [BYTES]`.

It reads requests from standard input and writes one reply to each to standard output, as messages
(`onnxgain.fleet.protocol`). It exits when its input ends, for example because the parent was killed.
`onnxgain.fleet.child` is the parent's side.

    child:  {"ready": version}, or {"error": ...} before it exits
    parent: {"id": 1, "path": "model.onnx", "request": Request.to_json(), "threads": 1}
    child:  {"id": 1, ...} with the values of `onnxgain.fleet.result.result_to_json`
    parent: {"id": 2, ..., "verify": true}
    child:  {"id": 2, ...} with the values of `onnxgain.fleet.result.verified_to_json`
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from onnxgain.engine.startup import start_soon
from onnxgain.errors import (
    DeviceError,
    OnnxgainError,
    OutOfMemoryError,
    ZeroGradientError,
    first_line,
    is_about_memory,
)
from onnxgain.fleet.protocol import Message, error_to_json, read_message, write_message

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnxgain.measure.measurement import Measurement
    from onnxgain.measure.request import Request
    from onnxgain.measure.snapshots import Snapshots
    from onnxgain.model.model_file import Content


def main() -> None:
    """Serve requests until the input ends."""
    start_soon()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of the group; the parent handles it
    requests, replies = _own_streams()
    waiting: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests, waiting), daemon=True).start()
    refusal = _prepare(int(sys.argv[1]) if len(sys.argv) > 1 else None)
    if refusal is not None:
        write_message(replies, {"error": error_to_json(refusal)})
        return
    import gc

    from onnxgain.engine.environment import VERSION

    gc.collect()
    gc.freeze()  # scanning the modules after each model would take longer than measuring a small model
    _be_silent()
    write_message(replies, {"ready": VERSION})
    while True:
        message = waiting.get()
        write_message(replies, {"id": message["id"]} | _reply(message))
        gc.collect()  # graphs have reference cycles: without this, their weights would accumulate


def _own_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Input and output of the protocol. From now on, prints of native code go to standard error instead."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return requests, replies


def _be_silent() -> None:
    """From now on, discard what native code prints."""
    if not os.environ.get("ONNXGAIN_DEBUG"):
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)


def _receive(requests: IO[bytes], waiting: queue.SimpleQueue[Message]) -> None:
    """Queue the parent's requests; when the parent has exited, exit at once, even during a measurement."""
    try:
        while (message := read_message(requests)) is not None:
            waiting.put(message)
    finally:
        os._exit(0)


def _prepare(memory_limit: int | None) -> OnnxgainError | None:
    """Import all modules and limit the memory; return the error if no model can be measured."""
    try:
        import onnxgain.measure.measure  # noqa: F401
        from onnxgain.engine import runtime

        runtime.load()
        if memory_limit is not None:
            _limit_memory(memory_limit)
    except OnnxgainError as error:
        return error
    return None


def _limit_memory(limit: int) -> None:
    """Limit this process's resident memory to about ``limit`` bytes, and disable core dumps.

    The system can limit only address space, so memory that is mapped but not resident now (libraries, stacks) is added
    to the limit. This is for Linux only: other systems do not report mapped memory or do not enforce the limit.

    Raises:
        OnnxgainError: the process already uses more.
    """
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = Path("/proc/self/statm").read_text().split()
    mapped, resident = (int(count) * resource.getpagesize() for count in pages[:2])
    if limit <= resident:
        raise OnnxgainError(
            f"measuring needs {resident / 1e6:.0f} MB before it has read a model",
            where=f"--memory-limit {limit / 1e6:.0f} MB",
            remedy="raise it",
        )
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = mapped + limit - resident
    resource.setrlimit(resource.RLIMIT_AS, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _reply(message: Message) -> Message:
    """Measure the model of a request; any exception becomes an error in the reply."""
    from onnxgain.fleet.result import Result, result_to_json
    from onnxgain.fleet.sources import Source
    from onnxgain.measure.request import Request

    source = Source(0, Path(message["path"]))
    try:
        request = Request.from_json(message["request"])
        if message.get("verify"):
            return _verify(source.path, request, message["threads"])
        content, measurements = _measure(source.path, request, message["threads"])
        done, problem = _until_error(measurements, source.path)
        if problem is not None and not done:
            raise problem
        external = () if content is None else tuple(str(file) for file in content.external)
        return result_to_json(Result(source, tuple(done), problem, external=external), arrays=request.arrays)
    except Exception as error:
        problem = _without_path(_as_user_error(error), source.path)
        return result_to_json(Result(source, error=problem, external=_external_files(source.path)))


def _verify(path: Path, request: Request, threads: int) -> Message:
    """Verify the gradient at every stimulus."""
    from onnxgain.fleet.result import Verified, verified_to_json
    from onnxgain.measure.verify import verify_gradient
    from onnxgain.model.classifier import load_classifier

    classifier = load_classifier(path, request.reading)
    checks = []
    for stimulus in request.stimuli_for(classifier):
        check = verify_gradient(
            classifier,
            stimulus,
            projection=request.projection,
            class_index=request.class_index,
            threads=threads,
            device=request.device,
        )
        checks.append(Verified(check.agrees, check.text()))
    return verified_to_json(checks)


def _until_error(measurements: Iterable[Measurement], path: Path) -> tuple[list[Measurement], OnnxgainError | None]:
    """The measurements, and the error about stimuli without a gain, if any."""
    done: list[Measurement] = []
    try:
        done.extend(measurements)
    except ZeroGradientError as error:
        return done, _without_path(error, path)
    return done, None


def _as_user_error(error: Exception) -> OnnxgainError:
    if isinstance(error, OnnxgainError):
        # A DeviceError is about the memory of a device, not of this process.
        own = not isinstance(error, DeviceError) and is_about_memory(str(error))
        return OutOfMemoryError("not enough memory") if own else error
    if isinstance(error, MemoryError) or is_about_memory(str(error)):
        return OutOfMemoryError("not enough memory")
    if isinstance(error, RecursionError):
        return OnnxgainError("its graphs are nested too deeply", remedy="export the model without nested functions")
    return OnnxgainError(
        f"a bug in onnxgain: {type(error).__name__} {first_line(error)}".rstrip(),
        remedy="please report it with the output of `ONNXGAIN_DEBUG=1 onnxgain score` for this model",
    )


def _without_path(error: OnnxgainError, path: Path) -> OnnxgainError:
    """The error without the model's path: the parent adds the name that it shows for the model."""
    if error.where is None or not error.where.startswith(str(path)):
        return error
    where = error.where[len(str(path)) :].removeprefix(": ") or None
    return type(error)(error.what, where=where, remedy=error.remedy)


def _measure(path: Path, request: Request, threads: int) -> tuple[Content | None, Iterable[Measurement]]:
    return (_measure_snapshot if request.series else _measure_alone)(path, request, threads)


def _measure_alone(path: Path, request: Request, threads: int) -> tuple[Content | None, Iterable[Measurement]]:
    from onnxgain.measure.measure import measure
    from onnxgain.model.classifier import load_classifier

    start = time.perf_counter()
    classifier = load_classifier(path, request.reading)
    seconds = time.perf_counter() - start
    return classifier.content, measure(classifier, request, threads=threads, read_seconds=seconds)


_series: dict[str, Snapshots] = {}
"""The `Snapshots` object of the current request, by the request."""


def _measure_snapshot(path: Path, request: Request, threads: int) -> tuple[Content | None, Iterable[Measurement]]:
    from onnxgain.measure.snapshots import Snapshots

    key = json.dumps([request.to_json(), threads])
    if key not in _series:
        _series.clear()
        _series[key] = Snapshots(request, threads)
    return _series[key].measure(path)


def _external_files(path: Path) -> tuple[str, ...] | None:
    """The external files that a failure may depend on; None if they cannot be determined."""
    from onnxgain.model.screening import external_locations

    try:
        return tuple(str(path.parent / name) for name in external_locations(path))
    except (OSError, MemoryError):
        return None


if __name__ == "__main__":
    main()
