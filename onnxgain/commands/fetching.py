"""Provides models as local files to commands that read them in this process. Models given by URL are fetched first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxgain.commands.parameters import ByteSize
from onnxgain.errors import OnnxgainError
from onnxgain.files import is_url

if TYPE_CHECKING:
    from onnxgain.fleet.remote import Downloads

download_option = click.option(
    "--max-download",
    type=ByteSize(),
    default="4Gi",
    show_default=True,
    help="Largest model, with its external data, that is fetched if one is given as a URL (s3://, gs://, hf://, "
    "http://, zip://a.onnx::b.zip, ...; needs fsspec).",
)


def open_downloads(limit: int) -> Downloads:
    """Downloads into the user's cache folder, with a progress bar."""
    from onnxgain.fleet.remote import Downloads
    from onnxgain.report.text.progress import progress

    return Downloads(None, limit, progress)


def expanded(names: Iterable[str]) -> Iterator[str]:
    """The names, with a URL of several models replaced by those models.

    A URL that cannot be listed is kept, so that opening it reports the error.
    """
    for name in names:
        models: list[str] = []
        if is_url(name):
            from onnxgain.fleet.remote_files import listed

            with suppress(OnnxgainError):
                models = listed(name)
        yield from models or [name]


@contextmanager
def local_model(name: str, downloads: Downloads) -> Iterator[Path]:
    """The model as a local file, with its external data. Errors about that file name the model as it was given.

    Raises:
        OnnxgainError: a URL cannot be fetched.
    """
    if not is_url(name):
        yield Path(name)
        return
    from onnxgain.fleet.secrets import without_secrets
    from onnxgain.model.screening import external_locations

    path = downloads.model(name)
    downloads.complete(name, path, (path.parent / location for location in external_locations(path)))
    try:
        yield path
    except OnnxgainError as error:
        if error.where is None or not error.where.startswith(str(path)):
            raise
        raise type(error)(
            error.what, where=without_secrets(name) + error.where[len(str(path)) :], remedy=error.remedy
        ) from error
