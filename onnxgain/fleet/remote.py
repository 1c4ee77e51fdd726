"""Models named by URL: fetched by fsspec into the cache, whole or not at all, and only as large as is allowed.

    downloads = Downloads(default_folder(), limit=4 << 30)
    path = downloads.model("s3://bucket/exports/model.onnx")

A file is fetched again when what the server says of it (its ETag, checksum, time of writing, size) has changed, and
every time where it says nothing of the kind. External data is fetched from beside the model, by the rules of
`onnxgain.model.screening`. Nothing here runs unless a URL was given.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

from onnxgain.errors import ModelError, OnnxgainError
from onnxgain.fleet.cache import default_folder
from onnxgain.fleet.remote_files import (
    LISTING_SECONDS,
    MissingError,
    beside,
    file_name,
    file_system,
    import_fsspec,
    is_hub,
    models_in,
    place_of,
    problem,
    too_slow,
    within,
)
from onnxgain.fleet.secrets import without_secrets
from onnxgain.model.companions import COMPANIONS, LARGEST_COMPANION
from onnxgain.model.screening import inside

T = TypeVar("T")

LIMIT = 4 << 30
"""Bytes of the largest model, with its external data, that is fetched unless more are allowed."""

Watch = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""`onnxgain.report.text.progress.progress`; megabytes are its steps."""

_MEGABYTE = 1_000_000
# What file systems call that which changes with the content.
_MARKS = (
    "ETag", "etag", "Content-MD5", "content_md5", "md5", "md5Hash", "Digest", "checksum", "sha256", "CRC", "blob_id",
    "version_id", "generation", "Last-Modified", "LastModified", "last_modified", "last_commit", "mtime", "updated",
    "created", "date_time",
)  # fmt: skip

FETCH_SECONDS = 3600.0
"""Time in which a model must arrive with its external data."""


class Downloads:
    """Files fetched into a folder.

    Args:
        folder: may be shared by any number of runs; the user's cache folder where None.
        limit: bytes that a model may have, its external data included.
        watch: shows progress.
    """

    def __init__(self, folder: Path | None = None, limit: int = LIMIT, watch: Watch | None = None) -> None:
        self._folder = folder
        self.limit = limit
        self._temporaries: set[Path] = set()
        self.watch: Watch = watch or (lambda label, total: nullcontext(lambda steps: None))

    @property
    def folder(self) -> Path:
        """Where files go.

        Raises:
            OnnxgainError: the user has no home folder.
        """
        return self._folder or default_folder()

    def model(self, url: str) -> Path:
        """The model file that a URL names; its known external data lies beside it, as new as it.

        Raises:
            OnnxgainError: it cannot be fetched; says why, and what to install where that is it.
        """
        place, mark, size = self._look(url)
        folder = self.folder / "models" / _digest([url, mark, size])
        path = folder / file_name(url)
        if mark is None or not path.is_file():
            self._fetch(url, place, size, path, self.limit)
        for note in _notes(path).glob("*"):
            with suppress(OSError, ValueError):
                self._external(url, path, str(json.loads(note.read_text())["name"]))
        if is_hub(url):
            self._companions(url, path)
        return path

    def _companions(self, url: str, model: Path) -> None:
        """Fetch what a repository of a hub says of a model's preprocessing and classes, unless it is here as there."""
        folders = [url, place_of(url).rpartition("/")[0]] if place_of(url).split("/")[-2:-1] == ["onnx"] else [url]
        for name in COMPANIONS:
            note, path = _notes(model) / "companions" / name, model.parent / name
            for where in (beside(folder, name) for folder in folders):
                with suppress(MissingError):
                    place, mark, size = self._look(where)
                    told = json.dumps({"from": where, "mark": mark})
                    if mark is None or not path.is_file() or _read(note) != told:
                        self._fetch(where, place, size, path, LARGEST_COMPANION)
                        self._write(note, functools.partial(Path.write_text, data=told))
                    break
            else:
                path.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Remove what is fetched just now; the threads that fetch it may not live to do so."""
        for temporary in list(self._temporaries):
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def complete(self, url: str, model: Path, external: Iterable[str | os.PathLike[str]] | None) -> bool:
        """Fetch external data that a model turned out to need; whether any came.

        Args:
            model: what `model` gave for the URL.
            external: files as the model names them, below its folder. What it may not name is not fetched.

        Raises:
            OnnxgainError: as `model`; not where there is no such file, which reading the model reports.
        """
        missing = []
        for file in external or ():
            name = os.path.relpath(file, model.parent).replace(os.sep, "/")
            with suppress(ModelError, OSError):
                # "::" would make another URL of it.
                if ":" not in name and not inside(name, model).exists() and name != model.name:
                    missing.append(name)
        came = [self._external(url, model, name) for name in missing]
        return any(came)

    def _external(self, url: str, model: Path, name: str) -> bool:
        """Fetch a file of external data, unless it is here as it is there."""
        path = inside(name, model)
        where = beside(url, name)
        try:
            place, mark, size = self._look(where)
        except MissingError:
            return False
        note = _notes(model) / _digest([name])
        told = json.dumps({"name": name, "mark": mark, "size": size})
        if mark is not None and path.is_file() and _read(note) == told:
            return False
        others = sum(file.stat().st_size for file in model.parent.rglob("*") if file.is_file() and file != path)
        self._fetch(where, place, size, path, self.limit - others)
        self._write(note, lambda temporary: temporary.write_text(told))
        return True

    def _look(self, url: str) -> tuple[tuple[Any, str], Any, int | None]:
        """(file system and path there, what tells its versions apart, size) of a file; None where nobody says."""
        import_fsspec(url)

        def look() -> tuple[Any, str, Mapping[str, Any]]:
            system, path = file_system(url)
            return system, path, system.info(path)

        try:
            system, path, info = within(LISTING_SECONDS, look)
        except Exception as error:
            raise problem(error, url) from error
        if info.get("type") == "directory":
            raise ModelError("is a folder, not a model file", where=without_secrets(url), remedy=models_in(url))
        mark = {name: str(info[name]) for name in _MARKS if info.get(name) is not None}
        size = info.get("size")
        return (system, path), mark or None, int(size) if size is not None else None

    def _fetch(self, url: str, place: tuple[Any, str], size: int | None, path: Path, limit: int) -> None:
        """Fetch a file; it appears under its path when it is whole."""
        import fsspec.callbacks

        downloads = self

        class Meter(fsspec.callbacks.Callback):  # type: ignore[misc]
            """Counts bytes, and stops where there are too many."""

            count = 0

            def relative_update(self, inc: int = 1) -> None:
                if time.monotonic() > deadline:
                    raise too_slow(FETCH_SECONDS)
                before, self.count = self.count // _MEGABYTE, self.count + inc
                downloads._check_size(self.count, limit, url)
                advance(self.count // _MEGABYTE - before)

        self._check_size(size or 0, limit, url)
        system, there = place
        deadline = time.monotonic() + FETCH_SECONDS
        with self.watch(f"fetching {file_name(url)}, MB", (size or 0) // _MEGABYTE) as advance:

            def write(temporary: Path) -> None:
                try:
                    within(FETCH_SECONDS, lambda: system.get_file(there, str(temporary), callback=Meter()))
                except Exception as error:
                    raise problem(error, url) from error
                got = temporary.stat().st_size
                self._check_size(got, limit, url)
                if size is not None and got != size:
                    raise OnnxgainError(
                        f"is truncated: {got} of {size} bytes came", where=without_secrets(url), remedy="try again"
                    )

            self._write(path, write)

    def _check_size(self, size: int, limit: int, url: str) -> None:
        if size > limit:
            raise OnnxgainError(
                f"has more than the {self.limit / 1e9:.3g} GB that are fetched for a model",
                where=without_secrets(url),
                remedy="raise --max-download if you trust it",
            )

    def _write(self, path: Path, write: Callable[[Path], object]) -> None:
        """Have a file written, whole or not at all."""
        temporary = self.folder / "unfinished" / os.urandom(8).hex()
        self._temporaries.add(temporary)
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            temporary.replace(path)
        except OSError as error:
            raise OnnxgainError(
                f"cannot be kept: {error.strerror}", where=str(path.parent), remedy="name another folder with --cache"
            ) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            self._temporaries.discard(temporary)


def _notes(model: Path) -> Path:
    """Where it stands which external data of a model is here; not in its folder, where the model names the files."""
    return model.parent.with_name(f"{model.parent.name}.notes")


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return None
