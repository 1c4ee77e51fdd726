"""Errors for users. Each says what went wrong, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_LONGEST = 4000
"""Maximum length of a part of a message. Longer parts are generated names or attacks."""


WITH_CUSTOM_OPS = "load such operators with --custom-ops, where nothing is differentiated"
"""What can be done about operators that are not in the standard."""


class OnnxgainError(Exception):
    """A problem the user can act on. The command line prints it as one message and exits with code 2.

    Args:
        what: what is wrong, as one clause without a full stop.
        where: the file, node or option it was found in.
        remedy: what to do about it, as one clause without a full stop.

    Attributes:
        page: the page of the documentation that helps; None if there is none.
    """

    page: str | None = None

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        what = what.rstrip(".")  # messages of other libraries end with a full stop
        super().__init__(what, where, remedy)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        """One printable line, because parts of it may come from an untrusted model file."""
        message = f"{_line(self.where)}: {_line(self.what)}" if self.where else _line(self.what)
        return f"{message}; {_line(self.remedy)}" if self.remedy else message


def _line(text: str) -> str:
    """Text with control characters escaped, and with the middle left out if it is very long."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def located(error: OnnxgainError, path: object) -> OnnxgainError:
    """The same error, with the model's file in front of its location."""
    if path is None or (error.where or "").startswith(str(path)):
        return error
    where = f"{path}: {error.where}" if error.where else str(path)
    return type(error)(error.what, where=where, remedy=error.remedy)


def first_names(names: Sequence[str], most: int) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def text_problem(error: Exception) -> str:
    """The message of a JSON or TOML parser, without Python's advice on integers with thousands of digits."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, OverflowError):
        return "a number out of range"
    return "an integer of too many digits" if "integer string conversion" in str(error) else str(error)


class RepeatedKeyError(ValueError):
    """An object of a JSON document has a key twice."""


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a JSON document, for ``object_pairs_hook``; RepeatedKeyError if it has a key twice.

    Python would take the last of them, another reader the first.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise RepeatedKeyError(f"an object has the key {first_line(ValueError(twice), 80)!r} twice")
    return values


def first_line(error: BaseException, limit: int = 300) -> str:
    """The first line of another library's exception; its class name if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:limit]


def is_about_memory(text: str) -> bool:
    """Whether a native library's error says that an allocation failed."""
    return any(phrase in text.lower() for phrase in ("bad_alloc", "bad allocation", "allocate memory", "out of memory"))


class ModelError(OnnxgainError):
    """The file is not a model that can be read, or not an image classifier."""


class UnreadableModelError(ModelError):
    """The file is missing, cannot be read, or is damaged or incomplete. Reading it again later may succeed."""


class NonFiniteError(ModelError):
    """Logits or derivative are not finite, so there is no gain to report."""


class UnsupportedOperatorError(OnnxgainError):
    """An operator on the path from the image to the logits has no gradient here.

    Attributes:
        gap: the node and its input (`onnxgain.gradient.reverse.backpropagate.Gap`), if known.
    """

    page = "operators"
    gap: Any = None


class RuntimeUnavailableError(OnnxgainError):
    """There is no usable onnxruntime, or several of its packages are installed over each other."""

    page = "troubleshooting"


class DeviceError(OnnxgainError):
    """The requested device cannot be used, or the model does not fit into its memory."""

    page = "devices"


class ZeroGradientError(OnnxgainError):
    """The derivative is exactly zero, so there is no gain to report."""

    page = "method"


class OutOfMemoryError(OnnxgainError):
    """The process ran out of memory."""


class WorkerError(OnnxgainError):
    """The process that measured a model crashed, did not finish in time, or ran out of memory."""


def kind_in_words(value: object) -> str:
    """What a Python object is, for messages: "None", "an int", "a numpy.ndarray"."""
    if value is None:
        return "None"
    kind = type(value)
    package = kind.__module__.partition(".")[0]
    name = kind.__name__ if package == "builtins" else f"{package}.{kind.__name__}"
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
