"""Sequences and optionals: resolved where their elements are known, refused where the run time decides."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxgain.errors import UnsupportedOperatorError
from onnxgain.gradient.graphs import vector_jacobian
from tests.gradient.arrays import normal
from tests.gradient.models import check_model, operators, parse

HEADER = '<ir_version: 10, opset_import: ["" : {opset}]>'


def model(body: str, inputs: str = "float[4, 3] x", outputs: str = "float[N, M] y", opset: int = 18) -> ir.Model:
    return parse(f"{HEADER.format(opset=opset)} g ({inputs}) => ({outputs}) {{ {body} }}")


RESOLVED = {
    "construct and concatenate": "a = Sin (x)  s = SequenceConstruct (x, a, x)  y = ConcatFromSequence <axis = 0> (s)",
    "concatenate along the last axis": "a = Sin (x)  s = SequenceConstruct (x, a)  y = ConcatFromSequence <axis = -1> (s)",
    "stack": """a = Sin (x)  s = SequenceConstruct (x, a)  t = ConcatFromSequence <axis = -1, new_axis = 1> (s)
        p = Constant <value_ints = [4, 6]> ()  y = Reshape (t, p)""",
    "insert at the end and at a place": """e = SequenceEmpty ()  a = Sin (x)  b = Exp (x)  s = SequenceInsert (e, x)
        t = SequenceInsert (s, a)  i = Constant <value_int = -1> ()  u = SequenceInsert (t, b, i)
        y = ConcatFromSequence <axis = 0> (u)""",
    "erase": """a = Sin (x)  b = Exp (x)  s = SequenceConstruct (x, a, b, a)  t = SequenceErase (s)
        i = Constant <value_int = 0> ()  u = SequenceErase (t, i)  y = ConcatFromSequence <axis = 0> (u)""",
    "at, and length": """a = Sin (x)  s = SequenceConstruct (x, a)  i = Constant <value_int = -1> ()  b = SequenceAt (s, i)
        n = SequenceLength (s)  f = Cast <to = 1> (n)  y = Mul (b, f)""",
    "split into rows": """s = SplitToSequence <axis = 0, keepdims = 0> (x)  i = Constant <value_int = 2> ()  a = SequenceAt (s, i)
        y = Mul (x, a)""",
    "split into chunks, the last one smaller": """n = Constant <value_int = 3> ()  s = SplitToSequence (x, n)
        i = Constant <value_int = 1> ()  a = SequenceAt (s, i)  j = Constant <value_int = 0> ()  b = SequenceAt (s, j)
        c = Sin (a)  y = Mul (b, c)""",
    "split by sizes": """n = Constant <value_ints = [1, 2]> ()  s = SplitToSequence <axis = 1> (x, n)
        i = Constant <value_int = 1> ()  a = SequenceAt (s, i)  y = Sin (a)""",
    "split into one": """n = Constant <value_ints = [3]> ()  s = SplitToSequence <axis = 1> (x, n)
        i = Constant <value_int = 0> ()  a = SequenceAt (s, i)  y = Sin (a)""",
    "map": """a = Sin (x)  s = SequenceConstruct (x, a)  t = SequenceMap (s, x) <body = each (float[4, 3] p, float[4, 3] q)
        => (float[4, 3] r) { r = Mul (p, q) }>  y = ConcatFromSequence <axis = 0> (t)""",
    "map over two sequences": """a = Sin (x)  b = Exp (x)  s = SequenceConstruct (x, a)  u = SequenceConstruct (b, b)
        t = SequenceMap (s, u) <body = each (float[4, 3] p, float[4, 3] q)
        => (float[4, 3] r) { r = Mul (p, q) }>  y = ConcatFromSequence <axis = 0> (t)""",
    "identity": "s = SequenceConstruct (x, x)  t = Identity (s)  y = ConcatFromSequence <axis = 0> (t)",
    "a loop that fills a sequence": """n = Constant <value_int = 3> ()  e = SequenceEmpty ()
        s = Loop (n, , e) <body = step (int64 i, bool go, seq(float[4, 3]) t) => (bool go_on, seq(float[4, 3]) u) {
            f = Cast <to = 1> (i)  a = Mul (x, f)  b = Sin (a)  u = SequenceInsert (t, b)  go_on = Identity (go) }>
        y = ConcatFromSequence <axis = 0> (s)""",
    "tensor where an optional may be": """h = OptionalHasElement (x)  f = Cast <to = 1> (h)  a = OptionalGetElement (x)
        b = Sin (a)  y = Mul (b, f)""",
}


# With their meaning in NumPy: the reference evaluator hands on the elements of optionals as lists.
OPTIONALS = {
    "with an element": (
        """o = Optional (x)  h = OptionalHasElement (o)
        y = If (h) <then_branch = yes () => (float[4, 3] a) { b = OptionalGetElement (o)  a = Sin (b) },
                    else_branch = no () => (float[4, 3] c) { c = Exp (x) }>""",
        np.sin,
    ),
    "without": (
        """o = Optional <type = float[4, 3]> ()  h = OptionalHasElement (o)
        y = If (h) <then_branch = yes () => (float[4, 3] a) { a = Sin (x) },
                    else_branch = no () => (float[4, 3] c) { c = Exp (x) }>""",
        np.exp,
    ),
    "sequence": (
        """s = SequenceConstruct (x, x)  o = Optional (s)  t = OptionalGetElement (o)
        y = ConcatFromSequence <axis = 0> (t)""",
        lambda x: np.concatenate([x, x]),
    ),
}


@pytest.mark.parametrize("opset", [15, 18, 23])
@pytest.mark.parametrize(("body", "meaning"), OPTIONALS.values(), ids=OPTIONALS)
def test_known_optionals(body: str, meaning: Callable[[np.ndarray], np.ndarray], opset: int) -> None:
    check_model(model(body, opset=opset), {"x": normal(4, 3)}, ["x"], forward=lambda fed: {"y": meaning(fed["x"])})


@pytest.mark.parametrize("body", RESOLVED.values(), ids=RESOLVED)
def test_known_sequences_leave_no_sequence_operator(body: str) -> None:
    product = check_model(model(body), {"x": normal(4, 3)}, ["x"])
    assert not any("Sequence" in name or "Optional" in name for name in operators(product) - {"ReverseSequence"})


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
    "erased at run time": "s = SequenceConstruct (x, x)  t = SequenceErase (s, i)  y = ConcatFromSequence <axis = 0> (t)",
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
