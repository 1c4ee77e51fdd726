"""What a list of arguments means: model files, folders of them, globs, lists, URLs, and files of saved records."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from onnxgain.errors import OnnxgainError
from onnxgain.files import natural_key
from onnxgain.fleet.remote import file_name, is_url, listed, shown
from onnxgain.model.input_scale import InputScale

MODEL_SUFFIX = ".onnx"
RECORD_SUFFIXES = (".json", ".jsonl")


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
        return shown(self.url) if self.url is not None else os.fsencode(self.path).decode("utf-8", "replace")

    @property
    def file_name(self) -> str:
        """The last part of the name."""
        return file_name(self.url) if self.url is not None else Path(self.name).name


def collect_models(arguments: Sequence[str], *, pattern: str | None = None) -> list[Source]:
    """The sources that arguments name, in their order, each file once (links to one file are one file).

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
    """
    sources: list[Source] = []
    seen: set[str] = set()
    for path, error in _expand(arguments):
        if isinstance(path, str):
            if path not in seen and (
                pattern is None or fnmatchcase(path, pattern) or fnmatchcase(file_name(path), pattern)
            ):
                sources.append(Source(len(sources), Path(path), error=error, url=path))
            seen.add(path)
            continue
        identity = os.path.realpath(path) if error is None else str(path)
        if identity in seen or (pattern is not None and error is None and not _matches(path, pattern)):
            continue
        seen.add(identity)
        sources.append(Source(len(sources), path, error=error))
    return sources


_Found = Iterator[tuple[Path | str, OnnxgainError | None]]
"""Files, URLs as text, and what is wrong with them."""


def _expand(arguments: Iterable[str], *, lists: bool = True) -> _Found:
    for argument in arguments:
        if lists and argument.startswith("@"):
            yield from _expand_list(argument)
            continue
        if "\0" in argument:
            yield _nothing(argument.replace("\0", "?"), "no file has such a name", "correct the path")
            continue
        if is_url(argument):
            yield from _expand_url(argument)
            continue
        try:
            yield from _expand_path(argument)
        except OSError as error:
            yield _nothing(argument, f"cannot be read: {error.strerror}", "correct the path")


def _expand_list(argument: str) -> _Found:
    try:
        text = Path(argument[1:]).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        yield _nothing(argument, f"the list cannot be read: {reason}", "name a text file with one path a line")
        return
    lines = [line.strip() for line in text.splitlines()]
    entries = [line for line in lines if line and not line.startswith("#")]
    if not entries:
        yield _nothing(argument, "the list names no model", "write one path a line")
    yield from _expand(entries, lists=False)


def _expand_url(url: str) -> _Found:
    try:
        found = sorted(listed(url), key=natural_key)
    except OnnxgainError as error:
        yield url, error
        return
    yield from ((model, None) for model in found)
    if not found:
        yield url, OnnxgainError(f"no {MODEL_SUFFIX} file there", where=shown(url), remedy="name another folder")


def _expand_path(argument: str) -> _Found:
    path = Path(argument)
    if path.is_dir():
        models = list(_models_in(path))
        yield from ((model, None) for model in models)
        if not models:
            yield _nothing(argument, f"no {MODEL_SUFFIX} file in this folder or below", "name another folder")
    elif path.exists() or not set("*?[") & set(argument):
        missing = OnnxgainError("no such file", where=argument, remedy="check the path")
        yield path, None if path.exists() else missing
    else:
        yield from _expand_glob(argument)


def _expand_glob(pattern: str) -> _Found:
    import glob

    suffixes = RECORD_SUFFIXES if pattern.lower().endswith(RECORD_SUFFIXES) else (MODEL_SUFFIX,)
    found = False
    for match in sorted(glob.glob(pattern, recursive=True), key=natural_key):  # noqa: PTH207
        path = Path(match)
        for model in _models_in(path) if path.is_dir() else [path] if match.lower().endswith(suffixes) else []:
            found = True
            yield model, None
    if not found:
        yield _nothing(pattern, "no model matches", "check the pattern")


def _models_in(folder: Path) -> Iterator[Path]:
    """The models in a folder and below, in natural order of their paths."""
    found = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(here, name) for name in files if name.lower().endswith(MODEL_SUFFIX)]
    return iter(sorted(found, key=lambda path: natural_key(str(path))))


def _matches(path: Path, pattern: str) -> bool:
    return fnmatchcase(path.name, pattern) or fnmatchcase(path.as_posix(), pattern)


def _nothing(argument: str, what: str, remedy: str) -> tuple[Path, OnnxgainError]:
    return Path(argument), OnnxgainError(what, where=argument, remedy=remedy)
