"""The cache entries of a model.

The key consists of the content of the model file and of its external data, the request, and the software. Only a parser
of the model file can tell which files hold external data, so their names have a cache entry of their own.
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
"""Errors that a model gives every time. After others (a crash, a timeout) it is measured again."""

_BLOCK = 1 << 20
"""Bytes hashed at a time."""

_NOT_IN_RECORDS = ("picture_side", "arrays", "series")
"""Parts of a request that records do not depend on."""


class CachedResult:
    """The cache entries of a model.

    Args:
        cache: the cache.
        path: the model file.
        digest: its `file_digest`.
        request: `onnxgain.measure.request.Request.to_json` together with `digests`.
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
        """The result stored for this content and request, or None."""
        try:
            for content in self._contents():
                text = self.cache.get(self._key(content))
                if text is not None:
                    return self._recalled(json.loads(text), content, memory_limit)
            return None
        except (ValueError, KeyError, TypeError, OnnxgainError):
            return None

    def _contents(self) -> Iterator[str]:
        """Possible content digests of the model: of its file alone, and with its known external data."""
        yield self.digest
        listed = self.cache.get(self._external_key())
        content = _content_digest(self.path, json.loads(listed), self.deadline) if listed is not None else None
        if content is not None:
            yield content

    def _recalled(self, entry: dict[str, Any], content: str, memory_limit: int | None) -> Result | None:
        source = Source(0, self.path)
        if "records" not in entry:
            # With more memory the model might succeed, so an error is only valid for its own and lower memory limits.
            limit = entry["memory_limit"]
            is_valid = limit is None or (memory_limit is not None and memory_limit <= limit)
            return Result(source, error=error_from_json(entry["error"]), origin="cache") if is_valid else None
        records = from_json(entry["records"])
        if not self.picture_side:
            return Result(source, from_records(records), origin="cache")
        # Pictures have separate entries, because the records do not depend on them.
        text = self.cache.get(self._picture_key(content))
        if text is None:
            return None
        pictures = [preview.from_json(picture) for picture in json.loads(text)]
        return Result(source, from_records(records, pictures), origin="cache")

    def keep(self, result: Result, memory_limit: int | None) -> None:
        """Store a result, if it is reproducible and the files are still the same that were hashed."""
        if result.external is None or (result.error is not None and not isinstance(result.error, _LASTING)):
            return
        if any(record.caveats is not None and record.caveats.random for record in result.records):
            return  # the next run would give different numbers
        if result.error is not None and result.measurements:  # an entry holds either records or an error
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
            entry: dict[str, Any] = {"error": error_to_json(result.error), "memory_limit": memory_limit}
        else:
            entry = {"records": to_json(result.records)}
            if result.previews:
                self.cache.put(self._picture_key(content), json.dumps([preview.to_json(p) for p in result.previews]))
        self.cache.put(self._key(content), json.dumps(entry))

    def _key(self, content: str) -> str:
        return key_of("answer", self.digest, content, self.request)

    def _picture_key(self, content: str) -> str:
        return key_of("pictures", self.digest, content, self.request, self.picture_side)

    def _external_key(self) -> str:
        return key_of("external", self.digest)


def _content_digest(path: Path, external: Sequence[str], deadline: float | None) -> str | None:
    """The digest of `onnxgain.model.model_file.Content`; None if a file is missing or outside of the model's folder."""
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
        path: the file.
        deadline: the time at which to give up, by `time.monotonic`.

    Raises:
        OSError: it cannot be read, or not in time.
        ModelError: it cannot be a model: for example, it is a pipe, which could block forever.
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
