"""Files of records that a gate compares with. Updating one keeps the records of other models, to the byte.

A record takes a line for each of its fields, those for people first, so that a diff shows what accepting a model
changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxgain.analysis.pairing import pair_models
from onnxgain.errors import OnnxgainError
from onnxgain.files import atomic_write, read_text, remove_stale
from onnxgain.measure.record import SCHEMA, Record, TimeRecord, as_json
from onnxgain.measure.record_file import LIMIT, read_records, schema_of


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


def write_baseline(path: str | os.PathLike[str], new: Sequence[Record], *, without: Collection[str] = ()) -> int:
    """Write records into a baseline file atomically and keep those of other models. Returns its number of models.

    A baseline that would hold no record is removed, because a file without any is not a baseline.

    Args:
        path: the file. One that ends in .jsonl has a line per record.
        new: the records.
        without: the paths of models whose records are taken out.

    Raises:
        OnnxgainError: the path holds another kind of file or a damaged baseline, or cannot be written.
    """
    old: list[Record] = []
    written: dict[int, str] = {}
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
            written = _as_written(path, old)
    kept = [record for record in old if record.model.path not in without]
    records = _unchanged_kept(kept, renewed(kept, new))
    if not records:
        remove_stale(path)
        return 0
    atomic_write(path, _lines(records) if _has_lines(path) else _document(records, written))
    return len(by_model(records))


def _document(records: Sequence[Record], written: Mapping[int, str]) -> str:
    """The records as a JSON document. Those in ``written``, by their identity, keep the text they have."""
    texts = [written.get(id(record)) or _laid_out(_for_people_first(record)) for record in records]
    return f'{{"schema": {json.dumps(SCHEMA)}, "records": [\n' + ",\n".join(texts) + "\n]}\n"


def _lines(records: Sequence[Record]) -> str:
    """A JSON document per line, each with one record."""
    return "".join(f"{_dumped({'schema': SCHEMA, 'records': [as_json(record)]})}\n" for record in records)


def _has_lines(path: str | os.PathLike[str]) -> bool:
    return Path(path).suffix.lower() == ".jsonl"


_LAST = ("time", "weights", "spectrum", "fingerprint")
"""Fields that nobody reads, with the longest at the end."""
_WIDTH = 160
"""Objects of more characters take a line for each of their fields."""


def _for_people_first(record: Record) -> dict[str, Any]:
    values = as_json(record)
    return {name: value for name, value in values.items() if name not in _LAST} | {
        name: values[name] for name in _LAST if name in values
    }


def _laid_out(value: Any, indent: str = "") -> str:
    """JSON with a line for each field of an object, and for each object in a list, unless it fits into one line."""
    line = _dumped(value)
    entries: list[str]
    inner = f"{indent} "
    if isinstance(value, dict) and (not indent or len(line) > _WIDTH):
        entries = [f"{_dumped(name)}: {_laid_out(entry, inner)}" for name, entry in value.items()]
    elif isinstance(value, list) and len(line) > _WIDTH and any(isinstance(entry, dict) for entry in value):
        entries = [_laid_out(entry, inner) for entry in value]
    else:
        return line
    return line[0] + ",".join(f"\n{inner}{entry}" for entry in entries) + f"\n{indent}{line[-1]}"


def _dumped(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


def _as_written(path: str | os.PathLike[str], records: Sequence[Record]) -> dict[int, str]:
    """The text of each record in a baseline file, by the identity of the record; empty for a .jsonl."""
    if _has_lines(path):
        return {}
    texts = _record_texts(read_text(path, LIMIT))
    return {id(record): text for record, text in zip(records, texts, strict=True)}


def _record_texts(text: str) -> list[str]:
    """The texts of the elements of "records" in a JSON document, which has to be valid."""
    decoder, found = json.JSONDecoder(), list[str]()
    place = _next(text, 0)
    while text[place] != "}":
        name, place = decoder.raw_decode(text, _next(text, place + 1))
        place = _next(text, _next(text, place) + 1)
        if name != "records":
            place = _next(text, decoder.raw_decode(text, place)[1])
            continue
        found.clear()  # of fields of one name, the last counts
        while text[place] != "]":
            start = _next(text, place + 1)
            place = decoder.raw_decode(text, start)[1]
            found.append(text[start:place])
            place = _next(text, place)
        place = _next(text, place + 1)
    return found


def _next(text: str, place: int) -> int:
    """The next place that is no white space of JSON."""
    while text[place] in " \t\n\r":
        place += 1
    return place


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
