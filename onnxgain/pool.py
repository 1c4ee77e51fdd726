"""Child processes that measure models: started when needed, used again, replaced when they die or hang.

The other end is `onnxgain.worker`. Whatever a model does to its process becomes an error of that model.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnxgain import errors
from onnxgain.device import Device
from onnxgain.errors import OnnxgainError, WorkerError
from onnxgain.record import Record, from_json, to_json
from onnxgain.report.preview import Preview
from onnxgain.report.preview import from_json as preview_from_json
from onnxgain.report.preview import to_json as preview_to_json
from onnxgain.request import array_from_json
from onnxgain.spectrum import Spectrum
from onnxgain.worker import OUT_OF_MEMORY, Message, read_message, write_message

START_LIMIT = 120.0
"""Seconds within which a child must have imported everything."""

COMMAND = (sys.executable, "-P", "-m", "onnxgain.worker")
"""-P: the current folder is full of strangers' files and must not be searched for modules."""

_LIBRARY_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class ChildDiedError(Exception):
    """A child ended, was ended, or answered nonsense.

    Attributes:
        how: "crash", "timeout" or "garbage".
        code: the exit code, negative for a signal, as far as known.
        said: what it said last while it started.
    """

    def __init__(
        self, how: Literal["crash", "timeout", "garbage"], code: int | None = None, said: str | None = None
    ) -> None:
        super().__init__(how, code, said)
        self.how = how
        self.code = code
        self.said = said


@dataclass(frozen=True)
class Plan:
    """How machines are shared: models at a time, threads of each, and bytes of memory for each (None: any)."""

    jobs: int
    threads: int
    memory_limit: int | None


def require_no_limit(device: Device, memory_limit: int | None) -> None:
    """Refuse a memory limit for any other device than the CPU: drivers reserve more than any machine has.

    Raises:
        OnnxgainError: there is one.
    """
    if memory_limit is not None and not device.is_cpu:
        raise OnnxgainError(
            f"cannot be enforced with device {device.name}", where="--memory-limit", remedy="leave it out"
        )


@dataclass(frozen=True)
class Answer:
    """What came of measuring a model.

    Attributes:
        records: the measurements, empty where it failed.
        error: why it failed; its place is inside the model, without the model's path.
        external: files beside the model that decided this; None where that is not known.
        previews: pictures of the records, one each, or none.
        arrays: what the records were computed from, one each, or none.
    """

    records: tuple[Record, ...] = ()
    error: OnnxgainError | None = None
    external: tuple[str, ...] | None = None
    previews: tuple[Preview, ...] = ()
    arrays: tuple[Arrays, ...] = ()


@dataclass(frozen=True, eq=False)
class Arrays:
    """The arrays of an `onnxgain.measure.Measurement`."""

    logits: NDArray[Any]
    derivative: NDArray[Any]
    spectrum: Spectrum


NO_ARRAYS = Arrays(np.empty(0), np.empty((0, 0, 0)), Spectrum(np.empty((0, 0, 0))))


class Child:
    """One child process.

    Args:
        command: what to start.
        memory_limit: bytes its resident memory may grow to, where the system can enforce that.

    Attributes:
        used: whether it was asked before.

    Raises:
        OnnxgainError: it says that it can measure nothing: no runtime, or a memory limit too low to begin with.
        ChildDiedError: it does not start.
    """

    def __init__(self, command: Sequence[str] = COMMAND, memory_limit: int | None = None) -> None:
        limit = [str(memory_limit)] if memory_limit is not None and sys.platform == "linux" else []
        log = _log_file()
        self._process = subprocess.Popen(
            [*command, *limit], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=_environment()
        )
        self.used = False
        self._count = 0
        self._expired = False
        try:
            self._greet()
        except ChildDiedError as died:
            self.kill()
            raise ChildDiedError(died.how, died.code, _last_line(log)) from None
        except BaseException:
            self.kill()
            raise
        finally:
            if log is not None:
                log.close()

    def _greet(self) -> None:
        """Wait until the child is ready."""
        greeting = self._receive(START_LIMIT)
        if "error" in greeting:
            try:
                raise error_from_json(greeting["error"])
            except ValueError:
                raise ChildDiedError("garbage") from None
        if "ready" not in greeting:
            raise ChildDiedError("garbage")

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def ask(self, message: Message, timeout: float | None) -> Message:
        """Send a message and wait for its reply.

        Raises:
            ChildDiedError: the child did not survive, did not answer in time or not sensibly; it is of no more use.
        """
        self.used = True
        self._count += 1
        assert self._process.stdin is not None
        try:
            write_message(self._process.stdin, message | {"id": self._count})
        except OSError:
            raise ChildDiedError("crash", self._end()) from None
        reply = self._receive(timeout)
        if reply.get("id") != self._count:
            self.kill()
            raise ChildDiedError("garbage")
        return reply

    def kill(self) -> None:
        """End the process at once; may be repeated."""
        with suppress(OSError):
            self._process.kill()
        self._end()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError, ValueError):
                if stream is not None:
                    stream.close()

    def interrupt(self) -> None:
        """Make another thread's `ask` return; that thread has to `kill` it."""
        with suppress(OSError):
            self._process.kill()

    def _receive(self, timeout: float | None) -> Message:
        timer = threading.Timer(timeout, self._expire) if timeout is not None else None
        if timer is not None:
            timer.daemon = True
            timer.start()
        assert self._process.stdout is not None
        try:
            message = read_message(self._process.stdout)
        except (ValueError, OSError):
            self.kill()
            raise ChildDiedError("timeout" if self._expired else "garbage") from None
        finally:
            if timer is not None:
                timer.cancel()
        if self._expired:
            raise ChildDiedError("timeout", self._end())
        if message is None:
            raise ChildDiedError("crash", self._end())
        return message

    def _expire(self) -> None:
        self._expired = True
        self.interrupt()

    def _end(self) -> int | None:
        """Wait for the end of a process that is dead or dying; one that has closed its output but lives is killed."""
        try:
            return self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _log_file() -> IO[bytes] | None:
    """Where a child's standard error goes until it is ready; it is silent from then on. None: where this one's goes."""
    if os.environ.get("ONNXGAIN_DEBUG"):
        return None
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return open(os.devnull, "w+b")  # noqa: PTH123


def _last_line(log: IO[bytes] | None) -> str | None:
    """The last line of a log, for people."""
    if log is None:
        return None
    log.seek(max(log.seek(0, os.SEEK_END) - 2000, 0))
    lines = log.read().decode("utf-8", "replace").strip().splitlines()
    return "".join(c for c in lines[-1] if c.isprintable())[:300] if lines else None


def _environment() -> dict[str, str]:
    """The child's environment: it imports from where the parent does, and only the runtime starts threads."""
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)  # noqa: PTH100
    return os.environ | dict.fromkeys(_LIBRARY_THREADS, "1") | {"PYTHONPATH": path}


class Slot:
    """A place for one child at a time; it starts, reuses and replaces them.

    Args:
        threads: that a child gives the runtime.
        timeout: seconds a model may take; None for no limit.
        memory_limit: see `Child`.
        command: what to start.
    """

    def __init__(
        self,
        *,
        threads: int,
        timeout: float | None,
        memory_limit: int | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.threads = threads
        self.timeout = timeout
        self.memory_limit = memory_limit
        self.command = command
        self._child: Child | None = None
        self._lock = threading.Lock()
        self._closed = False

    def measure(self, path: str, request: dict[str, Any]) -> Answer:
        """Measure a model; errors of the process are in the answer as any other error.

        A child that has measured other models may suffer from what they left behind: where it dies or runs out of
        memory, the model gets a second chance in a fresh one.

        Args:
            path: the model file.
            request: `onnxgain.request.Request.to_json`.

        Raises:
            OnnxgainError: no child can be started, or the slot is closed.
        """
        message = {"path": path, "request": request, "threads": self.threads}
        while True:
            child = self._ready()
            fresh = not child.used
            try:
                answer = answer_from_json(child.ask(message, self.timeout))
                if answer is not None:
                    return answer
                error = self._no_memory()
                again = not fresh
            except ChildDiedError as died:
                error = self._explain(died)
                again = not fresh and died.how != "timeout"
            self._drop()
            if self._closed:
                raise OnnxgainError("interrupted")
            if not again:
                return Answer(error=error)

    def start(self) -> None:
        """Start the child now, so that the first model need not wait for it.

        Raises:
            OnnxgainError: it does not start.
        """
        self._ready()

    def __enter__(self) -> Slot:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    def close(self) -> None:
        """End the child, if there is one, and start no other. May be called from another thread."""
        with self._lock:
            self._closed = True
            if self._child is not None:
                self._child.interrupt()

    def _ready(self) -> Child:
        if self._child is not None:
            return self._child
        try:
            child = Child(self.command, self.memory_limit)
        except ChildDiedError as died:
            raise OnnxgainError(
                f"the process that is to measure models does not start: it {_how(died)}"
                + (f" ({died.said})" if died.said else ""),
                where=" ".join(self.command),
                remedy="set ONNXGAIN_DEBUG=1 to see all it says, and run `onnxgain doctor`",
            ) from None
        with self._lock:
            self._child = child
            closed = self._closed
        if closed:
            self._drop()
            raise OnnxgainError("interrupted")
        return child

    def _drop(self) -> None:
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.kill()

    def _explain(self, died: ChildDiedError) -> WorkerError:
        if died.how == "timeout":
            return WorkerError(f"not measured within {self.timeout:g} s", remedy="raise --timeout if it is only slow")
        remedy = "the runtime's native code does not survive this model: try another version of onnxruntime"
        if died.code == -getattr(signal, "SIGKILL", 9):
            remedy = "if the system did that for lack of memory, lower --jobs or --memory-limit"
        elif died.code == -getattr(signal, "SIGABRT", 6) and self.memory_limit is not None:
            remedy = "raise --memory-limit if it is large; else try another version of onnxruntime"
        return WorkerError(f"the process measuring it {_how(died)}", remedy=remedy)

    def _no_memory(self) -> WorkerError:
        limit = f" than the limit of {self.memory_limit / 1e6:.0f} MB" if self.memory_limit is not None else ""
        return WorkerError(f"measuring it needs more memory{limit}", remedy="raise --memory-limit, or lower --jobs")


def _how(died: ChildDiedError) -> str:
    if died.how == "garbage":
        return "answered nonsense"
    if died.how == "timeout":
        return "did not answer"
    if died.code is not None and died.code < 0:
        return f"was killed by {_signal_name(-died.code)}"
    return f"ended with exit code {died.code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def answer_from_json(reply: Message) -> Answer | None:
    """The answer that a reply holds; None where it says that memory ran out.

    Raises:
        ChildDiedError: it holds none.
    """
    external = reply.get("external")
    if external is not None:
        if not isinstance(external, list) or not all(isinstance(file, str) for file in external):
            raise ChildDiedError("garbage")
        external = tuple(external)
    if isinstance(reply.get("error"), dict) and reply["error"].get("type") == OUT_OF_MEMORY:
        return None
    try:
        if "error" in reply:
            return Answer(error=error_from_json(reply["error"]), external=external)
        records = tuple(from_json(reply["records"]))
        previews = tuple(map(preview_from_json, reply["previews"]))
        arrays = tuple(map(_arrays, reply["arrays"]))
    except (KeyError, TypeError, ValueError, OnnxgainError):
        raise ChildDiedError("garbage") from None
    if not records or not {len(previews), len(arrays)} <= {0, len(records)}:
        raise ChildDiedError("garbage")
    return Answer(records, external=external, previews=previews, arrays=arrays)


def answer_to_json(answer: Answer) -> Message:
    """The inverse of `answer_from_json`, without arrays."""
    external = None if answer.external is None else list(answer.external)
    if answer.error is not None:
        return {"error": error_to_json(answer.error), "external": external}
    previews = [preview_to_json(preview) for preview in answer.previews]
    return {"records": to_json(answer.records), "previews": previews, "arrays": [], "external": external}


def _arrays(values: Message) -> Arrays:
    logits, derivative, magnitude = (array_from_json(values[name]) for name in ("logits", "derivative", "magnitude"))
    if {array.dtype.kind for array in (logits, derivative, magnitude)} != {"f"} or derivative.ndim != 3:
        raise ValueError("not what was measured")
    if magnitude.shape != derivative.shape:
        raise ValueError("a spectrum of another shape")
    return Arrays(logits, derivative, Spectrum(magnitude, float(values["offset_db"])))


def error_to_json(error: OnnxgainError) -> Message:
    """The inverse of `error_from_json`."""
    return {"type": type(error).__name__, "what": error.what, "where": error.where, "remedy": error.remedy}


def error_from_json(values: Any) -> OnnxgainError:
    """The error that a child tells of.

    Raises:
        ValueError: it is none.
    """
    try:
        name, what, where, remedy = (values[key] for key in ("type", "what", "where", "remedy"))
    except (KeyError, TypeError):
        raise ValueError("not an error") from None
    if not isinstance(what, str) or not all(text is None or isinstance(text, str) for text in (where, remedy)):
        raise ValueError("not an error")
    kind = getattr(errors, str(name), None)
    if not (isinstance(kind, type) and issubclass(kind, OnnxgainError)):
        kind = OnnxgainError
    return kind(what, where=where, remedy=remedy)
