"""Models named by URL: fetched by fsspec into the cache, whole or not at all, and only as large as is allowed.

    downloads = Downloads(default_folder(), limit=4 << 30)
    path = downloads.model("s3://bucket/exports/model.onnx")

A file is fetched again when what the server says of it (its ETag, checksum, time of writing, size) has changed, and
every time where it says nothing of the kind. External data is fetched from beside the model, by the rules of
`onnxgain.model.screening`. Nothing here runs unless a URL was given.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

from onnxgain.errors import ModelError, OnnxgainError, first_line, located
from onnxgain.fleet.cache import default_folder
from onnxgain.fleet.secrets import without_secrets, without_secrets_of
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

LISTING_SECONDS = 120.0
"""Time in which a folder must be listed, and a file's description arrive."""

FETCH_SECONDS = 3600.0
"""Time in which a model must arrive with its external data."""


def file_name(url: str) -> str:
    """The name of the file that a URL names, fit for a file system here."""
    place = re.split(r"[?#]", _place(without_secrets(url)))[0]
    name = re.sub(r"[^\w.+ -]", "_", place.rstrip("/").rpartition("/")[2])[-100:]
    return name if name.strip(". ") else "model.onnx"


def beside(url: str, name: str) -> str:
    """The URL of the file of that relative name in the folder of the one that a URL names."""
    place = _place(url)
    rest = url[len(place) :]
    written = quote(name) if re.match(r"https?://", place) else name
    return place[: place.rfind("/") + 1] + written + rest


def _place(url: str) -> str:
    """The part of a URL that ends in the file's name: that before the next of a chain, and before the query."""
    first = url.partition("::")[0]
    return re.split(r"[?#]", first)[0] if re.match(r"https?://", first) else first


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
        return path

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
        except _MissingError:
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
        from fsspec.core import url_to_fs

        def look() -> tuple[Any, str, Mapping[str, Any]]:
            system, path = url_to_fs(url, **_options(url))
            return system, path, system.info(path)

        try:
            system, path, info = within(LISTING_SECONDS, look)
        except Exception as error:
            raise _problem(error, url) from error
        if info.get("type") == "directory":
            raise ModelError(
                "is a folder, not a model file", where=without_secrets(url), remedy="name the .onnx file in it"
            )
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
                    raise _too_slow(FETCH_SECONDS)
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
                    raise _problem(error, url) from error
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


class _MissingError(ModelError):
    """There is no such file."""


def listed(url: str) -> list[str]:
    """The URLs of the .onnx files in the folder or of the pattern that a URL is; itself where it is neither.

    Raises:
        OnnxgainError: nothing can be listed there.
    """
    place = _place(url)
    if "*" not in place and not place.endswith("/"):
        return [url]
    import_fsspec(url)
    from fsspec.core import url_to_fs

    def find() -> list[str]:
        system, path = url_to_fs(url, **_options(url))
        names = system.glob(path) if "*" in path else system.find(path)
        found = [str(name) for name in names if str(name).lower().endswith(".onnx")]
        return [system.unstrip_protocol(name) + url[len(place) :] for name in found]

    try:
        return within(LISTING_SECONDS, find)
    except Exception as error:
        raise _problem(error, url) from error


def within(seconds: float, work: Callable[[], T]) -> T:
    """What some work returns; a server that never ends its answer holds up a thread, not this program.

    Raises:
        OnnxgainError: it takes longer.
    """
    outcome: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put((work(), None))
        except BaseException as error:
            outcome.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    end = time.monotonic() + seconds
    while True:
        try:
            # In short waits, because on Windows a long one cannot be interrupted.
            result, error = outcome.get(timeout=min(max(end - time.monotonic(), 0.0), 1.0))
        except queue.Empty:
            if time.monotonic() >= end:
                raise _too_slow(seconds) from None
            continue
        if error is not None:
            raise error
        return cast("T", result)


def _too_slow(seconds: float) -> OnnxgainError:
    return OnnxgainError(f"does not arrive within {seconds:.0f} s", remedy="fetch it by other means, and name the file")


def import_fsspec(url: str) -> None:
    """Say what to install where fsspec is missing."""
    try:
        import fsspec  # noqa: F401
    except ImportError as error:
        raise OnnxgainError(
            "is a URL, and fsspec is not installed", where=without_secrets(url), remedy="pip install fsspec"
        ) from error


def _options(url: str) -> Mapping[str, Any]:
    """For http: no limit for the whole of a large file, but for silence; proxies as the environment says."""
    protocols = [name for name in ("http", "https") if re.search(rf"(?:^|::){name}://", url)]
    if not protocols:
        return {}
    try:
        import aiohttp
    except ImportError as error:
        raise OnnxgainError(
            "cannot be fetched: aiohttp is not installed", where=without_secrets(url), remedy="pip install aiohttp"
        ) from error
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
    return {name: {"client_kwargs": {"timeout": timeout, "trust_env": True}} for name in protocols}


def _problem(error: Exception, url: str) -> OnnxgainError:
    """What kept a file from being fetched, for people; libraries raise anything."""
    if isinstance(error, OnnxgainError):
        return located(error, without_secrets(url)) if error.where is None else error
    where, cause = without_secrets(url), error.__cause__ or error
    status = getattr(cause, "status", None)
    if isinstance(error, ImportError):
        return OnnxgainError(f"cannot be fetched: {_line(error, url)}", where=where, remedy="install it with pip")
    if isinstance(error, FileNotFoundError) and (error.__cause__ is None or status in (404, 410)):
        code = f" (HTTP status {status})" if status is not None else ""
        return _MissingError(f"no such file{code}", where=where, remedy="check the URL")
    if status is not None:
        return OnnxgainError(f"cannot be fetched: HTTP status {status}", where=where, remedy="check your access to it")
    return OnnxgainError(
        f"cannot be fetched: {_line(cause, url)}", where=where, remedy="check the URL, the connection and your access"
    )


def _line(error: BaseException, url: str) -> str:
    return without_secrets_of(first_line(error), url)


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
