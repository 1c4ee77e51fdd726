"""Finds earlier versions of files in git."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from onnxgain.files import command_line

COMMITS = 20
"""The largest number of commits of a file's history that are searched."""

_SECONDS = 30
_LFS = b"version https://git-lfs.github.com/spec/"
POINTERS = range(100, 1024)
"""The sizes of Git LFS pointer files, in bytes."""


def git(*words: str, folder: str | os.PathLike[str] = ".") -> bytes | None:
    """The output of a git command; None if it fails or git is not installed."""
    program = shutil.which("git")
    if program is None:
        return None
    # Disable programs that the repository's own settings would run and servers that they would fetch from.
    quiet = ["-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}", "-c", "protocol.allow=never"]
    try:
        done = subprocess.run(
            [program, *quiet, *words],
            cwd=folder,
            env={**os.environ, "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None


def earlier_version(path: str, sha256: str, size: int) -> str | None:
    """A shell command that prints the version of a file with a given digest and size in bytes, in the current folder.

    None if the last `COMMITS` commits that changed the file do not have it.
    """
    file = Path(path)
    if not (sha256 and file.is_file()):
        return None
    listed = git("rev-list", f"--max-count={COMMITS}", "HEAD", "--", file.name, folder=file.parent)
    for number, commit in enumerate((listed or b"").decode("ascii").split()):
        version = f"{commit}:./{file.name}"
        length = int(git("cat-file", "-s", version, folder=file.parent) or -1)
        content = git("cat-file", "blob", version, folder=file.parent) if length in (size, *POINTERS) else None
        if content is None:
            continue
        large = content.startswith(_LFS)
        if is_pointer_to(content, sha256) if large else hashlib.sha256(content).hexdigest() == sha256:
            # HEAD is enough if only the working tree changed; a commit remains valid later too.
            commit = "HEAD" if number == 0 and _is_of_head(commit, file) else commit[:12]
            if git("rev-parse", "--show-toplevel") == git("rev-parse", "--show-toplevel", folder=file.parent):
                program, name = ["git"], Path(os.path.relpath(file)).as_posix()
            else:
                program, name = ["git", "-C", str(file.parent)], file.name
            show = command_line([*program, "show", f"{commit}:./{name}"])
            return f"{show} | {command_line([*program, 'lfs', 'smudge'])}" if large else show
    return None


def is_pointer_to(content: bytes, sha256: str) -> bool:
    """Whether a file of git is a Git LFS pointer to the content with a digest."""
    return content.startswith(_LFS) and f"oid sha256:{sha256}".encode() in content


def _is_of_head(commit: str, file: Path) -> bool:
    """Whether HEAD and a commit have the same version of a file."""
    found = [git("rev-parse", f"{revision}:./{file.name}", folder=file.parent) for revision in ("HEAD", commit)]
    return found[0] is not None and found[0] == found[1]


def place_for(path: str) -> str:
    """The path for an earlier version of a file."""
    return str(Path(tempfile.gettempdir()) / f"old_{Path(path).name}")
