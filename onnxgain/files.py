"""Files that commands read and write: named by path or by URL, read within limits, and written atomically.

A reader never sees a partial report, and a failed run leaves nothing behind.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from onnxgain.errors import OnnxgainError

_REMEDIES = {
    errno.EACCES: "choose a folder you may write to, or change its permissions",
    errno.EPERM: "choose a folder you may write to, or change its permissions",
    errno.EROFS: "choose a folder on a file system that is not read-only",
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EDQUOT: "free some of your quota, or write to another disk",
    errno.ENOENT: "create the folder first, or correct the path",
    errno.ENOTDIR: "a part of the path is a file; correct the path",
    errno.EISDIR: "give the name of a file inside that folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "remove the link, or name the file that it leads to",
}
# These errors have no file name, because they come from write() and close(), not from open().
_WRITE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def is_url(text: str) -> bool:
    """Whether an argument is a URL or a chain of URLs. One letter before the colon is a Windows drive.

    MLflow URIs have only one slash: models:/net/1.
    """
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+(?:://|::)|(?:models|runs|mlflow-artifacts):/", text) is not None


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write `data` (text as UTF-8, line endings unchanged) to `path`, replacing an existing file atomically.

    Raises:
        OnnxgainError: the folder is missing or not writable, `path` is a folder, or the disk is full.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def read_bytes(path: str | os.PathLike[str], limit: int) -> bytes:
    """The content of a regular file. Nothing else is opened, because pipes and devices may never end.

    Args:
        limit: maximum number of bytes. The size that the file system reports is not trusted.

    Raises:
        OnnxgainError: it is missing, not a regular file, too large, or cannot be read.
    """
    where = str(path)
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
        if stat.S_ISDIR(mode):
            raise OnnxgainError("cannot be read: it is a folder", where=where, remedy="name a file in it")
        if not stat.S_ISREG(mode):
            raise OnnxgainError("is not a regular file", where=where, remedy="copy it into one")
        # Do not block: the path may be a pipe by now.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as stream:
            data = stream.read(limit + 1)
    except FileNotFoundError as error:
        raise OnnxgainError("no such file", where=where, remedy="check the path") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise OnnxgainError(f"cannot be read: {reason}", where=where, remedy="check the path") from error
    if len(data) > limit:
        raise OnnxgainError(f"has more than {limit} bytes", where=where, remedy="check that it is the file you mean")
    return data


def read_text(path: str | os.PathLike[str], limit: int) -> str:
    """The content of a regular UTF-8 text file, see `read_bytes`."""
    try:
        return read_bytes(path, limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise OnnxgainError(
            "cannot be read: it is not UTF-8 text", where=str(path), remedy="check that it is the file you mean"
        ) from error


def require_writable(path: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Check in advance what `atomic_path` would refuse after the work is done. Writes nothing.

    Args:
        inputs: files that are read and must not be overwritten.

    Raises:
        OnnxgainError: the folder is missing or not writable, `path` is a folder, a link that leads out of its folder,
            or one of the inputs.
    """
    target = Path(path)
    for used in inputs:
        if _is_same(target, Path(used)):
            raise OnnxgainError(f"would overwrite {used}, which is read", where=str(path), remedy="name another file")
    if _is_special(target):
        return
    with _reported(target, None):
        folder = _replaceable(target).parent
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{folder} is not a folder", str(folder))
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "the folder is write-protected", str(folder))


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new empty file beside `path`, with its suffix. It becomes `path` on success and is deleted on failure.

    Links are followed, and the permissions of an existing file are kept. A device or pipe (`/dev/stdout`) cannot be
    replaced, so the content is copied into it at the end.

    Raises:
        OnnxgainError: as for `atomic_write`. Exceptions of the body that are not about this file pass unchanged.
    """
    target = Path(path)
    special = _is_special(target)
    with _reported(target, None):
        if not special:
            target = _replaceable(target)
        temporary = _create(_temporary_folder() if special else target.parent, target.suffix)
    try:
        with _reported(target, temporary):
            yield temporary
            if special:
                with target.open("wb") as sink:
                    sink.write(temporary.read_bytes())
            else:
                if target.exists():
                    temporary.chmod(stat.S_IMODE(target.stat().st_mode))
                temporary.replace(target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _is_special(path: Path) -> bool:
    """Whether `path` exists and is neither a regular file nor a folder."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def remove_stale(path: str | os.PathLike[str]) -> None:
    """Remove the file of an earlier run, so that it is not mistaken for this run's. Removes links, not their targets.

    Raises:
        OnnxgainError: it cannot be removed.
    """
    target = Path(path)
    with _reported(target, None), suppress(FileNotFoundError):
        if target.is_symlink() or stat.S_ISREG(target.stat().st_mode):
            target.unlink()


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False


def _replaceable(path: Path) -> Path:
    """`path` after following links and checking that a file can be written there."""
    link, path = path, Path(os.path.realpath(path))
    if link.is_symlink() and not path.is_relative_to(os.path.realpath(link.parent)):
        raise OSError(errno.ELOOP, f"is a link that leads out of its folder, to {path}", str(path))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", str(path))
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is write-protected", str(path))
    if not path.parent.exists():
        raise FileNotFoundError(errno.ENOENT, f"the folder {path.parent} does not exist", str(path.parent))
    return path


def _temporary_folder() -> Path:
    import tempfile

    return Path(tempfile.gettempdir())


def _create(folder: Path, suffix: str) -> Path:
    """A new empty file. Unlike one from tempfile, its permissions follow the user's umask."""
    path = folder / f".onnxgain-{os.urandom(8).hex()}{suffix}"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return path


@contextmanager
def _reported(target: Path, temporary: Path | None) -> Iterator[None]:
    """Convert an OSError about these two files (any OSError if there is no temporary file yet) to an OnnxgainError."""
    try:
        yield
    except OSError as error:
        names = {str(name) for name in (error.filename, error.filename2) if name is not None}
        about_this = names & {str(target), str(temporary)} if names else error.errno in _WRITE_ERRORS
        if temporary is not None and not about_this:
            raise
        reason = (error.strerror or str(error)).rstrip(".")
        remedy = _REMEDIES.get(error.errno or 0, "choose another path")
        raise OnnxgainError(f"cannot write: {reason}", where=str(target), remedy=remedy) from error


def csv_text(text: str) -> str:
    """Text for a CSV cell. An apostrophe keeps spreadsheets from interpreting it as a formula.

    Numbers, also several separated by blanks, are unchanged.
    """
    risky = text[:1] in ("=", "+", "-", "@", "\t", "\r", "\n")
    return f"'{text}" if risky and not _NUMBERS.fullmatch(text) else text


_NUMBERS = re.compile(r"[+-]?[0-9.]+(?:e[+-]?[0-9]+)?(?: [+-]?[0-9.]+(?:e[+-]?[0-9]+)?)*")


def command_line(words: Iterable[str]) -> str:
    """A command line to paste into a shell. Words with control characters are quoted as bash and zsh read them."""
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    if word.isprintable():
        import shlex

        return shlex.quote(word)
    return f"$'{''.join(c if c.isprintable() and c not in _SPECIAL else _escapes(c) for c in word)}'"


_SPECIAL = "\\'"


def _escapes(character: str) -> str:
    # A byte of a name that is not UTF-8 is such a surrogate.
    undecoded = "\udc80" <= character <= "\udcff"
    encoded = character.encode("utf-8", "surrogateescape" if undecoded else "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in encoded)


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """A sort key that orders numbers inside names by value: epoch2 before epoch10."""
    parts = re.split(r"([0-9]+)", text.casefold())
    return [(1, int(part), "") if i % 2 else (0, 0, part) for i, part in enumerate(parts)] + [(0, 0, text)]
