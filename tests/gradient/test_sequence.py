"""Sequences and optionals: resolved if their elements are known, refused if they depend on run-time values."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxgain.errors import UnsupportedOperatorError
from onnxgain.gradient.graphs import vector_jacobian
from tests.gradient.arrays import normal
from tests.gradient.cases.sequence import CASES
from tests.gradient.models import ModelCase, check_model, operators, parse

HEADER = '<ir_version: 10, opset_import: ["" : {opset}]>'


def model(body: str, inputs: str = "float[4, 3] x", outputs: str = "float[N, M] y", opset: int = 18) -> ir.Model:
    return parse(f"{HEADER.format(opset=opset)} g ({inputs}) => ({outputs}) {{ {body} }}")


@pytest.mark.parametrize(
    ("case", "version"), [pytest.param(case, v, id=f"{case}-v{v}") for case in CASES for v in case.versions]
)
def test_known_sequences_leave_no_sequence_operator(case: ModelCase, version: int) -> None:
    product = vector_jacobian(case.model(version), ["x"])
    assert not any("Sequence" in name or "Optional" in name or name == "Loop" for name in operators(product))


def test_a_runtime_position_among_elements_of_one_shape() -> None:
    text = "a = Sin (x)  b = Exp (x)  s = SequenceConstruct (x, a, b)  y = SequenceAt (s, i)"
    for place in (1, -1):
        feeds = {"x": normal(4, 3), "i": np.array(place)}
        check_model(model(text, "float[4, 3] x, int64 i"), feeds, ["x"])


def test_sequences_beside_the_path_stay() -> None:
    text = """s = SequenceConstruct (x, x)  t = SequenceErase (s, i)  n = SequenceLength (t)  f = Cast <to = 1> (n)
        a = Sin (x)  y = Mul (a, f)"""
    product = check_model(model(text, "float[4, 3] x, int64 i"), {"x": normal(4, 3), "i": np.array(0)}, ["x"])
    assert "SequenceErase" in operators(product)


UNKNOWN = {
    "erased at run time": """s = SequenceConstruct (x, x)  t = SequenceErase (s, i)
        y = ConcatFromSequence <axis = 0> (t)""",
    "filled by a loop": """e = SequenceEmpty ()
        s = Loop (i, , e) <body = step (int64 k, bool go, seq(float[4, 3]) t) => (bool go_on, seq(float[4, 3]) u) {
            b = Sin (x)  u = SequenceInsert (t, b)  go_on = Identity (go) }>
        y = ConcatFromSequence <axis = 0> (s)""",
    "of pieces whose elements differ": """n = Constant <value_ints = [1, 3]> ()  s = SplitToSequence (x, n)
        y = SequenceAt (s, i)""",
    "mapped": """s = SequenceConstruct (x, x)  t = SequenceErase (s, i)
        u = SequenceMap (t) <body = each (float[4, 3] p) => (float[4, 3] r) { r = Sin (p) }>
        y = ConcatFromSequence <axis = 0> (u)""",
}


@pytest.mark.parametrize("body", UNKNOWN.values(), ids=UNKNOWN)
def test_sequences_of_the_run_time_are_refused(body: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match="fixed"):
        vector_jacobian(model(body, "float[4, 3] x, int64 i"), ["x"])
