"""The parent's side of a child process that measures models; `onnxgain.fleet.worker` is the child's side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Literal

from onnxgain.fleet.protocol import Message, error_from_json, read_message, write_message

START_LIMIT = 120.0
"""Seconds in which a child must have imported all modules."""

COMMAND = (sys.executable, "-P", "-m", "onnxgain.fleet.worker")
"""-P: do not search the current folder for modules, because it is untrusted."""

_LIBRARY_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class ChildDiedError(Exception):
    """A child exited, was killed, or sent an invalid reply.

    Attributes:
        cause: "crash", "timeout" or "garbage".
        code: the exit code, negative for a signal; None if unknown.
        output: the last line that it printed while it started, or None.
    """

    def __init__(
        self, cause: Literal["crash", "timeout", "garbage"], code: int | None = None, output: str | None = None
    ) -> None:
        super().__init__(cause, code, output)
        self.cause = cause
        self.code = code
        self.output = output

    def __str__(self) -> str:
        """What happened: a predicate for messages whose subject is the process."""
        if self.cause == "garbage":
            return "sent an invalid reply"
        if self.cause == "timeout":
            return "did not answer"
        if self.code is not None and self.code < 0:
            return f"was killed by {_signal_name(-self.code)}"
        return f"ended with exit code {self.code}"


class Child:
    """A child process.

    Args:
        command: the command that starts it.
        memory_limit: limit of its resident memory in bytes, on systems that can enforce it.

    Attributes:
        used: whether it has had a request before.

    Raises:
        OnnxgainError: it reports that it cannot measure anything: no runtime, or too low a memory limit.
        ChildDiedError: it does not start.
    """

    def __init__(self, command: Sequence[str] = COMMAND, memory_limit: int | None = None) -> None:
        limit = [str(memory_limit)] if memory_limit is not None and sys.platform == "linux" else []
        log = _log_file()
        self._process = subprocess.Popen(
            [*command, *limit], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=child_environment()
        )
        self.used = False
        self._count = 0
        self._expired = False
        try:
            self._wait_until_ready()
        except ChildDiedError as died:
            self.kill()
            raise ChildDiedError(died.cause, died.code, _last_line(log)) from None
        except BaseException:
            self.kill()
            raise
        finally:
            if log is not None:
                log.close()

    def _wait_until_ready(self) -> None:
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
        """The process ID."""
        return self._process.pid

    def ask(self, message: Message, timeout: float | None) -> Message:
        """Send a message and wait for its reply.

        Raises:
            ChildDiedError: the child died, or did not send a valid reply in time; it has been killed.
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
        """Kill the process; this may be called repeatedly."""
        with suppress(OSError):
            self._process.kill()
        self._end()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError, ValueError):
                if stream is not None:
                    stream.close()

    def interrupt(self) -> None:
        """Make `ask` return in another thread; that thread must then call `kill`."""
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
        """Wait for a process that is about to exit, and kill it if it does not exit within a second."""
        try:
            return self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _log_file() -> IO[bytes] | None:
    """The file for a child's standard error while it starts; it is silent afterwards. None to inherit ours."""
    if os.environ.get("ONNXGAIN_DEBUG"):
        return None
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return open(os.devnull, "w+b")  # noqa: PTH123


def _last_line(log: IO[bytes] | None) -> str | None:
    """The last line of a log, without unprintable characters."""
    if log is None:
        return None
    log.seek(max(log.seek(0, os.SEEK_END) - 2000, 0))
    lines = log.read().decode("utf-8", "replace").strip().splitlines()
    return "".join(c for c in lines[-1] if c.isprintable())[:300] if lines else None


def child_environment() -> dict[str, str]:
    """The child's environment: it has the parent's import path, and only the runtime starts threads."""
    path = os.pathsep.join(_absolute(entry) for entry in sys.path)
    return os.environ | dict.fromkeys(_LIBRARY_THREADS, "1") | {"PYTHONPATH": path}


def _absolute(entry: str) -> str:
    try:
        return os.path.abspath(entry)  # noqa: PTH100
    except OSError:  # the current folder was deleted
        return entry


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
