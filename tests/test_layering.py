"""Modules import in one direction only, and importing them is cheap. An upward import fails here."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "onnxgain"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("files",),
    ("gradient",),
    ("engine",),
    ("model",),
    ("measure",),
    ("fleet", "analysis"),
    ("report",),
    ("commands",),
    ("callbacks",),
    ("__main__",),
)
"""The packages from the bottom up. A module may import from its own package and from those below it."""


def layer_of(module: str) -> int:
    for height, names in enumerate(LAYERS):
        if module in names:
            return height
    raise AssertionError(f"onnxgain/{module} stands in no layer: add it to LAYERS")


def imports(tree: ast.Module) -> Iterator[str]:
    """The modules of this package that a file imports at run time, anywhere in it: "gradient.seed", "errors", ..."""
    for node in tree.body:
        yield from _imports(node)


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative import"
        if node.module == "onnxgain":
            yield from (alias.name for alias in node.names)
        elif node.module is not None and node.module.startswith("onnxgain."):
            yield node.module.removeprefix("onnxgain.")
    elif isinstance(node, ast.Import):
        yield from (a.name.removeprefix("onnxgain.") for a in node.names if a.name.startswith("onnxgain."))
    for child in ast.iter_child_nodes(node):
        yield from _imports(child)


def upward(module: str, source: str) -> list[str]:
    """The imports of a module (given by its top file or folder) from packages above its own."""
    found = {name.partition(".")[0] for name in imports(ast.parse(source))}
    return sorted(
        name for name in found
        if name != module and layer_of(name) >= layer_of(module)
    )  # fmt: skip


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_imports_one_above_it(path: Path) -> None:
    module = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert upward(module, path.read_text()) == []


def test_every_layer_is_there() -> None:
    there = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert {name for names in LAYERS for name in names} == there


def test_an_upward_import_is_seen_wherever_it_stands() -> None:
    assert upward("measure", "from onnxgain.errors import OnnxgainError") == []
    assert upward("gradient", "from onnxgain.engine.session import Session") == ["engine"]
    assert upward("engine", "def f():\n    if True:\n        import onnxgain.measure.record") == ["measure"]
    assert upward("engine", "from onnxgain import fleet, report") == ["fleet", "report"]
    assert upward("fleet", "from onnxgain.analysis.series import Series") == ["analysis"]
    assert upward("gradient", "from onnxgain.gradient.reverse.seed import PROJECTIONS") == []
    assert upward("model", "if TYPE_CHECKING:\n    from onnxgain.measure.record import Record") == []
    with pytest.raises(AssertionError, match="onnxgain/novelty stands in no layer"):
        upward("measure", "import onnxgain.novelty")


def test_only_one_module_imports_the_runtime() -> None:
    for path in FILES:
        names = {
            alias.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in ([ast.alias(node.module or "")] if isinstance(node, ast.ImportFrom) else node.names)
        }
        uses = any(name.partition(".")[0] == "onnxruntime" for name in names)
        # The child runs in another environment with another onnxruntime.
        assert uses == (path.name in ("runtime.py", "ort_training_child.py")), path


def loaded_by(statement: str, *modules: str) -> list[str]:
    code = f"import sys\n{statement}\nprint(*[m for m in {modules!r} if m in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()


HEAVY = ("numpy", "scipy", "onnx", "onnx_ir", "onnxruntime", "matplotlib", "PIL", "rich", "google.protobuf")


def test_the_command_line_starts_without_anything_heavy() -> None:
    assert loaded_by("import onnxgain.commands.cli", *HEAVY) == []
    assert loaded_by("import onnxgain", *HEAVY) == []


@pytest.mark.parametrize(
    "arguments", ["--help", "--version", "score --help", "verify -h", "nonsense", "score --nonsense"]
)
def test_neither_do_help_and_usage_errors(arguments: str) -> None:
    run = f"from onnxgain.commands.cli import main\ntry:\n    main({arguments.split()!r})\nexcept SystemExit: print()"
    assert [m for m in loaded_by(run, *HEAVY)[-len(HEAVY) :] if m in HEAVY] == []


def test_measuring_does_not_draw() -> None:
    assert (
        loaded_by(
            "import onnxgain.measure.measure, onnxgain.measure.verify", "matplotlib", "PIL", "rich", "onnxruntime"
        )
        == []
    )
