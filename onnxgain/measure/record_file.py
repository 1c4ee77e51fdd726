"""Reads files of records."""

from __future__ import annotations

import json
import os
from pathlib import Path

from onnxgain.errors import OnnxgainError
from onnxgain.files import read_bytes, read_text
from onnxgain.measure.record import Record, from_json

LIMIT = 1 << 28
"""The largest file of records that is read, bytes."""


def read_records(path: str | os.PathLike[str]) -> list[Record]:
    """The records in a file that `score --format json` or `gate --update-baseline` wrote; a .jsonl has one per line.

    Raises:
        OnnxgainError: the file is missing, cannot be read, or holds no record of this version's schema.
    """
    where = str(path)
    remedy = "write it with `onnxgain score --format json -o` or `onnxgain gate --update-baseline`"
    try:
        text = read_text(path, LIMIT)
    except OnnxgainError as error:
        raise OnnxgainError(error.what, where=where, remedy=remedy) from error
    documents = text.splitlines() if Path(path).suffix.lower() == ".jsonl" else [text]
    records = [record for line in documents if line.strip() for record in from_json(line, where=where)]
    if not records:
        raise OnnxgainError("holds no record", where=where, remedy=remedy)
    return records


def schema_of(path: str | os.PathLike[str]) -> str:
    """The value of "schema" in a JSON file, or in the first line of a .jsonl; "" if there is none or it is not JSON."""
    try:
        data = read_bytes(path, LIMIT)
        lines = Path(path).suffix.lower() == ".jsonl"
        document = json.loads(data.lstrip().partition(b"\n")[0] if lines else data)
    except (OnnxgainError, ValueError, RecursionError):
        return ""
    return str(document.get("schema")) if isinstance(document, dict) else ""
