"""Files on an MLflow server, accessed by mlflow's own client, with the interface of fsspec: info, find, get_file."""

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
    """Import mlflow, configured to print nothing and to give up soon if a server does not answer.

    Args:
        where: what needs it, for the error.

    Raises:
        OnnxgainError: mlflow is not installed.
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
    """The files of the server in MLFLOW_TRACKING_URI. Paths are complete URIs.

    Raises:
        OnnxgainError: mlflow is not installed.
    """

    def __init__(self, url: str) -> None:
        require_mlflow(url)

    def info(self, uri: str) -> dict[str, Any]:
        """The type of a file or folder, and the size of a file.

        Raises:
            FileNotFoundError: it does not exist.
        """
        folder, _, name = uri.rstrip("/").rpartition("/")
        if name and not folder.endswith(":") and folder.count("/") > 0:
            try:
                entries = self._entries(folder)
            except FileNotFoundError:
                entries = []
            for entry, is_folder, size in entries:
                if entry == f"{folder}/{name}":
                    return {"type": "directory" if is_folder else "file", "size": size}
        if self._entries(uri):
            return {"type": "directory", "size": None}
        raise FileNotFoundError(uri)

    def find(self, uri: str) -> list[str]:
        """The files in a folder and its subfolders."""
        return list(self._below(uri.rstrip("/")))

    def get_file(self, uri: str, path: str, callback: Any) -> None:
        """Download a file; the callback is called only at the end, because mlflow does not report progress."""
        from mlflow.artifacts import download_artifacts

        with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
            downloaded = Path(download_artifacts(artifact_uri=uri, dst_path=folder))
            callback.relative_update(downloaded.stat().st_size)
            downloaded.replace(path)

    def unstrip_protocol(self, uri: str) -> str:
        """The URI itself: paths are complete URIs."""
        return uri

    def _below(self, uri: str) -> Iterator[str]:
        for entry, is_folder, _ in self._entries(uri):
            yield from self._below(entry) if is_folder else (entry,)

    def _entries(self, uri: str) -> list[tuple[str, bool, int | None]]:
        """(URI, whether it is a folder, size) of each entry of a folder."""
        from mlflow.artifacts import list_artifacts
        from mlflow.exceptions import MlflowException

        run = re.fullmatch(r"runs:/+([^/]+)/*", uri)
        try:
            artifacts = list_artifacts(run_id=run[1]) if run else list_artifacts(artifact_uri=uri)
        except MlflowException as error:
            # For an invalid URI mlflow raises an internal error, as it does if the server does not answer.
            if error.error_code in _MISSING or str(error).startswith("Not a proper"):
                raise FileNotFoundError(uri) from None
            raise
        # The root of the artifacts' paths depends on the kind of URI, so use only the last part.
        folder = uri.rstrip("/")
        return [
            (f"{folder}/{Path(artifact.path).name}", bool(artifact.is_dir), artifact.file_size)
            for artifact in artifacts
        ]
