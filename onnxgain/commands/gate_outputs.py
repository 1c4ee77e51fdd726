"""The files that a gate writes. None may be an input, be reached through a link, or remain from an earlier run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from onnxgain.errors import OnnxgainError
from onnxgain.files import remove_stale, require_writable
from onnxgain.measure.record_file import schema_of

_INPUT_SUFFIXES = (".onnx", ".toml", ".npy", ".npz", ".csv", ".jsonl", ".txt", ".png", ".jpg", ".jpeg", ".data", ".bin")


class GateOutputs:
    """The files that a gate writes.

    Args:
        paths: the paths of the files; None for a file that is not written.
    """

    def __init__(self, paths: Iterable[str | None]) -> None:
        self.paths = [path for path in paths if path is not None]

    @contextmanager
    def fresh(self) -> Iterator[None]:
        """Remove files of an earlier run if this one ends before `prepare`."""
        try:
            yield
        except BaseException:
            for path in self.paths:
                if not _may_be_input(Path(path)):
                    with suppress(OnnxgainError):
                        remove_stale(path)
            raise

    def prepare(self, inputs: Sequence[str | os.PathLike[str]]) -> None:
        """Check that the files can be written, and remove those of an earlier run.

        Raises:
            OnnxgainError: a file cannot be written, is one of the inputs, is written twice, or is reached through a
                link that leads out of its folder.
        """
        for number, path in enumerate(self.paths):
            _refuse_links(Path(path))
            require_writable(path, inputs)
            if any(os.path.realpath(path) == os.path.realpath(other) for other in self.paths[:number]):
                raise OnnxgainError("is named twice", where=path, remedy="write each result to a file of its own")
        for path in self.paths:
            remove_stale(path)


def _refuse_links(path: Path) -> None:
    """Refuse a relative path that leads out of the current folder through a link, which the repository may contain."""
    if path.is_absolute():
        return
    here = Path()
    for part in path.parent.parts:
        folder, here = here, here / part
        if here.is_symlink() and not Path(os.path.realpath(here)).is_relative_to(os.path.realpath(folder)):
            raise OnnxgainError(
                f"{here} is a link that leads out of its folder, to {os.path.realpath(here)}",
                where=str(path),
                remedy="remove the link, or give the whole path of the file",
            )


def _may_be_input(path: Path) -> bool:
    """Whether a file may be something other than the result of an earlier run."""
    if path.suffix.lower() in _INPUT_SUFFIXES:
        return True
    return path.suffix.lower() == ".json" and not schema_of(path).startswith("onnxgain.gate/")
