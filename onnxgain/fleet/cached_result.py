"""A model's place in the cache.

The key is the content of the model file, that of its external data, the request, and the software. Which files hold
external data follows from the model file, but only a parser can say: so that is kept in an entry of its own.
"""

from __future__ import annotations

import hashlib
import json
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxgain.errors import ModelError, OnnxgainError, UnsupportedOperatorError, ZeroGradientError
from onnxgain.fleet.cache import Cache, key_of
from onnxgain.fleet.protocol import error_from_json, error_to_json
from onnxgain.fleet.result import Result, from_records
from onnxgain.fleet.sources import Source
from onnxgain.measure import preview
from onnxgain.measure.record import from_json, to_json
from onnxgain.model.screening import check_file

_LASTING = (ModelError, UnsupportedOperatorError, ZeroGradientError)
"""Errors that a model has every time; others (a crash, a timeout) are tried again."""

_BLOCK = 1 << 20
"""Bytes hashed at a time."""

_NOT_IN_RECORDS = ("picture_side", "arrays", "series")
"""Parts of a request that records do not depend on."""


class CachedResult:
    """A model's place in the cache.

    Args:
        path: the model file; `digest` is `file_digest` of it.
        request: `onnxgain.measure.request.Request.to_json` and `digests`.
        deadline: see `file_digest`.
    """

    def __init__(
        self, cache: Cache, path: Path, digest: str, request: Mapping[str, Any], deadline: float | None = None
    ) -> None:
        self.deadline = deadline
        self.cache = cache
        self.path = path
        self.digest = digest
        self.request = {name: value for name, value in request.items() if name not in _NOT_IN_RECORDS}
        self.picture_side = request["picture_side"]

    def recall(self, memory_limit: int | None) -> Result | None:
        """The result kept for just this content and request; None where there is none."""
        try:
            for content in self._contents():
                text = self.cache.get(self._key(content))
                if text is not None:
                    return self._recalled(json.loads(text), content, memory_limit)
            return None
        except (ValueError, KeyError, TypeError, OnnxgainError):
            return None

    def _contents(self) -> Iterator[str]:
        """The content that the model may have: its file alone, or with what is known as its external data."""
        yield self.digest
        listed = self.cache.get(self._external_key())
        content = _content_digest(self.path, json.loads(listed), self.deadline) if listed is not None else None
        if content is not None:
            yield content

    def _recalled(self, kept: dict[str, Any], content: str, memory_limit: int | None) -> Result | None:
        source = Source(0, self.path)
        if "records" not in kept:
            # With more memory, what failed may succeed: an error holds for the limit it was met under, and lower ones.
            met = kept["memory_limit"]
            holds = met is None or (memory_limit is not None and memory_limit <= met)
            return Result(source, error=error_from_json(kept["error"]), origin="cache") if holds else None
        records = from_json(kept["records"])
        if not self.picture_side:
            return Result(source, from_records(records), origin="cache")
        # Pictures have entries of their own: records are the same with and without them.
        text = self.cache.get(self._picture_key(content))
        if text is None:
            return None
        pictures = [preview.from_json(picture) for picture in json.loads(text)]
        return Result(source, from_records(records, pictures), origin="cache")

    def keep(self, result: Result, memory_limit: int | None) -> None:
        """Keep a result, if the model would give it again and its files are still those that were hashed."""
        if result.external is None or (result.error is not None and not isinstance(result.error, _LASTING)):
            return
        if any(record.caveats is not None and record.caveats.random for record in result.records):
            return  # the next run gives other numbers
        if result.error is not None and result.measurements:  # entries hold the one or the other
            return
        folder = self.path.parent
        try:
            external = [str(Path(file).relative_to(folder)) for file in result.external]
            content = _content_digest(self.path, external, self.deadline)
        except (OSError, ValueError):
            return
        measured = {record.model.sha256 for record in result.records}
        if content is None or not measured <= {content} or (not external and content != self.digest):
            return
        if external:
            self.cache.put(self._external_key(), json.dumps(external))
        if result.error is not None:
            kept: dict[str, Any] = {"error": error_to_json(result.error), "memory_limit": memory_limit}
        else:
            kept = {"records": to_json(result.records)}
            if result.previews:
                self.cache.put(self._picture_key(content), json.dumps([preview.to_json(p) for p in result.previews]))
        self.cache.put(self._key(content), json.dumps(kept))

    def _key(self, content: str) -> str:
        return key_of("answer", self.digest, content, self.request)

    def _picture_key(self, content: str) -> str:
        return key_of("pictures", self.digest, content, self.request, self.picture_side)

    def _external_key(self) -> str:
        return key_of("external", self.digest)


def _content_digest(path: Path, external: Sequence[str], deadline: float | None) -> str | None:
    """As `onnxgain.model.model_file.Content` computes it; None where a name leads out of the folder, or nowhere."""
    digest = hashlib.sha256()
    for name in ("", *external):
        if name and (Path(name).is_absolute() or ".." in Path(name).parts):
            return None
        try:
            _update(digest, path.parent / name if name else path, deadline)
        except OSError:
            return None
    return digest.hexdigest()


def file_digest(path: Path, deadline: float | None = None) -> str:
    """SHA-256 of a model file.

    Args:
        deadline: the time, as `time.monotonic` gives it, at which to give up.

    Raises:
        OSError: it cannot be read, or not in time.
        ModelError: it is not a file that can be a model: a pipe would wait for ever.
    """
    check_file(path)
    digest = hashlib.sha256()
    _update(digest, path, deadline)
    return digest.hexdigest()


def _update(digest: hashlib._Hash, path: Path, deadline: float | None) -> None:
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(None, "not a regular file")
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            if deadline is not None and time.monotonic() > deadline:
                raise OSError(None, "hashing it takes longer than --timeout allows")
