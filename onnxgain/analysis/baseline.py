"""Files of records that a gate compares with: reading them, and renewing them without losing another model's."""

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
    """Records by the path of their model, in their order."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.model.path, []).append(record)
    return found


def renewed(old: Sequence[Record], new: Sequence[Record]) -> list[Record]:
    """The old records with those of the models measured anew replaced, in their places, and new models at the end."""
    before, after = by_model(old), by_model(new)
    partners = {theirs: ours for ours, theirs in pair_models(list(after), list(before), lone=False).items()}
    kept = {partners.get(path, path): after.get(partners.get(path, path), records) for path, records in before.items()}
    return [record for records in (kept | after).values() for record in records]


def write_baseline(path: str | os.PathLike[str], new: Sequence[Record]) -> int:
    """Put records into a baseline, in one step; those of other models in it stay. Returns how many models it holds.

    Raises:
        OnnxgainError: the file there is something else than a baseline, or a damaged one, or it cannot be written.
    """
    old: list[Record] = []
    if Path(path).exists():
        schema = schema_of(path)
        if not _is_of_records(schema):  # it might be the model
            raise OnnxgainError(
                "is there and is not a file of records, so it is not overwritten",
                where=str(path),
                remedy="name another file for --baseline, or delete this one",
            )
        if schema == SCHEMA:  # in another version's, nothing can be compared any more
            old = read_records(path)
    records = _unchanged_kept(old, renewed(old, new))
    atomic_write(path, _lines(records))
    return len(by_model(records))


def _lines(records: Sequence[Record]) -> str:
    """The records as a JSON document with a line each, so that accepting a model changes few lines."""
    lines = [json.dumps(as_json(record), allow_nan=False, ensure_ascii=False) for record in records]
    return f'{{"schema": {json.dumps(SCHEMA)}, "records": [\n' + ",\n".join(lines) + "\n]}\n"


def _unchanged_kept(old: Sequence[Record], records: Sequence[Record]) -> list[Record]:
    """The records, but for those that say again what an old one says and differ in the time taken only."""

    def said(record: Record) -> str:
        return json.dumps(as_json(replace(record, time=_NO_TIME)))

    known = {said(record): record for record in old}
    return [known.get(said(record), record) for record in records]


_NO_TIME = TimeRecord(0.0, 0.0, 0.0, 0.0)


def may_be_renewed(path: str | os.PathLike[str]) -> bool:
    """Whether `write_baseline` would write a file: there is none yet, or it holds records, of whatever version."""
    return not Path(path).exists() or _is_of_records(schema_of(path))


def _is_of_records(schema: str) -> bool:
    return schema.startswith(f"{SCHEMA.partition('/')[0]}/")
