"""Rewords messages of the command line for Python callers."""

from __future__ import annotations

import re

from onnxgain.errors import OnnxgainError
from onnxgain.report import reporter

_OPTION = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]*)(?: (?=[A-Z]{2,}|\d))?")
"""An option, with the space before its value if that is in capitals or a number."""

_ASSIGNMENT = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]*) ([^\s=,;]+=[^\s,;]+)")
"""An option whose value is an assignment, such as ``--input mask=1``."""


def in_python(text: str) -> str:
    """The message with arguments instead of options."""
    text = _ASSIGNMENT.sub(lambda match: f'{match.group(1).replace("-", "_")}="{match.group(2)}"', text)
    return _OPTION.sub(lambda match: match.group(1).replace("-", "_") + "=", text)


def as_python(error: OnnxgainError) -> OnnxgainError:
    """The error with arguments instead of options."""
    where, remedy = (None if text is None else in_python(text) for text in (error.where, error.remedy))
    return type(error)(in_python(error.what), where=where, remedy=remedy)


def called_from_python() -> bool:
    """Whether a Python program called the command; it gets the messages that a person would see on standard error."""
    return reporter.CAPTURED.get() is not None
