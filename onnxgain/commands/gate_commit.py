"""The files that a commit needs so that the gate finds everything in another checkout."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxgain.commands.model_history import POINTERS, git, is_pointer_to
from onnxgain.model.companions import companion_files

LARGEST = 100 << 20
"""GitHub and gitlab.com refuse larger files outside of Git LFS, in bytes."""

_FEW = 6
"""Up to this many files of a folder are listed by name."""

_MOST_LINKS = 40


@dataclass(frozen=True)
class Commit:
    """Paths relative to the current folder that git has to add.

    Attributes:
        plain: what `git add` takes, with folders in place of all of their files.
        ignored: what only `git add -f` takes, because git ignores it.
        large: the files among them that need Git LFS and do not have it.
    """

    plain: tuple[str, ...]
    ignored: tuple[str, ...]
    large: tuple[str, ...]


def commit_of(files: Iterable[Path], top: Path, *, later: Sequence[str] = ()) -> Commit:
    """What git has to add for files, the links that lead to them, and the settings of git that apply to them.

    Args:
        top: the folder of the repository.
        later: files, relative to the current folder, that other steps write before.
    """
    needed = dict.fromkeys(found for file in files for found in _with_links(file))
    needed |= dict.fromkeys(settings for file in [*needed] for settings in _attributes(file, top))
    inside = [file for file in needed if file.is_relative_to(top)]
    held = _held(inside, top)
    missing = [_shown(file) for file in inside if file not in held] + list(later)
    ignored = {name for name in missing if is_ignored(name)}
    large = [n for n in missing if os.path.lexists(n) and os.lstat(n).st_size > LARGEST and not _has_lfs(n)]
    plain = _by_folders([name for name in missing if name not in ignored])
    return Commit(tuple(plain), tuple(name for name in missing if name in ignored), tuple(large))


def files_of_model(path: Path) -> list[Path]:
    """A model's file, its external data, and the files beside it that say how to read it."""
    return [path, *external_files(path), *companion_files(path)]


def external_files(path: Path) -> list[Path]:
    """The files of a model's external data; empty if it cannot be read."""
    from onnxgain.model.screening import external_locations

    try:
        return [path.parent / name for name in external_locations(path)]
    except OSError:
        return []


def is_ignored(name: str | os.PathLike[str]) -> bool:
    """Whether git ignores a file; False if git is not installed."""
    return git("check-ignore", "--quiet", "--", os.fspath(name)) is not None


def other_repository(path: Path, top: Path) -> Path | None:
    """The folder of a repository inside this one that has the file, such as a submodule; None if there is none."""
    folders = [folder for folder in _whole(path).parents if folder != top and folder.is_relative_to(top)]
    return next((folder for folder in folders if os.path.lexists(folder / ".git")), None)


def _whole(path: Path) -> Path:
    """The absolute path without "..", and with its links."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _shown(path: Path) -> str:
    return Path(os.path.relpath(path)).as_posix()


def _with_links(path: Path) -> list[Path]:
    """The links on the way to a file, and the file that they lead to."""
    found: list[Path] = []
    path = _whole(path)
    while len(found) < _MOST_LINKS:
        link = next((part for part in (*reversed(path.parents), path) if part.is_symlink()), None)
        if link is None:
            break
        found.append(link)
        path = _whole(link.parent / link.readlink() / path.relative_to(link))
    return [*found, path]


def _attributes(path: Path, top: Path) -> list[Path]:
    """The files that say which files are in Git LFS, as far as they apply to a file."""
    folders = [folder for folder in path.parents if folder.is_relative_to(top)]
    return [file for folder in folders if (file := folder / ".gitattributes").is_file()]


def _held(files: Sequence[Path], top: Path) -> set[Path]:
    """The files that the last commit holds as they are.

    Asking git for its status would run filters that the repository's settings name.
    """
    names = {file.relative_to(top).as_posix(): file for file in files}
    listed = git("ls-tree", "-r", "-z", "-l", "--full-tree", "HEAD", "--", *names, folder=top) if names else None
    held = set()
    for entry in (listed or b"").decode("utf-8", "surrogateescape").split("\0"):
        attributes, _, name = entry.partition("\t")
        if name in names:
            mode, _, identity, size = attributes.split()
            if size.isdigit() and _is_blob(names[name], identity, int(size), link=mode == "120000"):
                held.add(names[name])
    return held


def _is_blob(file: Path, identity: str, size: int, *, link: bool) -> bool:
    """Whether a file is what git has under an identity, itself or behind a pointer of Git LFS."""
    if link or file.is_symlink():
        return link and file.is_symlink() and _identity(os.fsencode(file.readlink()), identity) == identity
    if file.stat().st_size == size and _identity(file.read_bytes(), identity) == identity:
        return True
    pointer = git("cat-file", "blob", identity, folder=file.parent) if size in POINTERS else None
    if pointer is None:
        return False
    with file.open("rb") as stream:
        return is_pointer_to(pointer, hashlib.file_digest(stream, "sha256").hexdigest())


def _identity(content: bytes, like: str) -> str:
    """The name that git gives a content, by the algorithm of another such name."""
    return hashlib.new("sha1" if len(like) == 40 else "sha256", b"blob %d\0" % len(content) + content).hexdigest()


def _has_lfs(name: str) -> bool:
    return (git("check-attr", "filter", "--", name) or b"").endswith(b": filter: lfs\n")


def _by_folders(names: Sequence[str]) -> list[str]:
    """The names, with a folder in place of its files if they are many and all that it holds."""
    kept = dict.fromkeys(names)
    for folder in dict.fromkeys(name.partition("/")[0] for name in names if "/" in name and not name.startswith("..")):
        of_folder = [name for name in kept if name.startswith(f"{folder}/")]
        if len(of_folder) > _FEW and _files_in(folder) <= kept.keys():
            kept = dict.fromkeys(f"{folder}/" if name in of_folder else name for name in kept)
    return list(kept)


def _files_in(folder: str) -> set[str]:
    found = set()
    for current, folders, files in os.walk(folder):
        links = [name for name in folders if Path(current, name).is_symlink()]
        found |= {Path(current, name).as_posix() for name in (*files, *links)}
    return found
