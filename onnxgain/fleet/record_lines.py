"""A JSONL file of records, with one line per snapshot, which is checked before a snapshot is measured."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onnxgain.errors import OnnxgainError
from onnxgain.files import read_bytes
from onnxgain.fleet.cached_result import file_digest
from onnxgain.measure.record import Record, ScaleRecord, from_json, stimulus_text, to_json
from onnxgain.measure.record_file import LIMIT
from onnxgain.model.reading import Reading

if TYPE_CHECKING:
    from onnxgain.measure.request import Request
    from onnxgain.model.input_scale import InputScale


class RecordLines:
    """The file. Each line is a document of `onnxgain.measure.record.to_json` with the records of one snapshot.

    Args:
        path: the file, which need not exist.

    Raises:
        OnnxgainError: the file cannot be read, or is not such a file, or its folder does not exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._known: dict[tuple[str, str], tuple[Record, ...]] = {}
        self._sound: int | None = None
        """Bytes before a damaged last line; None if the last line is complete."""
        if self.path.exists():
            self._read()
        elif not self.path.parent.is_dir():
            raise OnnxgainError("the folder does not exist", where=str(path), remedy="create it first")

    def _read(self) -> None:
        *lines, rest = read_bytes(self.path, LIMIT).split(b"\n")
        whole = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        # A run that was killed while writing, or a full disk, leaves a damaged last line, which will be overwritten.
        last = whole[-1][0] if whole else 0
        self._sound = len(b"".join(line + b"\n" for line in lines)) if rest else None
        for number, line in whole:
            try:
                self._keep(from_json(line.decode("utf-8"), where=f"{self.path}: line {number}"))
            except (OnnxgainError, UnicodeDecodeError) as error:
                if number != last:
                    reason = error.what if isinstance(error, OnnxgainError) else "it is not UTF-8 text"
                    where = f"{self.path}: line {number}"
                    raise OnnxgainError(reason, where=where, remedy="remove this line, or name another file") from error
                self._sound = sum(len(line) + 1 for line in lines[: number - 1])

    def _keep(self, records: Sequence[Record]) -> None:
        first = records[0]
        self._known[first.model.sha256, _asked_by(records)] = tuple(records)

    def recall(self, path: Path, request: Request) -> tuple[Record, ...]:
        """The records with this content, stimuli, projection and input scale; empty if it has to be measured."""
        asked = dataclasses.replace(request.reading, scale=None)
        plain = request.device.is_cpu and not request.photos and request.class_index is None and asked == Reading()
        if not plain or not self._known:
            return ()
        try:
            digest = file_digest(path)
        except (OSError, OnnxgainError):
            return ()
        sample = request.sample.digest if request.sample is not None else ""
        known = self._known.get((digest, _asked(request.projection, request.specifications, sample)), ())
        if not known or not _same_scale(request.reading.scale, known[0].scale):
            return ()
        if request.fingerprint and known[0].fingerprint is None:
            return ()
        if request.steadiness and any(r.steadiness is None or r.steadiness.draws != request.steadiness for r in known):
            return ()
        return tuple(
            dataclasses.replace(r, model=dataclasses.replace(r.model, path=str(path), name=path.name)) for r in known
        )

    def append(self, records: Sequence[Record]) -> None:
        """Append the records of a snapshot, unless the file has them already.

        Raises:
            OnnxgainError: the file cannot be written.
        """
        key = records[0].model.sha256, _asked_by(records)
        if key in self._known:
            return
        line = json.dumps(json.loads(to_json(records)), ensure_ascii=False, separators=(",", ":"))
        try:
            if self._sound is not None:
                with self.path.open("r+b") as damaged:
                    damaged.truncate(self._sound)
                self._sound = None
            with self.path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(line + "\n")
        except OSError as error:
            raise OnnxgainError(
                f"cannot be written: {error.strerror}", where=str(self.path), remedy="name another file"
            ) from error
        self._keep(records)


def _asked(projection: str, stimuli: Iterable[str], sample: str) -> str:
    return json.dumps([projection, sample, *stimuli])


def _asked_by(records: Sequence[Record]) -> str:
    """The part of the request that records were measured for."""
    sample = records[0].sample
    # Older versions did not measure the neighbours' distance, so their records do not fit requests with a sample.
    known = sample is not None and (sample.neighbours is not None or not sample.copies)
    digest = "" if sample is None else sample.sha256 if known else "older"
    return _asked(records[0].projection, map(stimulus_text, records), digest)


def _same_scale(asked: InputScale | None, recorded: ScaleRecord) -> bool:
    """Whether a record has the requested input scale, or the model's own if none was requested."""
    if asked is None:
        return recorded.source != "option"
    names = ("mean", "std", "scale", "bgr")
    return all(getattr(asked, name) == getattr(recorded, name) for name in names)
