"""URLs of models: their parts, the files at them, and access through fsspec with a time limit."""

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

_REPOSITORY = re.compile(r"hf://[^/]+/[^/@]+(?:@(?:refs/[^/]+/)?[^/]+)?", re.IGNORECASE)
"""The root of a repository of the Hugging Face Hub, with its revision."""

LISTING_SECONDS = 120.0
"""Maximum time to list a folder, or to get a file's metadata."""


def file_name(url: str) -> str:
    """The name of the file at a URL, made valid for local file systems."""
    place = re.split(r"[?#]", place_of(without_secrets(url)))[0]
    name = re.sub(r"[^\w.+ -]", "_", place.rstrip("/").rpartition("/")[2])[-100:]
    return name if name.strip(". ") else "model.onnx"


def beside(url: str, name: str) -> str:
    """The URL of a file with a relative name in the folder of the file at ``url``."""
    place = place_of(url)
    suffix = url[len(place) :]
    quoted = quote(name) if re.match(r"https?://", place) else name
    return place[: place.rfind("/") + 1] + quoted + suffix


def place_of(url: str) -> str:
    """The part of a URL up to the file's name: without the query, and without further URLs of a chain."""
    first = url.partition("::")[0]
    return re.split(r"[?#]", first)[0] if re.match(r"https?://", first) else first


def is_hub(url: str) -> bool:
    """Whether a URL is on the Hugging Face Hub."""
    return url.lower().startswith("hf://")


def repository_folders(url: str) -> list[str]:
    """The folders of a hub's repository that may describe the model at a URL, the likeliest first.

    These are the model's own, those above it up to the root of the repository, and a folder ``onnx`` in its own.
    """
    own = place_of(url).rpartition("/")[0]
    root = _REPOSITORY.match(own)
    below = own[root.end() :].strip("/") if root else ""
    names = below.split("/") if below else []
    above = ["/".join([own[: root.end()] if root else own, *names[:count]]) for count in range(len(names), -1, -1)]
    return [*above, f"{own}/onnx"]


class MissingError(ModelError):
    """The file does not exist."""


def listed(url: str) -> list[str]:
    """The URLs of the .onnx files in a folder or for a pattern; the URL itself if it is neither.

    The URL of a folder ends in a slash; on a hub or an MLflow server, everything that does not end in .onnx is a
    folder.

    Raises:
        OnnxgainError: the files cannot be listed.
    """
    place = place_of(url)
    folder = place.endswith("/") or ((is_hub(url) or is_mlflow(url)) and not place.lower().endswith(_SUFFIX))
    if "*" not in place and not folder:
        return [url]
    import_fsspec(url)

    def find() -> list[str]:
        system, path = file_system(url)
        names = system.glob(path) if "*" in path else system.find(path)
        models = [str(name) for name in names if str(name).lower().endswith(_SUFFIX)]
        return [system.unstrip_protocol(name) + url[len(place) :] for name in models]

    try:
        return within(LISTING_SECONDS, find)
    except Exception as error:
        raise problem(error, url) from error


def models_in(url: str) -> str:
    """The remedy for a URL that is a folder: which model to name instead."""
    try:
        models = listed(f"{url.rstrip('/')}/")
    except OnnxgainError:
        models = []
    if not models:
        return f"name a {_SUFFIX} file"
    several = f" or {len(models) - 1} more, or onnxgain compare {without_secrets(url)}" if len(models) > 1 else ""
    return f"name {without_secrets(models[0])}{several}"


def within(seconds: float, work: Callable[[], T]) -> T:
    """Run ``work`` in a thread and return its result: a server that never stops sending cannot block the program.

    Raises:
        OnnxgainError: it takes longer than ``seconds``.
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
            # Wait in short steps, because Windows cannot interrupt a long wait.
            result, error = outcome.get(timeout=min(max(end - time.monotonic(), 0.0), 1.0))
        except queue.Empty:
            if time.monotonic() >= end:
                raise too_slow(seconds) from None
            continue
        if error is not None:
            raise error
        return cast("T", result)


def too_slow(seconds: float) -> OnnxgainError:
    """The error for a download that exceeds the time limit."""
    return OnnxgainError(
        f"does not arrive within {seconds:.0f} s", remedy="download it by other means, and name the file"
    )


def import_fsspec(url: str) -> None:
    """Raise OnnxgainError if fsspec is not installed."""
    try:
        import fsspec  # noqa: F401
    except ImportError as error:
        raise OnnxgainError(
            "is a URL, and fsspec is not installed", where=without_secrets(url), remedy="pip install fsspec"
        ) from error


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Raises:
        OnnxgainError, ImportError: a required package is not installed.
    """
    if is_mlflow(url):
        return MlflowFiles(url), url
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url, **_options(url))
    return system, path


def _options(url: str) -> Mapping[str, Any]:
    """Options for http: a timeout for idle connections instead of the whole download, and the environment's proxies."""
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
    """Translate any exception of a download into an error for the user."""
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
