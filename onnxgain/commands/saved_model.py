"""Selects one model's records from a file that may hold several: `gain.json`, or `gain.json::models/net.onnx`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from onnxgain.errors import OnnxgainError, first_names

if TYPE_CHECKING:
    from onnxgain.measure.record import Record

SEPARATOR = "::"
"""Separates a file of records from the model in it."""

_LISTED = 10


def split_name(argument: str) -> tuple[str, str | None]:
    """The file, and the model in it if one is named."""
    file, separator, name = argument.partition(SEPARATOR)
    return (file, name) if separator and file and not Path(argument).exists() else (argument, None)


def is_records(argument: str) -> bool:
    """Whether an argument names a file of records."""
    from onnxgain.fleet.sources import RECORD_SUFFIXES

    return Path(split_name(argument)[0]).suffix.lower() in RECORD_SUFFIXES


def saved_records(argument: str, other: str) -> list[Record]:
    """The records of one model.

    Args:
        argument: a file of records, with or without the name of a model in it.
        other: the path of the model to compare with, which selects the model if none is named.

    Raises:
        OnnxgainError: the file cannot be read, or the choice of the model is ambiguous.
    """
    from onnxgain.analysis.baseline import by_model
    from onnxgain.analysis.pairing import pair_models
    from onnxgain.measure.record_file import read_records

    path, name = split_name(argument)
    known = by_model(read_records(path))
    if len(known) == 1 and name is None:
        return next(iter(known.values()))
    wanted = name if name is not None else _single_model(other)
    found = pair_models([wanted], list(known), lone=False).get(wanted) if wanted else None
    if found is None:
        missing = f"holds no records of {name}" if name is not None else f"holds records of {len(known)} models"
        raise OnnxgainError(
            f"{missing}: {first_names(list(known), _LISTED)}",
            where=path,
            remedy=f"say which, as in {path}{SEPARATOR}{next(iter(known))}",
        )
    return known[found]


def _single_model(argument: str) -> str | None:
    """The path of the model that an argument names; None for a file of several models."""
    from onnxgain.analysis.baseline import by_model
    from onnxgain.measure.record_file import read_records

    if not is_records(argument):
        return argument
    path, name = split_name(argument)
    known = list(by_model(read_records(path)))
    return name if name is not None else known[0] if len(known) == 1 else None
