"""The child process that measures models for another: `python -m onnxgain.fleet.worker [BYTES]`.

It reads requests from standard input and writes one reply each to standard output, as messages: four bytes of length
(big-endian), then that many bytes of JSON. Nothing else is exchanged, so a child can send its parent data only. It
exits when its input ends, which it does too when the parent is killed. `onnxgain.fleet.child` is the other end.

    child:  {"ready": version}                                   or {"error": ...}, then it ends
    parent: {"id": 1, "path": "model.onnx", "request": Request.to_json(), "threads": 1}
    child:  {"id": 1, "records": "<onnxgain.records/1>", "previews": [of each, if wanted],
             "arrays": [of each, if wanted], "external": [files]}
        or  {"id": 1, "error": {"type", "what", "where", "remedy"}, "external": [files] or null where unknown}
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from onnxgain.engine.deferred_import import defer_sympy
from onnxgain.errors import DeviceError, OnnxgainError, is_about_memory

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnxgain.measure.measurement import Measurement
    from onnxgain.measure.record import Record
    from onnxgain.measure.request import Request
    from onnxgain.measure.snapshots import Snapshots
    from onnxgain.model.model_file import Content

MESSAGE_LIMIT = 1 << 28
"""Bytes of the longest message; a longer one is garbage."""

OUT_OF_MEMORY = "MemoryError"
"""The type of an error that says that memory ran out."""

Message = dict[str, Any]


# ------------------------------------------------------------------------------------------------- messages
def write_message(stream: IO[bytes], message: Message) -> None:
    """Send a message.

    Raises:
        OSError: the other end is gone.
        ValueError: the message is too long.
    """
    data = json.dumps(message, allow_nan=False).encode()
    if len(data) > MESSAGE_LIMIT:
        raise ValueError(f"a message of {len(data)} bytes; at most {MESSAGE_LIMIT} can be sent")
    stream.write(len(data).to_bytes(4, "big") + data)
    stream.flush()


def read_message(stream: IO[bytes]) -> Message | None:
    """Wait for the next message; None at the end of the stream.

    Raises:
        ValueError: what arrives is not a message.
    """
    header = stream.read(4)
    if not header:
        return None
    length = int.from_bytes(header, "big")
    if length > MESSAGE_LIMIT:
        raise ValueError("not a message")
    data = stream.read(length)
    if len(header) < 4 or len(data) < length:
        return None
    try:
        message = json.loads(data)
    except RecursionError as error:
        raise ValueError("not a message") from error
    if not isinstance(message, dict):
        raise ValueError("not a message")
    return message


# ---------------------------------------------------------------------------------------------------- child
def main() -> None:
    """Serve requests until the input ends."""
    defer_sympy()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means.
    requests, replies = _own_streams()
    waiting: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests, waiting), daemon=True).start()
    refusal = _prepare(int(sys.argv[1]) if len(sys.argv) > 1 else None)
    if refusal is not None:
        write_message(replies, {"error": _error(refusal)})
        return
    import gc

    from onnxgain.engine.environment import VERSION

    gc.collect()
    gc.freeze()  # the modules stay: looking through them after each model takes longer than a small model does
    _be_silent()
    write_message(replies, {"ready": VERSION})
    while True:
        message = waiting.get()
        write_message(replies, {"id": message["id"]} | _reply(message))
        gc.collect()  # graphs are full of cycles: without this, their weights pile up


def _own_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Input and output of the protocol. What native code prints goes to standard error from here on."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return requests, replies


def _be_silent() -> None:
    """Drop what native code prints about models from here on."""
    if not os.environ.get("ONNXGAIN_DEBUG"):
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)


def _receive(requests: IO[bytes], waiting: queue.SimpleQueue[Message]) -> None:
    """Queue what the parent asks; end the process, whatever it does just now, when the parent is gone."""
    try:
        while (message := read_message(requests)) is not None:
            waiting.put(message)
    finally:
        os._exit(0)


def _prepare(memory_limit: int | None) -> OnnxgainError | None:
    """Import everything, then limit the memory; the reason, where no model can be measured."""
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
    """Let this process's resident memory grow to about ``limit`` bytes, and write no core dumps.

    The system limits address space. What is mapped but not resident now (libraries, stacks) is added to the limit.
    Linux only: elsewhere the system either does not say what is mapped or does not enforce the limit.

    Raises:
        OnnxgainError: the process has more memory already.
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
    wanted = mapped + limit - resident
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _reply(message: Message) -> Message:
    """Measure the model that a message names; whatever goes wrong becomes an error in the reply."""
    from onnxgain.measure.request import Request

    path = Path(message["path"])
    try:
        return _measure(path, Request.from_json(message["request"]), message["threads"])
    except OnnxgainError as error:
        # A device's memory is another than the process's.
        own = not isinstance(error, DeviceError) and is_about_memory(str(error))
        problem = _no_memory() if own else error
    except MemoryError:
        problem = _no_memory()
    except RecursionError:
        problem = OnnxgainError("its graphs are nested too deeply", remedy="export the model without nested functions")
    except Exception as error:
        if is_about_memory(str(error)):
            problem = _no_memory()
        else:
            first = (str(error).strip().splitlines() or [""])[0][:300]
            problem = OnnxgainError(
                f"a bug in onnxgain: {type(error).__name__} {first}",
                remedy="please report it with the output of `ONNXGAIN_DEBUG=1 onnxgain score` for this model",
            )
    return {"error": _error(problem, path), "external": _external_files(path)}


def _measure(path: Path, request: Request, threads: int) -> Message:
    from onnxgain.measure import preview
    from onnxgain.measure.record import to_json

    content, measurements = (_measure_snapshot if request.series else _measure_alone)(path, request, threads)
    records: list[Record] = []
    previews: list[Message] = []
    arrays: list[Message] = []
    for measurement in measurements:
        records.append(measurement.record)
        if measurement.preview is not None:
            previews.append(preview.to_json(measurement.preview))
        if request.arrays:
            arrays.append(_arrays(measurement, (len(arrays) + 1)))
    external = [] if content is None else [str(file) for file in content.external]
    return {"records": to_json(records), "previews": previews, "arrays": arrays, "external": external}


def _measure_alone(path: Path, request: Request, threads: int) -> tuple[Content | None, Iterable[Measurement]]:
    import time

    from onnxgain.measure.measure import measure
    from onnxgain.model.classifier import load_classifier

    start = time.perf_counter()
    classifier = load_classifier(path, request.reading)
    seconds = time.perf_counter() - start
    return classifier.content, measure(classifier, request, threads=threads, read_seconds=seconds)


_series: dict[str, Snapshots] = {}
"""What measures the snapshots of the request at hand."""


def _measure_snapshot(path: Path, request: Request, threads: int) -> tuple[Content | None, Iterable[Measurement]]:
    from onnxgain.measure.snapshots import Snapshots

    key = json.dumps([request.to_json(), threads])
    if key not in _series:
        _series.clear()
        _series[key] = Snapshots(request, threads)
    return _series[key].measure(path)


def _arrays(measurement: Measurement, count: int) -> Message:
    from onnxgain.measure.request import array_to_json

    spectrum = measurement.spectrum
    if count * 3 * (measurement.derivative.nbytes + spectrum.magnitude.nbytes) > 2 * MESSAGE_LIMIT:
        raise OnnxgainError(
            "the derivatives and spectra of so many stimuli are too large to be handed over",
            remedy="ask for fewer at a time, or leave out --timeout and --memory-limit",
        )
    named: dict[str, Any] = {
        "logits": measurement.logits,
        "derivative": measurement.derivative,
        "magnitude": spectrum.magnitude,
    }
    return {name: array_to_json(array) for name, array in named.items()} | {"offset_db": spectrum.offset_db}


def _external_files(path: Path) -> list[str] | None:
    """The files that a failure may depend on beside the model file; None where that cannot be known."""
    from onnxgain.model.screening import external_locations

    try:
        return [str(path.parent / name) for name in external_locations(path)]
    except (OSError, MemoryError):
        return None


def _error(error: OnnxgainError, path: Path | None = None) -> Message:
    """An error for the wire; the model's own path is left out of its place."""
    where = error.where
    if path is not None and where is not None and where.startswith(str(path)):
        where = where[len(str(path)) :].removeprefix(": ") or None
    name = OUT_OF_MEMORY if isinstance(error, _OutOfMemoryError) else type(error).__name__
    return {"type": name, "what": error.what, "where": where, "remedy": error.remedy}


class _OutOfMemoryError(OnnxgainError):
    pass


def _no_memory() -> OnnxgainError:
    return _OutOfMemoryError("not enough memory")


if __name__ == "__main__":
    main()
