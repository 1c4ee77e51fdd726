"""Files of records that a gate compares with. Updating one keeps the records of other models."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from onnxgain.analysis.pairing import pair_models
from onnxgain.errors import OnnxgainError
from onnxgain.files import atomic_write
from onnxgain.measure.record import SCHEMA, Record, TimeRecord, as_json
from onnxgain.measure.record_file import read_records, schema_of


def by_model(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Group records by the path of their model, in order."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.model.path, []).append(record)
    return groups


def renewed(old: Sequence[Record], new: Sequence[Record]) -> list[Record]:
    """The old records, with those of models that were measured again replaced in place and new models at the end."""
    before, after = by_model(old), by_model(new)
    partners = {theirs: ours for ours, theirs in pair_models(list(after), list(before), lone=False).items()}
    kept = {partners.get(path, path): after.get(partners.get(path, path), records) for path, records in before.items()}
    return [record for records in (kept | after).values() for record in records]


def write_baseline(path: str | os.PathLike[str], new: Sequence[Record]) -> int:
    """Write records into a baseline file atomically and keep those of other models. Returns its number of models.

    Raises:
        OnnxgainError: the path holds another kind of file or a damaged baseline, or cannot be written.
    """
    old: list[Record] = []
    if Path(path).exists():
        schema = schema_of(path)
        if not _is_of_records(schema):  # perhaps the model itself
            raise OnnxgainError(
                "is there and is not a file of records, so it is not overwritten",
                where=str(path),
                remedy="name another file for --baseline, or delete this one",
            )
        if schema == SCHEMA:  # records of another schema version cannot be compared, so they are dropped
            old = read_records(path)
    records = _unchanged_kept(old, renewed(old, new))
    atomic_write(path, _lines(records))
    return len(by_model(records))


def _lines(records: Sequence[Record]) -> str:
    """The records as a JSON document with one line per record, so that accepting a model changes few lines."""
    lines = [json.dumps(as_json(record), allow_nan=False, ensure_ascii=False) for record in records]
    return f'{{"schema": {json.dumps(SCHEMA)}, "records": [\n' + ",\n".join(lines) + "\n]}\n"


def _unchanged_kept(old: Sequence[Record], records: Sequence[Record]) -> list[Record]:
    """The records, except that one that differs from an old one only in its times is replaced by the old one."""

    known = {_content(record): record for record in old}
    return [known.get(_content(record), record) for record in records]


def say_the_same(old: Sequence[Record], new: Sequence[Record]) -> bool:
    """Whether records differ in the time taken only."""
    return list(map(_content, old)) == list(map(_content, new))


def _content(record: Record) -> str:
    return json.dumps(as_json(replace(record, time=_NO_TIME)))


_NO_TIME = TimeRecord(0.0, 0.0, 0.0, 0.0)


def may_be_renewed(path: str | os.PathLike[str]) -> bool:
    """Whether `write_baseline` may write a path: nothing is there yet, or records of any schema version."""
    return not Path(path).exists() or _is_of_records(schema_of(path))


def _is_of_records(schema: str) -> bool:
    return schema.startswith(f"{SCHEMA.partition('/')[0]}/")
