"""User errors: one family, each with what went wrong, where, and what to do about it."""

from __future__ import annotations

from typing import Any


class OnnxgainError(Exception):
    """A problem the user can act on. The command line prints it as one message and exits with code 2.

    Args:
        what: what is wrong, as one clause without a full stop.
        where: the file, node or option it was found in.
        remedy: what to do about it, as one clause without a full stop.
    """

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        what = what.rstrip(".")  # as other libraries end their messages
        super().__init__(what, where, remedy)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        message = f"{self.where}: {self.what}" if self.where else self.what
        return f"{message}; {self.remedy}" if self.remedy else message


class ModelError(OnnxgainError):
    """The file is not a model that can be read, or not an image classifier."""


class UnsupportedOperatorError(OnnxgainError):
    """An operator on the path from the image to the logits has no gradient here.

    Attributes:
        gap: the node and its input (`onnxgain.gradient.reverse.Gap`), where known.
    """

    gap: Any = None


class RuntimeUnavailableError(OnnxgainError):
    """No usable onnxruntime, or several of its packages on top of each other."""


class DeviceError(OnnxgainError):
    """The device asked for cannot be used, or its memory does not hold the model."""


class ZeroGradientError(OnnxgainError):
    """The derivative is exactly zero, so there is no gain to report."""


class WorkerError(OnnxgainError):
    """The process that measured a model crashed, did not finish in time, or ran out of memory."""
