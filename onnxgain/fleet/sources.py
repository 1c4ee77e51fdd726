"""Turns arguments into sources: model files, folders, globs, lists, URLs, and files of saved records."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType

from onnxgain.errors import OnnxgainError
from onnxgain.files import is_url, natural_key, read_text
from onnxgain.fleet.remote_files import file_name, listed
from onnxgain.fleet.secrets import without_secrets
from onnxgain.model.input_scale import InputScale

MODEL_SUFFIX = ".onnx"
RECORD_SUFFIXES = (".json", ".jsonl")

LIST_LIMIT = 1 << 24
"""Maximum bytes of a list of models."""


LABELS: ContextVar[Mapping[str, str]] = ContextVar("labels", default=MappingProxyType({}))
"""What files are called that hold models given in memory, by their paths."""

_NO_FILE, _NO_MATCH = "no such file", "no model matches"
_NO_MODEL = f"no {MODEL_SUFFIX} file in this folder or below"


@dataclass(frozen=True)
class Source:
    """A source of records: a model or a file of saved records.

    Attributes:
        index: its position in the order of the arguments.
        path: the file; the argument itself if there is no file.
        scale: the input scale of this model; it overrides the request's.
        error: why there is nothing to measure, or None.
        url: where to download the model from; then `path` is not a file.
        label: what it is called instead of by its path.
    """

    index: int
    path: Path
    scale: InputScale | None = None
    error: OnnxgainError | None = None
    url: str | None = None
    label: str | None = None

    @property
    def has_records(self) -> bool:
        """Whether it is a file of saved records, by its name; all other files are treated as models."""
        return self.url is None and self.path.suffix.lower() in RECORD_SUFFIXES

    @property
    def is_absent(self) -> bool:
        """Whether it stands for an argument that leads to no file: there is none, or a folder or pattern has none."""
        return self.error is not None and self.error.what in (_NO_FILE, _NO_MATCH, _NO_MODEL)

    @property
    def name(self) -> str:
        """The path, or the URL without secrets, as printable text; invalid UTF-8 in a path becomes U+FFFD."""
        if self.label is not None:
            return self.label
        return without_secrets(self.url) if self.url is not None else os.fsencode(self.path).decode("utf-8", "replace")

    @property
    def file_name(self) -> str:
        """The last part of the name."""
        return file_name(self.url) if self.url is not None else Path(self.name).name


def collect_models(
    arguments: Sequence[str], *, pattern: str | None = None, notice: Callable[[str], object] | None = None
) -> list[Source]:
    """The sources for a list of arguments, in their order.

    A file that is reached several times, for example through links, is listed once; with `notice`, once for each name.

    - A file: a model, or saved records if it ends in .json or .jsonl.
    - A folder: all .onnx files in it and its subfolders, in natural order (epoch2 before epoch10), without hidden
      folders and links to folders.
    - A glob, possibly with **, if no file has that name: the folders and .onnx files that match (or files of records,
      if the pattern ends like one).
    - A URL: a model to download. If it ends in / or contains a *, the .onnx files in that folder or for that pattern
      are listed immediately.
    - @list.txt: a file with one such argument per line; empty lines and lines that start with # are ignored.

    An argument without any model becomes a source with an error, so that one mistake does not stop a batch.

    Args:
        arguments: the arguments.
        pattern: keep only files whose path or name matches this shell pattern (case-sensitive).
        notice: for callers that must not miss a model: links to folders are followed, and it is called with messages
            about skipped files that look like models.
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
        sources.append(Source(len(sources), path, error=error, label=LABELS.get().get(str(path))))
    return sources


_Found = Iterator[tuple[Path | str, OnnxgainError | None]]
"""(path, or URL as text; error or None)"""


@dataclass(frozen=True)
class _Expansion:
    """Expands arguments to files, see `collect_models`."""

    notice: Callable[[str], object] | None

    def of(self, arguments: Iterable[str], *, lists: bool = True) -> _Found:
        """The files for the arguments; ``lists`` says whether @list.txt is allowed."""
        for argument in arguments:
            if lists and argument.startswith("@"):
                if os.path.lexists(argument):
                    # A pattern of the shell may have put it here, and it would never be judged.
                    remedy = f"write ./{argument} for the file, or rename it"
                    yield _nothing(argument, "this is a file, and also means a list of models", remedy)
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
            missing = OnnxgainError(_NO_FILE, where=argument, remedy="check the path")
            yield path, None if path.exists() else missing
        else:
            yield from self._of_glob(argument)

    def _of_folder(self, path: Path) -> _Found:
        models = list(self._models_in(path))
        yield from models
        if not models:
            yield _nothing(str(path), _NO_MODEL, "name another folder")

    def _of_glob(self, pattern: str) -> _Found:
        import glob

        suffixes = RECORD_SUFFIXES if pattern.lower().endswith(RECORD_SUFFIXES) else (MODEL_SUFFIX,)
        count = 0
        for match in sorted(glob.glob(pattern, recursive=True), key=natural_key):  # noqa: PTH207
            path = Path(match)
            if path.is_dir():
                models = list(self._models_in(path))
            elif match.lower().endswith(suffixes):
                models = [(path, None)]
            else:
                self._tell_of_skipped(path)
                continue
            count += len(models)
            yield from models
        if not count:
            yield _nothing(pattern, _NO_MATCH, "check the pattern")

    def _models_in(self, folder: Path) -> list[tuple[Path, OnnxgainError | None]]:
        """The models in a folder and its subfolders, in natural order of their paths."""
        models: list[tuple[Path, OnnxgainError | None]] = []
        folders = [(folder, frozenset[str]())]
        while folders:
            current, parents = folders.pop()
            real = os.path.realpath(current)
            if real in parents:  # a link to a parent folder
                continue
            try:
                entries = list(os.scandir(current))
            except OSError as error:
                reason = f"cannot be read: {error.strerror}"
                models.append(_nothing(str(current), reason, "check the folder's permissions"))
                continue
            for entry in entries:
                path = current / entry.name
                if not entry.is_dir():
                    if entry.name.lower().endswith(MODEL_SUFFIX):
                        models.append((path, None))
                    else:
                        self._tell_of_skipped(path)
                elif entry.name.startswith("."):
                    self._tell_of_hidden(path)
                elif self.notice is not None or not entry.is_symlink():
                    folders.append((path, parents | {real}))
        return sorted(models, key=lambda item: natural_key(str(item[0])))

    def _tell_of_hidden(self, folder: Path) -> None:
        """Notify about models in a hidden folder, which are skipped."""
        if self.notice is None or folder.name == ".git":
            return
        for current, _, names in os.walk(folder):
            for name in names:
                if name.lower().endswith(MODEL_SUFFIX):
                    self.notice(
                        f"{Path(current, name)}: not judged, because it is in a hidden folder; name it to judge it"
                    )

    def _tell_of_skipped(self, path: Path) -> None:
        """Notify about a skipped file if its name looks like that of a model."""
        name = path.name.lower()
        if self.notice is not None and _OTHER_MODELS.search(name) and not _EXTERNAL_DATA.search(name):
            self.notice(f"{path}: not judged, because its name does not end in {MODEL_SUFFIX}; name it to judge it")


_OTHER_MODELS = re.compile(
    r"\.(?:ort|tflite|pt|pth|pth\.tar|safetensors|h5|keras|pb|mlmodel|engine|plan|onnx[._~-].*|onnx\d+)$"
)
"""Names of files that look like models, but not like ONNX files."""

_EXTERNAL_DATA = re.compile(r"\.onnx[._](?:data|bin|weights?|external).*$")


def _of_url(url: str) -> _Found:
    try:
        models = sorted(listed(url), key=natural_key)
    except OnnxgainError as error:
        yield url, error
        return
    yield from ((model, None) for model in models)
    if not models:
        yield (
            url,
            OnnxgainError(f"no {MODEL_SUFFIX} file there", where=without_secrets(url), remedy="name another folder"),
        )


def _matches(path: Path, pattern: str) -> bool:
    return fnmatchcase(path.name, pattern) or fnmatchcase(path.as_posix(), pattern)


def _nothing(argument: str, what: str, remedy: str) -> tuple[Path, OnnxgainError]:
    return Path(argument), OnnxgainError(what, where=argument, remedy=remedy)
