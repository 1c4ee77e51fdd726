"""The protocol between processes: JSON messages with a length prefix, and the form of errors in them.

A message is its length in four bytes (big-endian), followed by that many bytes of JSON. It contains only data, no code.
"""

from __future__ import annotations

import json
from typing import IO, Any

from onnxgain import errors
from onnxgain.errors import OnnxgainError

MESSAGE_LIMIT = 1 << 28
"""Maximum bytes of a message; anything longer is invalid."""

Message = dict[str, Any]


def write_message(stream: IO[bytes], message: Message) -> None:
    """Send a message.

    Raises:
        OSError: the other side has closed the stream.
        ValueError: the message is too long.
    """
    data = json.dumps(message, allow_nan=False).encode()
    if len(data) > MESSAGE_LIMIT:
        raise ValueError(f"a message of {len(data)} bytes; at most {MESSAGE_LIMIT} can be sent")
    stream.write(len(data).to_bytes(4, "big") + data)
    stream.flush()


def read_message(stream: IO[bytes]) -> Message | None:
    """Wait for the next message; None at the end of the stream.

    Raises:
        ValueError: the data is not a message.
    """
    header = stream.read(4)
    if not header:
        return None
    length = int.from_bytes(header, "big")
    if length > MESSAGE_LIMIT:
        raise ValueError("not a message")
    data = stream.read(length)
    if len(header) < 4 or len(data) < length:
        return None
    try:
        message = json.loads(data)
    except RecursionError as error:
        raise ValueError("not a message") from error
    if not isinstance(message, dict):
        raise ValueError("not a message")
    return message


def error_to_json(error: OnnxgainError) -> Message:
    """The inverse of `error_from_json`."""
    return {"type": type(error).__name__, "what": error.what, "where": error.where, "remedy": error.remedy}


def error_from_json(values: Any) -> OnnxgainError:
    """The error in a message, as the class in `onnxgain.errors` that it names, else `OnnxgainError`.

    Raises:
        ValueError: it is not an error.
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
