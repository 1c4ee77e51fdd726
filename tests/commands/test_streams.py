"""Closed and full streams, deleted folders, no home: there is a verdict or one clear message, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import models

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX shells")

ROOT = Path(__file__).parents[2]


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
    command = line.replace("onnxgain", '"$PYTHON" -m onnxgain')
    return subprocess.run(
        ["/bin/sh", "-c", command], cwd=folder, env=known | environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    models.save(models.conv_net(), tmp_path / "m.onnx")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("onnxgain score m.onnx >&-", 0, ""),
        ("onnxgain gate m.onnx --max-gain 100 --no-cache >&- 2>&-", 0, ""),
        ("onnxgain gate m.onnx --max-gain -200 --no-cache >&- 2>&-", 1, ""),
        ("onnxgain score m.onnx --format json > /dev/full", 2, "standard output: No space left on device"),
        ("onnxgain gate m.onnx --max-gain 100 --no-cache > /dev/full", 2, "No space left on device"),
        ("PYTHONIOENCODING=ascii onnxgain score m.onnx", 0, ""),
        ("mkdir gone && cd gone && rmdir ../gone && onnxgain score m.onnx", 2, "no such file"),
        ('here=$PWD; mkdir gone && cd gone && rmdir ../gone && onnxgain score "$here/m.onnx"', 0, ""),
        ('h=$PWD; mkdir g && cd g && rmdir ../g && onnxgain gate --no-cache "$h/m.onnx" --max-gain 99', 0, ""),
        ("onnxgain gate m.onnx --max-gain 100", 0, ""),  # HOME is not set
        ("onnxgain score https://127.0.0.1:9/m.onnx", 2, ""),
    ],
)
def test_no_traceback(folder: Path, line: str, code: int, message: str) -> None:
    if "/dev/full" in line and not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    done = shell(line, folder)
    assert done.returncode == code, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr and "a bug in onnxgain" not in done.stderr
    assert "Exception ignored" not in done.stderr
