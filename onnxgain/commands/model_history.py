"""Earlier versions of files, as git keeps them."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

COMMITS = 20
"""Of a file's history, the commits that are looked at."""

_SECONDS = 30
_LFS = b"version https://git-lfs.github.com/spec/"
_POINTERS = range(100, 1024)
"""Sizes of the files that Git LFS keeps instead of large ones."""


def git(*words: str, folder: str | os.PathLike[str] = ".") -> bytes | None:
    """What a git command prints; None where it fails, or git is not installed."""
    program = shutil.which("git")
    if program is None:
        return None
    # A repository's own settings may name programs to run, and servers to fetch from: none of them is wanted here.
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
    """A shell command that prints the version of a file with a digest and a size in bytes, in the current folder.

    None where the last `COMMITS` commits that changed the file do not have it.
    """
    file = Path(path)
    if not (sha256 and file.is_file()):
        return None
    listed = git("rev-list", f"--max-count={COMMITS}", "HEAD", "--", file.name, folder=file.parent)
    for number, commit in enumerate((listed or b"").decode("ascii").split()):
        version = f"{commit}:./{file.name}"
        length = int(git("cat-file", "-s", version, folder=file.parent) or -1)
        content = git("cat-file", "blob", version, folder=file.parent) if length in (size, *_POINTERS) else None
        if content is None:
            continue
        large = content.startswith(_LFS)
        if f"oid sha256:{sha256}".encode() in content if large else hashlib.sha256(content).hexdigest() == sha256:
            # HEAD stays true where the working tree alone changed; a commit stays true ever after.
            commit = "HEAD" if number == 0 and _is_of_head(commit, file) else commit[:12]
            relative = Path(os.path.relpath(file)).as_posix()
            show = shlex.join(["git", "show", f"{commit}:./{relative}"])
            return f"{show} | git lfs smudge" if large else show
    return None


def _is_of_head(commit: str, file: Path) -> bool:
    """Whether HEAD has the version of a file that a commit has."""
    found = [git("rev-parse", f"{revision}:./{file.name}", folder=file.parent) for revision in ("HEAD", commit)]
    return found[0] is not None and found[0] == found[1]


def place_for(path: str) -> str:
    """Where an earlier version of a file may be put."""
    return str(Path(tempfile.gettempdir()) / f"old_{Path(path).name}")
