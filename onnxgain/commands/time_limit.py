"""A time limit for commands that read and measure models in their own process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import click

from onnxgain.commands import signals
from onnxgain.errors import OnnxgainError

READING = 120.0
"""Seconds that reading a model may take by default."""

STEP = 600.0
"""Seconds that a step after it may take by default, such as measuring at one image."""


class _ExpiredError(KeyboardInterrupt):
    """The time is over. Like an interrupt, it passes code that handles the errors of a model."""


timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(0, 1e6, min_open=True),
    metavar="SECONDS",
    help="Time that reading a model, and each step after it, may take. Default: 120 to read it, 600 for a step, 1800 "
    "to verify at an image.",
)


@contextmanager
def limited(where: str, timeout: float | None = None, step: float = STEP) -> Iterator[Callable[[], None]]:
    """Limit the time in which a model is read, and that of each step after it.

    Python code is interrupted at once, native code when it returns. If it does not return, the command is ended (see
    `onnxgain.commands.signals`). There is no limit on Windows, outside the main thread, and in programs that use
    the alarm signal themselves.

    Args:
        where: the model, for the message.
        timeout: seconds for reading it and for each step; None for `READING` and `step`.
        step: seconds for a step by default.

    Yields:
        A function to call when the model has been read and after each step.

    Raises:
        OnnxgainError: the time is over.
    """
    if not _is_free():
        yield lambda: None
        return

    def error(seconds: float) -> OnnxgainError:
        remedy = "give a longer --timeout if it is only slow"
        return OnnxgainError(f"takes longer than {seconds:g} s", where=where, remedy=remedy)

    alarm = signals.Alarm(error(timeout or READING))

    def start(seconds: float) -> None:
        alarm.error = error(seconds)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def expire(number: int, frame: FrameType | None) -> None:
        alarm.handled.set()
        raise _ExpiredError

    before = signal.signal(signal.SIGALRM, expire)
    signals.set_alarm(alarm)
    start(timeout or READING)
    try:
        yield lambda: start(timeout or step)
    except _ExpiredError:
        raise alarm.error from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signals.set_alarm(None)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if before is None else before)


def _is_free() -> bool:
    """Whether an alarm can be set and nobody else has set one."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        return False
    return signal.getsignal(signal.SIGALRM) in (signal.SIG_DFL, None) and not any(signal.getitimer(signal.ITIMER_REAL))
