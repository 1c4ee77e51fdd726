"""What a list of arguments means: model files, folders of them, globs, lists, URLs, and files of saved records."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from onnxgain.errors import OnnxgainError
from onnxgain.files import is_url, natural_key, read_text
from onnxgain.fleet.remote_files import file_name, listed
from onnxgain.fleet.secrets import without_secrets
from onnxgain.model.input_scale import InputScale

MODEL_SUFFIX = ".onnx"
RECORD_SUFFIXES = (".json", ".jsonl")

LIST_LIMIT = 1 << 24
"""Bytes of the longest list of models."""


@dataclass(frozen=True)
class Source:
    """Where records come from.

    Attributes:
        index: place in the order of the arguments.
        path: a model file or a file of saved records, as it was found; the argument itself where that is neither.
        scale: the model's own input scale, instead of the one asked for all.
        error: why there is nothing to measure.
        url: where the model is to be fetched from; `path` is no file then.
    """

    index: int
    path: Path
    scale: InputScale | None = None
    error: OnnxgainError | None = None
    url: str | None = None

    @property
    def has_records(self) -> bool:
        """Whether the file holds saved records; anything else is taken for a model."""
        return self.url is None and self.path.suffix.lower() in RECORD_SUFFIXES

    @property
    def name(self) -> str:
        """The path as text that can be shown; bytes of a file name that are no UTF-8 become U+FFFD. Or the URL."""
        return without_secrets(self.url) if self.url is not None else os.fsencode(self.path).decode("utf-8", "replace")

    @property
    def file_name(self) -> str:
        """The last part of the name."""
        return file_name(self.url) if self.url is not None else Path(self.name).name


def collect_models(
    arguments: Sequence[str], *, pattern: str | None = None, notice: Callable[[str], object] | None = None
) -> list[Source]:
    """The sources that arguments name, in their order.

    Each file comes once, also where links lead to it; with `notice` it comes under each of its names.

    - a file: a model, or saved records where it ends in .json or .jsonl;
    - a folder: all .onnx files in it and below, in natural order (epoch2 before epoch10); hidden folders and links
      to folders are passed over;
    - a glob, ** included, where no file has that name: its folders, and its .onnx files (or those with the ending that
      the pattern itself has);
    - a URL: a model that will be fetched; where it ends in / or has a *, all .onnx files below it or of that pattern,
      which are listed now;
    - @list.txt: a file of such arguments, one a line; empty lines and lines that begin with # do not count.

    What names nothing becomes a source with an error, so that one mistake does not stop a batch.

    Args:
        pattern: keep only files whose path or name matches this shell pattern (case matters).
        notice: for callers to whom every name counts: links to folders are followed, and this is told of files that
            look like models but are passed over.
    """
    sources: list[Source] = []
    seen: set[str] = set()
    for path, error in _Expansion(notice).of(arguments):
        if isinstance(path, str):
            if path not in seen and (
                pattern is None or fnmatchcase(path, pattern) or fnmatchcase(file_name(path), pattern)
            ):
                sources.append(Source(len(sources), Path(path), error=error, url=path))
            seen.add(path)
            continue
        identity = str(path)
        if error is None:
            identity = os.path.realpath(path) if notice is None else os.path.abspath(path)  # noqa: PTH100
        if identity in seen or (pattern is not None and error is None and not _matches(path, pattern)):
            continue
        seen.add(identity)
        sources.append(Source(len(sources), path, error=error))
    return sources


_Found = Iterator[tuple[Path | str, OnnxgainError | None]]
"""Files, URLs as text, and what is wrong with them."""


@dataclass(frozen=True)
class _Expansion:
    """Turns arguments into files; see `collect_models`."""

    notice: Callable[[str], object] | None

    def of(self, arguments: Iterable[str], *, lists: bool = True) -> _Found:
        """The files that arguments name."""
        for argument in arguments:
            if lists and argument.startswith("@"):
                yield from self._of_list(argument)
            elif "\0" in argument:
                yield _nothing(argument.replace("\0", "?"), "no file has such a name", "correct the path")
            elif is_url(argument):
                yield from _of_url(argument)
            else:
                try:
                    yield from self._of_path(argument)
                except OSError as error:
                    yield _nothing(argument, f"cannot be read: {error.strerror}", "correct the path")

    def _of_list(self, argument: str) -> _Found:
        try:
            text = read_text(argument[1:], LIST_LIMIT)
        except OnnxgainError as error:
            reason = error.what.removeprefix("cannot be read: ")
            yield _nothing(argument, f"the list cannot be read: {reason}", "name a text file with one path a line")
            return
        lines = [line.strip() for line in text.removeprefix("\ufeff").splitlines()]
        entries = [line for line in lines if line and not line.startswith("#")]
        if not entries:
            yield _nothing(argument, "the list names no model", "write one path a line")
        yield from self.of(entries, lists=False)

    def _of_path(self, argument: str) -> _Found:
        path = Path(argument)
        if path.is_dir():
            yield from self._of_folder(path)
        elif os.path.lexists(path) or not set("*?[") & set(argument):
            missing = OnnxgainError("no such file", where=argument, remedy="check the path")
            yield path, None if path.exists() else missing
        else:
            yield from self._of_glob(argument)

    def _of_folder(self, path: Path) -> _Found:
        found = list(self._models_in(path))
        yield from found
        if not found:
            yield _nothing(str(path), f"no {MODEL_SUFFIX} file in this folder or below", "name another folder")

    def _of_glob(self, pattern: str) -> _Found:
        import glob

        suffixes = RECORD_SUFFIXES if pattern.lower().endswith(RECORD_SUFFIXES) else (MODEL_SUFFIX,)
        count = 0
        for match in sorted(glob.glob(pattern, recursive=True), key=natural_key):  # noqa: PTH207
            path = Path(match)
            if path.is_dir():
                found = list(self._models_in(path))
            elif match.lower().endswith(suffixes):
                found = [(path, None)]
            else:
                self._passed_over(path)
                continue
            count += len(found)
            yield from found
        if not count:
            yield _nothing(pattern, "no model matches", "check the pattern")

    def _models_in(self, folder: Path) -> list[tuple[Path, OnnxgainError | None]]:
        """The models in a folder and below, in natural order of their paths."""
        found: list[tuple[Path, OnnxgainError | None]] = []
        folders = [(folder, frozenset[str]())]
        while folders:
            here, above = folders.pop()
            real = os.path.realpath(here)
            if real in above:  # a link that leads back
                continue
            try:
                entries = list(os.scandir(here))
            except OSError as error:
                found.append(_nothing(str(here), f"cannot be read: {error.strerror}", "check the folder's permissions"))
                continue
            for entry in entries:
                path = here / entry.name
                if not entry.is_dir():
                    if entry.name.lower().endswith(MODEL_SUFFIX):
                        found.append((path, None))
                    else:
                        self._passed_over(path)
                elif entry.name.startswith("."):
                    self._look_into_hidden(path)
                elif self.notice is not None or not entry.is_symlink():
                    folders.append((path, above | {real}))
        return sorted(found, key=lambda item: natural_key(str(item[0])))

    def _look_into_hidden(self, folder: Path) -> None:
        """Tell of models in a hidden folder, which are passed over."""
        if self.notice is None or folder.name == ".git":
            return
        for here, _, names in os.walk(folder):
            for name in names:
                if name.lower().endswith(MODEL_SUFFIX):
                    self.notice(
                        f"{Path(here, name)}: not judged, because it is in a hidden folder; name it to judge it"
                    )

    def _passed_over(self, path: Path) -> None:
        """Tell of a file that looks like a model under another name."""
        name = path.name.lower()
        if self.notice is not None and _OTHER_MODELS.search(name) and not _EXTERNAL_DATA.search(name):
            self.notice(f"{path}: not judged, because its name does not end in {MODEL_SUFFIX}; name it to judge it")


_OTHER_MODELS = re.compile(
    r"\.(?:ort|tflite|pt|pth|pth\.tar|safetensors|h5|keras|pb|mlmodel|engine|plan|onnx[._~-].*|onnx\d+)$"
)
"""Names of files that look like models, but are not taken for ONNX files."""

_EXTERNAL_DATA = re.compile(r"\.onnx[._](?:data|bin|weights?|external).*$")


def _of_url(url: str) -> _Found:
    try:
        found = sorted(listed(url), key=natural_key)
    except OnnxgainError as error:
        yield url, error
        return
    yield from ((model, None) for model in found)
    if not found:
        yield (
            url,
            OnnxgainError(f"no {MODEL_SUFFIX} file there", where=without_secrets(url), remedy="name another folder"),
        )


def _matches(path: Path, pattern: str) -> bool:
    return fnmatchcase(path.name, pattern) or fnmatchcase(path.as_posix(), pattern)


def _nothing(argument: str, what: str, remedy: str) -> tuple[Path, OnnxgainError]:
    return Path(argument), OnnxgainError(what, where=argument, remedy=remedy)
