"""Child processes that measure models: they are started on demand, reused, and replaced when they die or hang.

If a model crashes or blocks its process, that becomes an error of the model.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from onnxgain.engine.device import CPU, Device
from onnxgain.engine.environment import usable_cores, usable_memory
from onnxgain.errors import OnnxgainError, OutOfMemoryError, WorkerError
from onnxgain.fleet.child import COMMAND, Child, ChildDiedError
from onnxgain.fleet.protocol import Message
from onnxgain.fleet.result import Result, Verified, result_from_json, verified_from_json
from onnxgain.fleet.sources import Source
from onnxgain.measure.request import Request

T = TypeVar("T")

TIMEOUT = 120.0
"""Seconds that a model may take by default."""

_LEAST_MEMORY = 2 << 30
"""Bytes that each process should have if there are several."""


@dataclass(frozen=True)
class Plan:
    """How to share machines among models.

    Attributes:
        jobs: number of models measured at a time.
        threads: threads of the runtime per model.
        memory_limit: bytes per model; None for no limit. It is enforced only on Linux.
        timeout: seconds that a model may take; None for no limit.
    """

    jobs: int
    threads: int
    memory_limit: int | None
    timeout: float | None = None


@dataclass(frozen=True)
class Limits:
    """Requested values for a `Plan`. None lets the machine decide, except that a timeout of None means no limit."""

    jobs: int | None = None
    threads: int | None = None
    memory_limit: int | None = None
    timeout: float | None = TIMEOUT

    def plan(self, models: int, device: Device = CPU) -> Plan:
        """Share this machine's cores and memory among processes.

        A single model gets all cores; several are measured at the same time, each on its share of the cores. The
        processes share nine tenths of the memory; if each would get less than 2 GiB, fewer run at a time. A device
        other than the CPU is used by one process at a time by default, and without a memory limit, because drivers
        reserve more address space than any machine has memory.

        Args:
            models: number of models to measure.
            device: the device to measure on.

        Raises:
            OnnxgainError: there is a memory limit, and the device is not the CPU.
        """
        require_no_limit(device, self.memory_limit)
        jobs, memory_limit = self.jobs, self.memory_limit
        if not device.is_cpu:
            return Plan(jobs or 1, self.threads or max(usable_cores() // (jobs or 1), 1), None, self.timeout)
        cores, memory = usable_cores(), usable_memory()
        if jobs is None:
            fitting = max(memory // _LEAST_MEMORY, 1) if memory is not None else cores
            jobs = max(min(cores // (self.threads or 1), models, fitting), 1)
        if memory_limit is None and memory is not None:
            memory_limit = memory * 9 // 10 // jobs
        return Plan(jobs, self.threads or max(cores // jobs, 1), memory_limit, self.timeout)


def require_no_limit(device: Device, memory_limit: int | None) -> None:
    """Check that there is no memory limit unless the device is the CPU.

    Raises:
        OnnxgainError: there is a limit that cannot be enforced.
    """
    if memory_limit is not None and not device.is_cpu:
        raise OnnxgainError(
            f"cannot be enforced with device {device.name}", where="--memory-limit", remedy="leave it out"
        )


class Slot:
    """Runs one child at a time; starts, reuses and replaces it.

    Args:
        plan: threads, timeout and memory limit per model.
        command: the command that starts a child.
    """

    def __init__(self, plan: Plan, command: Sequence[str] = COMMAND) -> None:
        self.threads = plan.threads
        self.timeout = plan.timeout
        self.memory_limit = plan.memory_limit
        self.command = command
        self._child: Child | None = None
        self._lock = threading.Lock()
        self._closed = False

    def measure(self, path: Path, request: Request) -> Result:
        """Measure the model in a file; if the process fails, the result contains an error.

        Raises:
            OnnxgainError: no child can be started, or the slot is closed.
        """
        source = Source(0, path)
        reply = self._served({"path": str(path), "request": request.to_json()}, lambda r: result_from_json(r, source))
        return Result(source, error=reply) if isinstance(reply, OnnxgainError) else reply

    def verify(self, path: Path, request: Request) -> tuple[Verified, ...] | OnnxgainError:
        """Verify the gradient of the model in a file at each stimulus; return an error if that is not possible.

        Raises:
            OnnxgainError: no child can be started, or the slot is closed.
        """
        message = {"path": str(path), "request": request.to_json(), "verify": True}
        return self._served(message, verified_from_json)

    def _served(self, message: Message, convert: Callable[[Message], T]) -> T | OnnxgainError:
        """Send a request and return the converted reply, or an error if the child fails.

        A child that measured other models before may suffer from what they left behind. So if it dies or runs out of
        memory, the model gets a second chance in a new child.
        """
        while True:
            child = self._ready()
            fresh = not child.used
            try:
                reply = child.ask(message | {"threads": self.threads}, self.timeout)
                value = _converted(reply, convert)
                if not _is_out_of_memory(reply):
                    return value
                error = self._no_memory()
                retry = not fresh
            except ChildDiedError as died:
                error = self._explain(died)
                retry = not fresh and died.cause != "timeout"
            self._drop()
            if self._closed:
                raise OnnxgainError("interrupted")
            if not retry:
                return error

    def start(self) -> None:
        """Start the child now, so that the first model does not have to wait for it.

        Raises:
            OnnxgainError: it does not start.
        """
        self._ready()

    def __enter__(self) -> Slot:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    def close(self) -> None:
        """Kill the child and do not start another. This may be called from another thread."""
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
                f"the measuring process does not start: it {died}" + (f" ({died.output})" if died.output else ""),
                where=" ".join(self.command),
                remedy="set ONNXGAIN_DEBUG=1 to see its output, and run `onnxgain doctor`",
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
        if died.cause == "timeout":
            return WorkerError(f"not measured within {self.timeout:g} s", remedy="raise --timeout if it is only slow")
        remedy = "onnxruntime crashes on this model: try another version of onnxruntime"
        if died.code == -getattr(signal, "SIGKILL", 9):
            remedy = "if the system killed it for lack of memory, lower --jobs or --memory-limit"
        elif died.code == -getattr(signal, "SIGABRT", 6) and self.memory_limit is not None:
            remedy = "raise --memory-limit if it is large; else try another version of onnxruntime"
        return WorkerError(f"the process measuring it {died}", remedy=remedy)

    def _no_memory(self) -> WorkerError:
        limit = f" than the limit of {self.memory_limit / 1e6:.0f} MB" if self.memory_limit is not None else ""
        return WorkerError(f"measuring it needs more memory{limit}", remedy="raise --memory-limit, or lower --jobs")


def _converted(reply: Message, convert: Callable[[Message], T]) -> T:
    try:
        return convert(reply)
    except ValueError:
        raise ChildDiedError("garbage") from None


def _is_out_of_memory(reply: Message) -> bool:
    return "error" in reply and reply["error"]["type"] == OutOfMemoryError.__name__
