from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import models

ROOT = Path(__file__).parents[2]


def python(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


SCORED = """
import sys
from onnxgain.commands.cli import main
sys.argv[0] = "onnxgain"
try:
    main()
except SystemExit as ended:
    assert ended.code == 0
print("sympy.core" in sys.modules)
"""


def test_a_score_does_not_need_sympy(tmp_path: Path) -> None:
    path = ROOT / "models" / "lenet_mnist_torch.onnx"
    assert python(SCORED, "score", str(path)).endswith("False\n")


def test_nor_do_symbolic_dimensions_with_names(tmp_path: Path) -> None:
    path = models.save(models.conv_net(batch="N"), tmp_path / "net.onnx")
    assert python(SCORED, "score", str(path)).endswith("False\n")


@pytest.mark.parametrize(
    "code",
    [
        "import sympy; print(sympy.Symbol('n') + 1)",
        "from sympy import Symbol; print(Symbol('n') + 1)",
        "import sympy.core; print(sympy.core.Symbol('n') + 1)",
        "import onnx_ir; print(onnx_ir.SymbolicDim('n') + 1)",
        "import onnx_ir as ir; d = ir.SymbolicDim('max(n, 2)') + 1; print(d.evaluate({'n': 4}) == 5 and 'n + 1')",
    ],
)
def test_it_is_there_when_it_is_asked_for(code: str) -> None:
    assert python(f"from onnxgain.engine.startup import start_soon; start_soon(); {code}") == "n + 1\n"


def test_what_is_imported_already_stays() -> None:
    code = "import sympy, sys; from onnxgain.engine.startup import start_soon; start_soon(); "
    assert python(code + "print(sys.modules['sympy'] is sympy)") == "True\n"
