"""User errors: one family, each with what went wrong, where, and what to do about it."""

from __future__ import annotations

from typing import Any

_LONGEST = 4000
"""Characters of a message's part; longer ones are names that no person wrote."""


class OnnxgainError(Exception):
    """A problem the user can act on. The command line prints it as one message and exits with code 2.

    Args:
        what: what is wrong, as one clause without a full stop.
        where: the file, node or option it was found in.
        remedy: what to do about it, as one clause without a full stop.

    Attributes:
        page: the page of the documentation that helps, None where none does.
    """

    page: str | None = None

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        what = what.rstrip(".")  # as other libraries end their messages
        super().__init__(what, where, remedy)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        """One printable line: much in it may have been chosen by whoever made a model file."""
        message = f"{_line(self.where)}: {_line(self.what)}" if self.where else _line(self.what)
        return f"{message}; {_line(self.remedy)}" if self.remedy else message


def _line(text: str) -> str:
    """Text with what a terminal would obey written as escapes, and its middle left out where it is very long."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def located(error: OnnxgainError, path: object) -> OnnxgainError:
    """The same error with the model's file in front of its place."""
    if path is None or (error.where or "").startswith(str(path)):
        return error
    where = f"{path}: {error.where}" if error.where else str(path)
    return type(error)(error.what, where=where, remedy=error.remedy)


def text_problem(error: Exception) -> str:
    """What JSON's and TOML's readers say of a text, without Python's advice on integers of thousands of digits."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, OverflowError):
        return "a number out of range"
    return "an integer of too many digits" if "integer string conversion" in str(error) else str(error)


def first_line(error: BaseException, limit: int = 300) -> str:
    """The first line of what another library's exception says; its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:limit]


def is_about_memory(text: str) -> bool:
    """Whether a native library's error says that an allocation failed."""
    return any(phrase in text.lower() for phrase in ("bad_alloc", "bad allocation", "allocate memory", "out of memory"))


class ModelError(OnnxgainError):
    """The file is not a model that can be read, or not an image classifier."""


class UnreadableModelError(ModelError):
    """The file is missing, cannot be read, or is damaged or incomplete: it may be better when it is read again."""


class NonFiniteError(ModelError):
    """Logits or derivative are not finite, so there is no gain to report."""


class UnsupportedOperatorError(OnnxgainError):
    """An operator on the path from the image to the logits has no gradient here.

    Attributes:
        gap: the node and its input (`onnxgain.gradient.reverse.backpropagate.Gap`), where known.
    """

    page = "operators"
    gap: Any = None


class RuntimeUnavailableError(OnnxgainError):
    """No usable onnxruntime, or several of its packages on top of each other."""

    page = "troubleshooting"


class DeviceError(OnnxgainError):
    """The device asked for cannot be used, or its memory does not hold the model."""

    page = "devices"


class ZeroGradientError(OnnxgainError):
    """The derivative is exactly zero, so there is no gain to report."""

    page = "method"


class OutOfMemoryError(OnnxgainError):
    """The process ran out of memory."""


class WorkerError(OnnxgainError):
    """The process that measured a model crashed, did not finish in time, or ran out of memory."""
