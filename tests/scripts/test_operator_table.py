"""The table of operators in README.md is what the registry says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.generate.operator_table", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    copy = tmp_path / "README.md"
    copy.write_text((ROOT / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    return copy


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


def test_the_readme_is_up_to_date() -> None:
    made = re.search(r"versions \(onnx ([\d.]+)\) are decided", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert made is not None
    if version(onnx.__version__) < version(made[1]):
        pytest.skip(f"the table was made with onnx {made[1]}, which knows more operators than the one installed")
    result = run("--check")
    assert result.returncode == 0, result.stderr


def test_a_stale_table_is_noticed_and_replaced(readme: Path) -> None:
    run("--readme", str(readme))
    right = readme.read_text(encoding="utf-8")
    readme.write_text(right.replace("| Relu | ", "| Relu | 99 "), encoding="utf-8")
    assert readme.read_text(encoding="utf-8") != right
    result = run("--check", "--readme", str(readme))
    assert result.returncode == 1
    assert "stale" in result.stderr
    assert run("--readme", str(readme)).returncode == 0
    assert readme.read_text(encoding="utf-8") == right


def test_text_around_the_table_stays(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# before\n", encoding="utf-8")
    run("--readme", str(readme))
    readme.write_text(readme.read_text(encoding="utf-8") + "after\n", encoding="utf-8")
    assert run("--check", "--readme", str(readme)).returncode == 0
    lines = readme.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# before"
    assert lines[-1] == "after"
    assert any(line.startswith("| Conv | ") for line in lines)
