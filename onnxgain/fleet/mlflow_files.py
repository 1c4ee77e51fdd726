"""What an MLflow server holds, by mlflow's own client, in the words of fsspec: info, find, get_file."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onnxgain.errors import OnnxgainError

_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def is_mlflow(url: str) -> bool:
    """Whether a URL is one of MLflow's: models:/NAME/VERSION, runs:/ID/PATH, mlflow-artifacts:/PATH."""
    return re.match(r"(?:models|runs|mlflow-artifacts):/", url) is not None


def require_mlflow(where: str) -> None:
    """Say what to install where mlflow is missing; where not, it will be quiet and not wait long for a server.

    Raises:
        OnnxgainError: it is not installed.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    try:
        import mlflow  # noqa: F401
    except ImportError as error:
        raise OnnxgainError("needs mlflow, which is not installed", where=where, remedy="pip install mlflow") from error


class MlflowFiles:
    """The files of the server that MLFLOW_TRACKING_URI names. Paths are whole URIs.

    Raises:
        OnnxgainError: on being made, where mlflow is not installed.
    """

    def __init__(self, url: str) -> None:
        require_mlflow(url)

    def info(self, uri: str) -> dict[str, Any]:
        """The type of a file or a folder, and the size of a file.

        Raises:
            FileNotFoundError: there is neither.
        """
        folder, _, name = uri.rstrip("/").rpartition("/")
        if name and not folder.endswith(":") and folder.count("/") > 0:
            try:
                entries = self._entries(folder)
            except FileNotFoundError:
                entries = []
            for place, is_folder, size in entries:
                if place == f"{folder}/{name}":
                    return {"type": "directory" if is_folder else "file", "size": size}
        if self._entries(uri):
            return {"type": "directory", "size": None}
        raise FileNotFoundError(uri)

    def find(self, uri: str) -> list[str]:
        """The files in a folder and below."""
        return list(self._below(uri.rstrip("/")))

    def get_file(self, uri: str, path: str, callback: Any) -> None:
        """Fetch a file; the callback hears of it when it is here, as mlflow says nothing before."""
        from mlflow.artifacts import download_artifacts

        with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
            fetched = Path(download_artifacts(artifact_uri=uri, dst_path=folder))
            callback.relative_update(fetched.stat().st_size)
            fetched.replace(path)

    def unstrip_protocol(self, uri: str) -> str:
        """The same: paths are whole."""
        return uri

    def _below(self, uri: str) -> Iterator[str]:
        for place, is_folder, _ in self._entries(uri):
            yield from self._below(place) if is_folder else (place,)

    def _entries(self, uri: str) -> list[tuple[str, bool, int | None]]:
        """(URI, whether it is a folder, size) of what lies directly in a folder."""
        from mlflow.artifacts import list_artifacts
        from mlflow.exceptions import MlflowException

        run = re.fullmatch(r"runs:/+([^/]+)/*", uri)
        try:
            found = list_artifacts(run_id=run[1]) if run else list_artifacts(artifact_uri=uri)
        except MlflowException as error:
            # A URI that is none is an internal error to it, and so is a server that does not answer.
            if error.error_code in _MISSING or str(error).startswith("Not a proper"):
                raise FileNotFoundError(uri) from None
            raise
        # Their paths begin at a place that differs from kind to kind of URI; the last part is what counts.
        folder = uri.rstrip("/")
        return [(f"{folder}/{Path(one.path).name}", bool(one.is_dir), one.file_size) for one in found]
