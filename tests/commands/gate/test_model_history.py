"""Earlier versions of a model in git."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from onnxgain.commands.model_history import earlier_version

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.mark.parametrize(
    ("place", "path", "command"),
    [
        ("repository", "m/net.onnx", "git show HEAD:./m/net.onnx"),
        (".", "repository/m/net.onnx", "git -C repository/m show HEAD:./net.onnx"),
    ],
)
def test_the_command_works_inside_and_outside_the_repository(
    place: str, path: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "repository"
    (folder / "m").mkdir(parents=True)
    (folder / "m" / "net.onnx").write_bytes(b"before")
    own = ["-c", "user.name=n", "-c", "user.email=n@localhost", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "m"], [*own, "commit", "-q", "-m", "models"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    (folder / "m" / "net.onnx").write_bytes(b"after")
    monkeypatch.chdir(tmp_path / place)
    show = earlier_version(path, hashlib.sha256(b"before").hexdigest(), len(b"before"))
    assert show == command
    assert subprocess.run(show, shell=True, check=True, capture_output=True).stdout == b"before"
