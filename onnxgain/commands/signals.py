"""Ends a command on SIGINT, SIGTERM and when its time is over, even while native code runs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from onnxgain.errors import OnnxgainError

GRACE = 2.0
"""Time that native code has to return before the process is ended, seconds."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ALARM = getattr(signal, "SIGALRM", None)


@dataclass
class Alarm:
    """A time limit that is set (`onnxgain.commands.time_limit`).

    Attributes:
        error: what to say when the time is over.
        handled: set when Python's handler has run.
    """

    error: OnnxgainError
    handled: threading.Event = field(default_factory=threading.Event)


_alarm: Alarm | None = None


def set_alarm(alarm: Alarm | None) -> None:
    """Set the time limit whose error is shown if native code does not return after it."""
    global _alarm
    _alarm = alarm


@contextmanager
def terminable(code: int) -> Iterator[None]:
    """Both signals raise KeyboardInterrupt, so that partial files are removed and finished results are kept.

    Python runs a handler only when the main thread returns from native code, and a model's loop may never return. So
    the signal also wakes a thread that ends the process with `code` if no handler has run for `GRACE` seconds.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        handled.set()
        raise KeyboardInterrupt

    def watch() -> None:
        while received := os.read(reading, 1):
            alarm = _alarm
            if received[0] == _ALARM and alarm is not None and not alarm.handled.wait(GRACE):
                os.write(2, f"error: {alarm.error}\n".encode(errors="backslashreplace"))
                os._exit(code)
            # If other code has installed its own handler, leave ending the process to it.
            ours = received[0] in _SIGNALS and signal.getsignal(received[0]) is interrupt
            if ours and not handled.wait(GRACE):
                os.write(2, b"interrupted\n")
                os._exit(code)
        os.close(reading)

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # shells start background processes with SIGINT ignored
            signal.signal(number, interrupt)
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=watch, name="signals", daemon=True).start()
    try:
        yield
    finally:
        handled.set()
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        os.close(writing)
