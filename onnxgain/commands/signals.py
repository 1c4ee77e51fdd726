"""Ends a command on SIGINT and SIGTERM, also while native code runs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE = 2.0
"""Seconds that native code has to return before the process ends without it."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def terminable(code: int) -> Iterator[None]:
    """Both signals raise KeyboardInterrupt: what is being written is cleaned up, what is done is kept.

    Python runs a handler when the main thread returns from native code. A model's loop may never return, so a thread
    that the signal wakes ends the process with `code` where no handler has run for `GRACE` seconds.
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
            # A handler that somebody else put in between has its own way of ending.
            ours = received[0] in _SIGNALS and signal.getsignal(received[0]) is interrupt
            if ours and not handled.wait(GRACE):
                os.write(2, b"interrupted\n")
                os._exit(code)
        os.close(reading)

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # a shell starts what runs in its background deaf to SIGINT
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
