"""Rules for every file: its length, the number of parameters of functions, and a docstring in every package."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "onnxgain"

REPOSITORY = {"LICENSE", "README.md", "models", "onnxgain", "pyproject.toml", "scripts", "tests"}
TOP_LEVEL = {"__init__", "__main__", "callbacks", "errors", "files"}
PACKAGES = {"analysis", "commands", "docs", "engine", "fleet", "gradient", "measure", "model", "report"}
MOST_PARAMETERS = 8
MOST_LINES = {"onnxgain": 400, "scripts": 450, "tests": 450}

TABLES = {"tests/gradient/cases"}
"""Folders with tables of cases, whose files may be longer."""

OPERATORS = ("onnxgain/gradient/forward/rewrites/", "onnxgain/gradient/reverse/rules/", "onnxgain/engine/kernels/")
"""Folders in which functions have an operator's inputs and attributes as parameters, as the schema requires."""


def python_files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The number of parameters; *args and **kwargs count as one each, self does not count."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    own = bool(positional) and positional[0].arg in ("self", "cls")
    starred = (arguments.vararg is not None) + (arguments.kwarg is not None)
    return len(positional) - own + len(arguments.kwonlyargs) + starred


def too_many(source: str) -> list[str]:
    found = [n for n in ast.walk(ast.parse(source)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return [function.name for function in found if parameters(function) > MOST_PARAMETERS]


def test_no_function_has_more_than_eight_parameters() -> None:
    names = ((path.relative_to(ROOT).as_posix(), path) for path in python_files("onnxgain"))
    found = {
        f"{name}:{function}"
        for name, path in names
        if not name.startswith(OPERATORS)
        for function in too_many(path.read_text(encoding="utf-8"))
    }
    assert sorted(found) == []


def test_parameters_are_counted() -> None:
    eight = ", ".join(f"p{i}" for i in range(8))
    assert too_many(f"def f({eight}): ...") == []
    assert too_many(f"def f(self, {eight}): ...") == []
    for signature in (f"{eight}, *rest", f"{eight}, *, more", f"{eight}, **more", f"p, {eight}", f"{eight}, /, more"):
        assert too_many(f"class C:\n    def f({signature}): ...") == ["f"], signature


@pytest.mark.parametrize("folder", MOST_LINES)
def test_no_file_is_too_long(folder: str) -> None:
    found = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in python_files(folder)
    }
    long = {name for name, lines in found.items() if lines > MOST_LINES[folder]}
    long = {name for name in long if not any(name.startswith(table) for table in TABLES)}
    assert sorted(long) == []


def test_only_the_named_files_lie_at_the_top() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = {name.partition("/")[0] for name in tracked.split("\0") if name}
    assert {name for name in names if not name.startswith(".")} <= REPOSITORY


def test_only_the_named_modules_lie_directly_in_the_package() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == TOP_LEVEL
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= PACKAGES
    assert len(PACKAGES - {"docs"}) == 8  # `docs` contains pages, not code


@pytest.mark.parametrize("name", sorted(PACKAGES - {"docs"}))
def test_every_package_says_what_comes_in_and_what_goes_out(name: str) -> None:
    text = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text(encoding="utf-8"))) or ""
    assert len(text.split()) >= 25, f"onnxgain/{name}/__init__.py: say in a paragraph what comes in and what goes out"
