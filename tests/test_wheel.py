"""The wheel contains only the package and the documentation, and rebuilding it gives the same bytes."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from onnxgain.commands import demo
from onnxgain.engine.environment import VERSION

pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")

ROOT = Path(__file__).parent.parent
BUILD = "import sys; from hatchling.build import build_sdist, build_wheel; print({}(sys.argv[1]))"


def build(hook: str, folder: Path) -> Path:
    command = [sys.executable, "-c", BUILD.format(hook), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return folder / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("build_wheel", tmp_path_factory.mktemp("wheel"))


def test_contents(wheel: Path) -> None:
    info = f"onnxgain-{VERSION}.dist-info"
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "onnxgain").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "onnxgain/docs/gate.md" in sources
    shipped = {f"onnxgain/models/{name}": ROOT / "models" / name for name in demo.MODELS}
    about = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    with zipfile.ZipFile(wheel) as archive:
        assert set(archive.namelist()) == sources | about | set(shipped)
        assert all(archive.read(name) == (ROOT / name).read_bytes() for name in sources)
        assert all(archive.read(name) == path.read_bytes() for name, path in shipped.items())
        metadata = archive.read(f"{info}/METADATA").decode()
    assert f"\nVersion: {VERSION}\n" in metadata
    assert "\nDescription-Content-Type: text/markdown\n" in metadata


def test_it_is_reproducible(wheel: Path, tmp_path: Path) -> None:
    again = build("build_wheel", tmp_path)
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def test_the_source_distribution_holds_what_the_tests_need(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(build("build_sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"onnxgain/docs/gate.md", "tests/test_docs.py", "scripts/generate/pages.py", "models/README.md", ".ci/run"}
    assert needed | {".github/CONTRIBUTING.md", "pyproject.toml", "README.md", "LICENSE"} <= names
