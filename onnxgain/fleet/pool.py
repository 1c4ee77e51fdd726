"""Child processes that measure models: started when needed, used again, replaced when they die or hang.

Whatever a model does to its process becomes an error of that model.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnxgain.engine.device import Device
from onnxgain.errors import OnnxgainError, WorkerError
from onnxgain.fleet.answer import Answer, answer_from_json
from onnxgain.fleet.child import COMMAND, Child, ChildDiedError, how


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
            request: `onnxgain.measure.request.Request.to_json`.

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
                f"the process that is to measure models does not start: it {how(died)}"
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
        return WorkerError(f"the process measuring it {how(died)}", remedy=remedy)

    def _no_memory(self) -> WorkerError:
        limit = f" than the limit of {self.memory_limit / 1e6:.0f} MB" if self.memory_limit is not None else ""
        return WorkerError(f"measuring it needs more memory{limit}", remedy="raise --memory-limit, or lower --jobs")
