"""The cache of results: one small file per result, named by the hash of everything that the result depends on.

Entries are written atomically, verified when read, and never changed. So any number of runs may share a folder and be
killed at any moment. Only damaged entries are removed; delete the folder to clear the cache.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from onnxgain.engine.environment import installed, installed_runtimes
from onnxgain.errors import OnnxgainError

_LAYOUT = "1"
_STALE = 24 * 3600.0
"""Seconds after which a partial file of a killed run is removed."""


def default_folder() -> Path:
    """`onnxgain` in the user's cache folder: XDG_CACHE_HOME or ~/.cache, ~/Library/Caches, or %LOCALAPPDATA%.

    Raises:
        OnnxgainError: the user has no home folder.
    """
    try:
        return _users_folder()
    except RuntimeError as error:
        raise OnnxgainError(
            "there is no home folder for the cache", where="HOME", remedy="give --cache FOLDER, or --no-cache"
        ) from error


def _users_folder() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "onnxgain" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "onnxgain"
    folder = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore relative paths.
    return (Path(folder) if os.path.isabs(folder) else Path.home() / ".cache") / "onnxgain"  # noqa: PTH117


class Cache:
    """A folder with one text per key.

    Attributes:
        folder: its path.
        trouble: why the last failed entry could not be stored (for example a full disk); None if all succeeded.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.trouble: str | None = None
        self._unfinished = self.folder / "unfinished"
        self._sweep()

    def get(self, key: str) -> str | None:
        """The text stored under a key, or None. A damaged entry is removed."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        digest, _, body = data.partition(b"\n")
        if digest.decode("ascii", "replace") == _digest(body):
            return body.decode("utf-8", "surrogatepass")
        with suppress(OSError):
            path.unlink()
        return None

    def put(self, key: str, text: str) -> None:
        """Store a text under a key. If that fails, set `trouble` instead of raising."""
        body = text.encode("utf-8", "surrogatepass")
        path, temporary = self._path(key), self._unfinished / os.urandom(8).hex()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._unfinished.mkdir(exist_ok=True)
            temporary.write_bytes(_digest(body).encode() + b"\n" + body)
            temporary.replace(path)
        except OSError as error:
            self.trouble = f"{error.filename or path}: {error.strerror}"
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"v{_LAYOUT}" / key[:2] / key[2:]

    def _sweep(self) -> None:
        with suppress(OSError):
            for file in self._unfinished.iterdir():
                if time.time() - file.stat().st_mtime > _STALE:
                    file.unlink(missing_ok=True)


def key_of(*parts: Any) -> str:
    """The key for a result of this software that depends on ``parts``, which are JSON-compatible."""
    return _digest(json.dumps([_LAYOUT, software(), *parts], sort_keys=True).encode())


@functools.cache
def software() -> dict[str, str]:
    """Versions of all packages that affect a result, and a hash of this package's source.

    The hash is for checkouts, where the code changes without the version.
    """
    from onnxgain.engine.environment import VERSION
    from onnxgain.engine.plugins import installed_plugins

    source = hashlib.sha256()
    root = Path(__file__).parents[1]
    for file in sorted(root.rglob("*.py")):
        source.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    libraries = installed(("numpy", "onnx", "onnx-ir", "pillow"))
    added = {plugin.package: plugin.version for plugin in installed_plugins()}
    return {"onnxgain": VERSION, "source": source.hexdigest(), **libraries, **installed_runtimes(), **added}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
