"""Every script states its usage, the usage works, and the names in it exist."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "scripts").rglob("*.py"))
PROGRAMS = [path for path in SCRIPTS if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_there_are_scripts() -> None:
    assert len(PROGRAMS) > 30


@pytest.mark.parametrize("path", PROGRAMS, ids=module_name)
def test_usage(path: Path) -> None:
    usage = re.findall(
        r"python -m (scripts[\w.]+)", ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    )
    assert usage
    assert set(usage) == {module_name(path)}


def test_no_script_edits_the_path() -> None:
    for path in SCRIPTS:
        assert "sys.path" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("path", SCRIPTS, ids=module_name)
def test_imports_of_our_own_modules_exist(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or (node.module or "").partition(".")[0] not in ("scripts", "onnxgain"):
            continue
        assert node.module is not None
        spec = importlib.util.find_spec(node.module)
        assert spec is not None, node.module
        there = definitions(Path(spec.origin)) if spec.origin else set()
        there |= {file.stem for folder in spec.submodule_search_locations or () for file in Path(folder).iterdir()}
        assert {alias.name for alias in node.names} <= there, node.module


def definitions(path: Path) -> set[str]:
    """The names that a module defines or imports, and those that it provides lazily."""
    source = path.read_text(encoding="utf-8")
    names: set[str] = set(re.findall(r"\"(\w+)\": \"onnxgain", source))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
    return names


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", SCRIPTS, ids=module_name)
def test_import(path: Path) -> None:
    """A script can be imported if the packages that it needs are installed."""
    if path.name == "__init__.py":
        pytest.skip("not a module of this project")
    for package in packages(path):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module(module_name(path))


def packages(path: Path) -> Iterator[str]:
    """The modules that importing a module imports, also through our own modules."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            top = node.module.partition(".")[0]
            if top == "scripts":
                for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                    file = ROOT / (name.replace(".", "/") + ".py")
                    if file.exists():
                        yield from packages(file)
            else:
                yield top


def test_names_of_files_in_texts_exist() -> None:
    for path in [*SCRIPTS, *(ROOT / "scripts").rglob("*.md"), *(ROOT / "models").glob("*.md")]:
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"[`(]((?:scripts|tests|onnxgain|models)/[\w/]+\.\w+)", text):
            assert (ROOT / name).exists(), f"{path}: {name}"
        for name in re.findall(r"`([a-z]\w+\.py)`", text):
            folders = (path.parent, path.parent.parent)
            assert any((folder / name).exists() for folder in folders), f"{path}: {name}"
        for name in re.findall(r"python -m (scripts\.[\w.]+)", text):
            assert importlib.util.find_spec(name.rstrip(".")), f"{path}: {name}"
        assert not re.search(r"python scripts/", text), path


def test_a_program_shows_its_help() -> None:
    for name in ("scripts.generate.pages", "scripts.generate.way", "scripts.corpus.frameworks"):
        done = subprocess.run(
            [sys.executable, "-m", name, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert f"python -m {name}" in done.stdout
