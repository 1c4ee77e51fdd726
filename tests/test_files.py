"""Files are written atomically, and every refusal says what, where and what to do."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from onnxgain.errors import OnnxgainError
from onnxgain.files import atomic_path, atomic_write, command_line, require_writable

TEXT = "Zürich\r\nend\n"

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX file modes and devices")


def fail_halfway(path: Path, problem: BaseException) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise problem


def test_bytes_and_text_are_written_as_they_are(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a.bin", b"\x00\r\n")
    atomic_write(str(tmp_path / "a.txt"), TEXT)
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\r\n"
    assert (tmp_path / "a.txt").read_bytes() == TEXT.encode()
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "a.txt"]


def test_temporary_is_beside_the_target_with_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "plot.svg").write_text("old")
    with atomic_path(tmp_path / "plot.svg") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".svg"
        temporary.write_text("new")
        assert (tmp_path / "plot.svg").read_text() == "old"
    assert (tmp_path / "plot.svg").read_text() == "new"
    assert os.listdir(tmp_path) == ["plot.svg"]


@pytest.mark.parametrize("problem", [RuntimeError("no"), KeyboardInterrupt(), OnnxgainError("no")])
def test_failure_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, problem: BaseException) -> None:
    (tmp_path / "a.json").write_text("old")
    with pytest.raises(type(problem)) as raised:
        fail_halfway(tmp_path / "a.json", problem)
    assert raised.value is problem
    assert (tmp_path / "a.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


@posix
def test_permissions_follow_the_umask_or_the_old_file(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        atomic_write(tmp_path / "new", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640
    (tmp_path / "new").chmod(0o604)
    atomic_write(tmp_path / "new", "y")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o604


@posix
def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    atomic_write(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "x"


@posix
def test_pipes_and_devices_are_written_into_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    atomic_write(pipe, "through")
    reader.join(10)
    assert received == [b"through"]
    assert pipe.is_fifo()
    atomic_write(os.devnull, "gone")
    assert Path(os.devnull).is_char_device()


def test_missing_folder(tmp_path: Path) -> None:
    path = tmp_path / "no" / "plot.png"
    with pytest.raises(OnnxgainError) as error:
        atomic_write(path, "x")
    assert error.value.where == str(path)
    assert f"the folder {tmp_path / 'no'} does not exist" in error.value.what
    assert "create the folder" in str(error.value)


def test_folder_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(OnnxgainError, match="is a folder, not a file; give the name of a file inside"):
        atomic_write(tmp_path, "x")
    (tmp_path / "file").touch()
    with pytest.raises(OnnxgainError, match="Not a directory"):
        atomic_write(tmp_path / "file" / "x", "x")


def test_name_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OnnxgainError, match="cannot write"):
        atomic_write(tmp_path / ("x" * 300), "x")
    assert not os.listdir(tmp_path)


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_write_protected_folder_and_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("keep")
    (tmp_path / "file").chmod(0o444)
    with pytest.raises(OnnxgainError, match="write-protected; choose a folder you may write to"):
        atomic_write(tmp_path / "file", "x")
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(OnnxgainError, match="Permission denied; choose a folder"):
            atomic_write(tmp_path / "new", "x")
    finally:
        tmp_path.chmod(0o755)
    assert (tmp_path / "file").read_text() == "keep"


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.EACCES, "choose a folder you may write to"), (errno.EROFS, "not read-only")]
)
def test_refused_creation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str) -> None:
    def refuse(path: Any, *_: object) -> int:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OnnxgainError, match=remedy) as error:
        atomic_write(tmp_path / "a", "x")
    assert os.strerror(number) in error.value.what


def test_full_disk_is_reported_and_the_half_file_removed(tmp_path: Path) -> None:
    as_write_raises_it = OSError(errno.ENOSPC, "No space left on device")  # without a file name
    with pytest.raises(OnnxgainError, match="No space left on device; free some space"):
        fail_halfway(tmp_path / "a", as_write_raises_it)
    assert not os.listdir(tmp_path)


def test_errors_about_other_files_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="other"), atomic_path(tmp_path / "a"):
        (tmp_path / "other").read_bytes()
    with pytest.raises(OSError, match="broken"), atomic_path(tmp_path / "a"):
        raise BrokenPipeError(errno.EPIPE, "broken")
    assert not os.listdir(tmp_path)


def test_what_cannot_be_written_is_refused_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    for wrong in (tmp_path, tmp_path / "no" / "a.txt", tmp_path / "file" / "a.txt"):
        with pytest.raises(OnnxgainError, match="cannot write"):
            require_writable(wrong)
    for right in (tmp_path / "new.txt", tmp_path / "file"):
        require_writable(right)
    assert os.listdir(tmp_path) == ["file"]


@posix
def test_special_files_can_be_written() -> None:
    require_writable("/dev/null")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_write_protected_folder_is_refused_beforehand(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(OnnxgainError, match="choose a folder you may write to"):
            require_writable(tmp_path / "a.txt")
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    "name", ["a.onnx", "a b.onnx", "it's.onnx", "a\nb.onnx", "é\n'\\.onnx", "\x1b[31m", "\u202e.onnx", "\udce9\t$(id)"]
)
def test_command_line_can_be_pasted(name: str) -> None:
    line = command_line(["printf", "%s", name])
    assert line.isprintable()
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"})
    assert os.fsdecode(done.stdout) == name


def test_command_line_with_any_character_can_be_encoded() -> None:
    assert command_line(["\ud800"]) == "$'\\xed\\xa0\\x80'"
