"""Errors as JSON, as children, nodes and the cache tell of them."""

from __future__ import annotations

from typing import Any

from onnxgain import errors
from onnxgain.errors import OnnxgainError
from onnxgain.fleet.worker import Message


def error_to_json(error: OnnxgainError) -> Message:
    """The inverse of `error_from_json`."""
    return {"type": type(error).__name__, "what": error.what, "where": error.where, "remedy": error.remedy}


def error_from_json(values: Any) -> OnnxgainError:
    """The error that a child tells of.

    Raises:
        ValueError: it is none.
    """
    try:
        name, what, where, remedy = (values[key] for key in ("type", "what", "where", "remedy"))
    except (KeyError, TypeError):
        raise ValueError("not an error") from None
    if not isinstance(what, str) or not all(text is None or isinstance(text, str) for text in (where, remedy)):
        raise ValueError("not an error")
    kind = getattr(errors, str(name), None)
    if not (isinstance(kind, type) and issubclass(kind, OnnxgainError)):
        kind = OnnxgainError
    return kind(what, where=where, remedy=remedy)
