"""What URLs of models mean, what lies there, and asking for it through fsspec in good time."""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast
from urllib.parse import quote

from onnxgain.errors import ModelError, OnnxgainError, first_line, located
from onnxgain.fleet.mlflow_files import MlflowFiles, is_mlflow
from onnxgain.fleet.secrets import without_secrets, without_secrets_of

T = TypeVar("T")

_SUFFIX = ".onnx"

LISTING_SECONDS = 120.0
"""Time in which a folder must be listed, and a file's description arrive."""


def file_name(url: str) -> str:
    """The name of the file that a URL names, fit for a file system here."""
    place = re.split(r"[?#]", place_of(without_secrets(url)))[0]
    name = re.sub(r"[^\w.+ -]", "_", place.rstrip("/").rpartition("/")[2])[-100:]
    return name if name.strip(". ") else "model.onnx"


def beside(url: str, name: str) -> str:
    """The URL of the file of that relative name in the folder of the one that a URL names."""
    place = place_of(url)
    rest = url[len(place) :]
    written = quote(name) if re.match(r"https?://", place) else name
    return place[: place.rfind("/") + 1] + written + rest


def place_of(url: str) -> str:
    """The part of a URL that ends in the file's name: that before the next of a chain, and before the query."""
    first = url.partition("::")[0]
    return re.split(r"[?#]", first)[0] if re.match(r"https?://", first) else first


def is_hub(url: str) -> bool:
    """Whether a URL names something on the Hugging Face Hub."""
    return url.lower().startswith("hf://")


class MissingError(ModelError):
    """There is no such file."""


def listed(url: str) -> list[str]:
    """The URLs of the .onnx files in the folder or of the pattern that a URL is; itself where it is neither.

    Folders end in a slash; what does not end in .onnx on a hub or an MLflow server is a folder there.

    Raises:
        OnnxgainError: nothing can be listed there.
    """
    place = place_of(url)
    folder = place.endswith("/") or ((is_hub(url) or is_mlflow(url)) and not place.lower().endswith(_SUFFIX))
    if "*" not in place and not folder:
        return [url]
    import_fsspec(url)

    def find() -> list[str]:
        system, path = file_system(url)
        names = system.glob(path) if "*" in path else system.find(path)
        found = [str(name) for name in names if str(name).lower().endswith(_SUFFIX)]
        return [system.unstrip_protocol(name) + url[len(place) :] for name in found]

    try:
        return within(LISTING_SECONDS, find)
    except Exception as error:
        raise problem(error, url) from error


def models_in(url: str) -> str:
    """What to do instead of naming a folder."""
    try:
        found = listed(f"{url.rstrip('/')}/")
    except OnnxgainError:
        found = []
    if not found:
        return f"name a {_SUFFIX} file"
    several = f" or {len(found) - 1} more, or onnxgain compare {without_secrets(url)}" if len(found) > 1 else ""
    return f"name {without_secrets(found[0])}{several}"


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
                raise too_slow(seconds) from None
            continue
        if error is not None:
            raise error
        return cast("T", result)


def too_slow(seconds: float) -> OnnxgainError:
    """The error of what takes longer than that."""
    return OnnxgainError(f"does not arrive within {seconds:.0f} s", remedy="fetch it by other means, and name the file")


def import_fsspec(url: str) -> None:
    """Say what to install where fsspec is missing."""
    try:
        import fsspec  # noqa: F401
    except ImportError as error:
        raise OnnxgainError(
            "is a URL, and fsspec is not installed", where=without_secrets(url), remedy="pip install fsspec"
        ) from error


def file_system(url: str) -> tuple[Any, str]:
    """The file system that holds what a URL names, as fsspec has it, and the path there.

    Raises:
        OnnxgainError, ImportError: what it needs is not installed.
    """
    if is_mlflow(url):
        return MlflowFiles(url), url
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url, **_options(url))
    return system, path


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


def problem(error: Exception, url: str) -> OnnxgainError:
    """What kept a file from being fetched, for people; libraries raise anything."""
    if isinstance(error, OnnxgainError):
        return located(error, without_secrets(url)) if error.where is None else error
    where, cause = without_secrets(url), error.__cause__ or error
    status = getattr(cause, "status", None) or getattr(getattr(cause, "response", None), "status_code", None)
    if isinstance(error, ImportError):
        # fsspec: "Install s3fs to access S3"
        library = re.match(r"Install ([\w-]+) to access", str(error))
        remedy = f"pip install {library[1]}" if library else "install it with pip"
        return OnnxgainError(f"cannot be fetched: {_line(error, url)}", where=where, remedy=remedy)
    if is_hub(url) and status in (401, 403, 404):
        what = f"no such repository or revision, or no access to it (HTTP status {status})"
        remedy = "check the URL; a private or gated repository needs a token, in HF_TOKEN"
        return OnnxgainError(what, where=where, remedy=remedy)
    if isinstance(error, FileNotFoundError) and (error.__cause__ is None or status in (404, 410)):
        code = f" (HTTP status {status})" if status is not None else ""
        return MissingError(f"no such file{code}", where=where, remedy="check the URL")
    if status is not None:
        return OnnxgainError(f"cannot be fetched: HTTP status {status}", where=where, remedy="check your access to it")
    return OnnxgainError(
        f"cannot be fetched: {_line(cause, url)}", where=where, remedy="check the URL, the connection and your access"
    )


def _line(error: BaseException, url: str) -> str:
    return without_secrets_of(first_line(error), url)
