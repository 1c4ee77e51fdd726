"""Downloads models from URLs with fsspec into the cache, atomically and up to a size limit.

    downloads = Downloads(default_folder(), limit=4 << 30)
    path = downloads.model("s3://bucket/exports/model.onnx")

A file is downloaded again if the server's metadata (ETag, checksum, modification time, size) has changed, and every
time if there is no such metadata. External data is downloaded from the folder of the model, by the rules of
`onnxgain.model.screening`.
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
    problem,
    repository_folders,
    too_slow,
    within,
)
from onnxgain.fleet.secrets import without_secrets
from onnxgain.model.companions import COMPANIONS, LARGEST_COMPANION
from onnxgain.model.screening import inside

T = TypeVar("T")

LIMIT = 4 << 30
"""Maximum bytes of a model with its external data, by default."""

Watch = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""`onnxgain.report.text.progress.progress`, with megabytes as steps."""

_MEGABYTE = 1_000_000
# Names of metadata, in different file systems, that change when the content changes.
_MARKS = (
    "ETag", "etag", "Content-MD5", "content_md5", "md5", "md5Hash", "Digest", "checksum", "sha256", "CRC", "blob_id",
    "version_id", "generation", "Last-Modified", "LastModified", "last_modified", "last_commit", "mtime", "updated",
    "created", "date_time",
)  # fmt: skip

FETCH_SECONDS = 3600.0
"""Maximum time for the download of one file."""


class Downloads:
    """Downloads models into a folder.

    Args:
        folder: any number of runs may share it; None for the user's cache folder.
        limit: maximum bytes of a model, including its external data.
        watch: shows progress.
    """

    def __init__(self, folder: Path | None = None, limit: int = LIMIT, watch: Watch | None = None) -> None:
        self._folder = folder
        self.limit = limit
        self._temporaries: set[Path] = set()
        self.watch: Watch = watch or (lambda label, total: nullcontext(lambda steps: None))

    @property
    def folder(self) -> Path:
        """The folder of the downloads.

        Raises:
            OnnxgainError: the user has no home folder.
        """
        return self._folder or default_folder()

    def model(self, url: str) -> Path:
        """Download the model at a URL, and its external data as far as known, unless they are up to date.

        Returns:
            The path of the model file.

        Raises:
            OnnxgainError: it cannot be downloaded; if a package is missing, the error says which one.
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
        """Download the files of a hub's repository about preprocessing and classes, unless they are up to date."""
        for name in COMPANIONS:
            note, path = _notes(model) / "companions" / name, model.parent / name
            for where in (f"{folder}/{name}" for folder in repository_folders(url)):
                with suppress(MissingError):
                    place, mark, size = self._look(where)
                    state = json.dumps({"from": where, "mark": mark})
                    if mark is None or not path.is_file() or _read(note) != state:
                        self._fetch(where, place, size, path, LARGEST_COMPANION)
                        self._write(note, functools.partial(Path.write_text, data=state))
                    break
            else:
                path.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Remove partial files; the threads that download them may be killed before they can do so."""
        for temporary in list(self._temporaries):
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def complete(self, url: str, model: Path, external: Iterable[str | os.PathLike[str]] | None) -> bool:
        """Download external data that a model turned out to need.

        Args:
            url: the URL of the model.
            model: the path that `model` returned for it.
            external: the model's external files, in its folder. Files that it must not refer to are not downloaded.

        Returns:
            Whether anything was downloaded.

        Raises:
            OnnxgainError: as for `model`, except for missing files, which are reported when the model is read.
        """
        missing = []
        for file in external or ():
            name = os.path.relpath(file, model.parent).replace(os.sep, "/")
            with suppress(ModelError, OSError):
                # A "::" in the name would make it a different URL.
                if ":" not in name and not inside(name, model).exists() and name != model.name:
                    missing.append(name)
        downloaded = [self._external(url, model, name) for name in missing]
        return any(downloaded)

    def _external(self, url: str, model: Path, name: str) -> bool:
        """Download a file of external data, unless it is up to date; return whether it was downloaded."""
        path = inside(name, model)
        where = beside(url, name)
        try:
            place, mark, size = self._look(where)
        except MissingError:
            return False
        note = _notes(model) / _digest([name])
        state = json.dumps({"name": name, "mark": mark, "size": size})
        if mark is not None and path.is_file() and _read(note) == state:
            return False
        others = sum(file.stat().st_size for file in model.parent.rglob("*") if file.is_file() and file != path)
        self._fetch(where, place, size, path, self.limit - others)
        self._write(note, lambda temporary: temporary.write_text(state))
        return True

    def _look(self, url: str) -> tuple[tuple[Any, str], Any, int | None]:
        """(file system and path, metadata that identifies the version, size) of a file; None for what is unknown."""
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
        """Download a file; it appears at ``path`` only when it is complete."""
        import fsspec.callbacks

        downloads = self

        class Meter(fsspec.callbacks.Callback):  # type: ignore[misc]
            """Counts bytes, and raises if there are too many or it takes too long."""

            count = 0

            def relative_update(self, inc: int = 1) -> None:
                if time.monotonic() > deadline:
                    raise too_slow(FETCH_SECONDS)
                before, self.count = self.count // _MEGABYTE, self.count + inc
                downloads._check_size(self.count, limit, url)
                advance(self.count // _MEGABYTE - before)

        self._check_size(size or 0, limit, url)
        system, remote_path = place
        deadline = time.monotonic() + FETCH_SECONDS
        with self.watch(f"fetching {file_name(url)}, MB", (size or 0) // _MEGABYTE) as advance:

            def write(temporary: Path) -> None:
                try:
                    within(FETCH_SECONDS, lambda: system.get_file(remote_path, str(temporary), callback=Meter()))
                except Exception as error:
                    raise problem(error, url) from error
                received = temporary.stat().st_size
                self._check_size(received, limit, url)
                if size is not None and received != size:
                    raise OnnxgainError(
                        f"the download is incomplete: {received} of {size} bytes",
                        where=without_secrets(url),
                        remedy="try again",
                    )

            self._write(path, write)

    def _check_size(self, size: int, limit: int, url: str) -> None:
        if size > limit:
            raise OnnxgainError(
                f"larger than the {self.limit / 1e9:.3g} GB that may be downloaded per model",
                where=without_secrets(url),
                remedy="raise --max-download if you trust it",
            )

    def _write(self, path: Path, write: Callable[[Path], object]) -> None:
        """Write a file atomically: ``write`` gets the path of a temporary file."""
        temporary = self.folder / "unfinished" / os.urandom(8).hex()
        self._temporaries.add(temporary)
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            temporary.replace(path)
        except OSError as error:
            raise OnnxgainError(
                f"cannot be saved: {error.strerror}", where=str(path.parent), remedy="name another folder with --cache"
            ) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            self._temporaries.discard(temporary)


def _notes(model: Path) -> Path:
    """The folder of notes about downloaded files. It is not the model's folder, where the model chooses file names."""
    return model.parent.with_name(f"{model.parent.name}.notes")


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return None
