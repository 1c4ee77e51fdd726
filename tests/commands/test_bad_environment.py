"""Broken environments, such as a missing runtime or an unwritable folder, each in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands.test_bad_input import CASES, LENET, ROOT, Box, assert_one_message


def run(*arguments: Any, setup: str = "", path: Path | None = None) -> tuple[int, str, str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(path or ""), str(ROOT)]))}
    code = f"{setup}\nfrom onnxgain.commands.cli import main\nmain({[str(a) for a in arguments]!r})"
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, cwd=ROOT
    )
    return result.returncode, result.stdout, result.stderr


def test_the_installed_program(tmp_path: Path) -> None:
    program = shutil.which("onnxgain", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("onnxgain is not installed beside this Python")
    missing = tmp_path / "net.onnx"
    result = subprocess.run([program, "score", str(missing)], capture_output=True, text=True, check=False)
    assert_one_message(result.returncode, result.stdout, result.stderr, ("no such file",), Box(tmp_path))


def test_without_a_runtime(tmp_path: Path) -> None:
    setup = """
import importlib.metadata, sys
real = importlib.metadata.version
def version(name):
    if name.startswith("onnxruntime"):
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)
importlib.metadata.version = version
sys.modules["onnxruntime"] = None
"""
    assert_one_message(
        *run("score", LENET, setup=setup),
        ("onnxruntime is not installed", "pip install onnxruntime"),
        Box(tmp_path),
    )
    code, out, err = run("doctor", setup=setup)
    assert code == 2
    assert "runtime      none" in out
    assert err.startswith("problem: onnxruntime is not installed")
    # Commands that need no runtime still work.
    assert run("inspect", LENET, setup=setup)[0] == 0
    assert run("gradient", LENET, "-o", tmp_path / "g.onnx", setup=setup)[0] == 0


def test_with_two_runtimes(tmp_path: Path) -> None:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        folder = tmp_path / f"{name.replace('-', '_')}-1.30.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.30.0\n")
    parts = ("onnxruntime 1.30.0 and onnxruntime-gpu 1.30.0 are both installed", "pip uninstall -y onnxruntime")
    assert_one_message(*run("score", LENET, path=tmp_path), parts, Box(tmp_path))
    code, _, err = run("doctor", path=tmp_path)
    assert code == 2
    assert "overwrite each other" in err


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("raise ImportError('libonnxruntime.so: not found')", "does not load: libonnxruntime.so"),
        ("", "there but empty"),
    ],
)
def test_with_a_broken_runtime(tmp_path: Path, content: str, part: str) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text(content)
    assert_one_message(*run("score", LENET, path=tmp_path), (part, "pip install --force-reinstall"), Box(tmp_path))


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        parts = (f"{tmp_path}/gains.txt: cannot write", "choose a folder you may write to")
        assert_one_message(*run("score", LENET, "-o", tmp_path / "gains.txt"), parts, Box(tmp_path))
    finally:
        tmp_path.chmod(0o755)


def test_library_log_messages_are_not_repeated(tmp_path: Path) -> None:
    """onnx_ir logs its own warning about the same problem."""
    (arguments,) = (parameter.values[0] for parameter in CASES if parameter.id == "dangling name")
    assert_one_message(*run(*arguments(Box(tmp_path))), ("'nowhere', which nothing computes",), Box(tmp_path))


def test_invalid_models_among_valid_ones(tmp_path: Path) -> None:
    """Each failure has a message, and the other models are still measured."""
    box = Box(tmp_path)
    bad = box.file("bad.onnx", "text")
    code, out, err = run("score", LENET, bad, tmp_path / "missing.onnx")
    assert code == 2
    assert out.startswith("lenet_small_mnist_torch.onnx") or "lenet_small_mnist_torch.onnx" in out
    assert [line.split(": ")[1] for line in err.splitlines()] == [str(bad), str(tmp_path / "missing.onnx")]
