"""Control flow: known branches are inlined and known loops unrolled; the others get a gradient graph of their own."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.errors import ModelError, UnsupportedOperatorError
from onnxgain.gradient.forward.transcribe import transcribe
from onnxgain.gradient.graphs import finished, vector_jacobian
from onnxgain.gradient.reverse.backpropagate import backpropagate, find_path
from tests.gradient.arrays import normal, uniform
from tests.gradient.cases.control import CASES
from tests.gradient.models import ModelCase, check_model, operators, parse

HEADER = '<ir_version: 10, opset_import: ["" : {opset}]>'


def model(text: str, opset: int = 18) -> ir.Model:
    return parse(HEADER.format(opset=opset) + text)


def count(product: ir.Model, op_type: str) -> int:
    return sum(node.op_type == op_type for node in product.graph.all_nodes())


# -- If ----------------------------------------------------------------------------------------------------------------

BRANCHES = """
    <then_branch = yes () => (float[2, 3] a) { a1 = Mul (x, w)  a = Sin (a1) },
     else_branch = no () => (float[2, 3] b) { b1 = Mul (w, w)  b2 = Exp (x)  b = Mul (b1, b2) }>
"""


@pytest.mark.parametrize("taken", [True, False])
def test_if_on_a_runtime_condition(taken: bool) -> None:
    text = f"g (float[2, 3] x, float[3] w, bool c) => (float[2, 3] y) {{ y = If (c) {BRANCHES} }}"
    feeds = {"x": normal(2, 3), "w": normal(3), "c": np.array(taken)}
    product = check_model(model(text), feeds, ["x", "w"])
    assert count(product, "If") == 2


def test_if_on_a_condition_computed_from_the_input() -> None:
    text = f"""g (float[2, 3] x, float[3] w) => (float[2, 3] y) {{
        s = ReduceSum <keepdims = 0> (x)  zero = Constant <value_float = 0.0> ()  c = Greater (s, zero)
        y = If (c) {BRANCHES}
    }}"""
    x = normal(2, 3)
    for sign in (1, -1):
        check_model(model(text), {"x": x * sign, "w": normal(3)}, ["x", "w"])


@pytest.mark.parametrize("taken", [1, 0])
def test_if_on_a_known_condition_is_inlined(taken: int) -> None:
    text = f"""g (float[2, 3] x, float[3] w) => (float[2, 3] y) {{
        n = Constant <value_int = {taken}> ()  c = Cast <to = 9> (n)  y = If (c) {BRANCHES}
    }}"""
    product = check_model(model(text), {"x": normal(2, 3), "w": normal(3)}, ["x", "w"])
    assert "If" not in operators(product)


def test_if_with_several_outputs_and_a_branch_that_returns_what_it_captures() -> None:
    text = """g (float[3] x, bool c) => (float[3] y, float[3] z) {
        h = Tanh (x)
        y, z = If (c) <
            then_branch = yes () => (float[3] a1, float[3] a2) { a1 = Identity (h)  a2 = Exp (h) },
            else_branch = no () => (float[3] b1, float[3] b2) { b1 = Mul (h, x)  b2 = Identity (b1) }>
    }"""
    for taken in (True, False):
        check_model(model(text), {"x": normal(3), "c": np.array(taken)}, ["x"])


def test_if_inside_if() -> None:
    text = """g (float[3] x, bool c, bool d) => (float[3] y) {
        y = If (c) <
            then_branch = yes () => (float[3] a) {
                h = Exp (x)
                a = If (d) <then_branch = p () => (float[3] q) { q = Mul (h, x) },
                            else_branch = r () => (float[3] s) { s = Sin (h) }> },
            else_branch = no () => (float[3] b) { b = Identity (x) }>
    }"""
    for taken in (True, False):
        for inner in (True, False):
            check_model(model(text), {"x": normal(3), "c": np.array(taken), "d": np.array(inner)}, ["x"])


# -- Loop --------------------------------------------------------------------------------------------------------------

STEP = """
    <body = step (int64 i, bool go, float[3] s) => (bool go_on, float[3] s_out, float[3] e) {
        f = Cast <to = 1> (i)  g1 = Mul (s, x)  g2 = Sin (g1)  s_out = Add (g2, f)  e = Mul (s, g2)
        go_on = Identity (go) }>
"""


def test_loop_over_a_runtime_number_of_trips() -> None:
    text = f"""g (float[3] x, float[3] s0, int64 n) => (float[3] y, float[N, 3] all) {{
        y, all = Loop (n, , s0) {STEP} }}"""
    feeds = {"x": normal(3), "s0": normal(3), "n": np.array(4)}
    product = check_model(model(text), feeds, ["x", "s0"])
    assert count(product, "Loop") == 2


def test_loop_that_never_runs() -> None:
    text = f"""g (float[3] x, float[3] s0, int64 n) => (float[3] y) {{
        p = Mul (s0, s0)  y, all = Loop (n, , p) {STEP}
    }}"""
    check_model(model(text), {"x": normal(3), "s0": normal(3), "n": np.array(0)}, ["x", "s0"], runtime=True)


def test_few_known_trips_are_unrolled() -> None:
    text = f"""g (float[3] x, float[3] s0) => (float[3] y, float[4, 3] all) {{
        n = Constant <value_int = 4> ()  go = Constant <value = bool {{1}}> ()  y, all = Loop (n, go, s0) {STEP}
    }}"""
    product = check_model(model(text), {"x": normal(3), "s0": normal(3)}, ["x", "s0"])
    assert "Loop" not in operators(product)


def test_many_known_trips_stay_a_loop_of_known_length() -> None:
    text = f"""g (float[3] x, float[3] s0) => (float[3] y, float[70, 3] all) {{
        n = Constant <value_int = 70> ()  y, all = Loop (n, , s0) {STEP}
    }}"""
    m = model(text)
    product = check_model(m, {"x": uniform(-0.5, 0.5, 3), "s0": normal(3)}, ["x", "s0"])
    assert count(product, "Loop") == 2
    assert list(transcribe(m, {}).outputs["all"].shape or ()) == [70, 3]


def test_the_trips_of_loops_in_loops_are_multiplied() -> None:
    text = """g (float[3] x) => (float[3] y) {{
        n = Constant <value_int = {}> ()
        y = Loop (n, , x) <body = outer (int64 i, bool go, float[3] s) => (bool go_on, float[3] s_out) {{
            go_on = Identity (go)
            s_out = Loop (n, , s) <body = inner (int64 j, bool go2, float[3] p) => (bool go3, float[3] p_out) {{
                go3 = Identity (go2)  p_out = Sin (p) }}>
        }}> }}"""
    assert transcribe(model(text.format(300)), {}).outputs["y"].producer() is not None
    with pytest.raises(
        ModelError, match="its body runs 102400 times for every image, counting the 320 trips of the loop nested in it"
    ):
        transcribe(model(text.format(320)), {})


def test_a_loop_differentiated_twice_returns_its_history_once() -> None:
    text = f"""g (float[3] x, float[3] s0, int64 n) => (float[3] y, float[N, 3] all) {{
        y, all = Loop (n, , s0) {STEP} }}"""
    transcript = transcribe(model(text), {})
    op, (x, s0, _), y = transcript.emitter, transcript.graph.inputs, transcript.outputs["y"]
    for value in (x, s0):
        dx = backpropagate(op, {y: op.full_like(1.0, y)}, value)
        assert dx is not None
        transcript.graph.outputs.append(op.as_local(dx))
    (loop, *_) = (node for node in transcript.graph if node.op_type == "Loop")
    assert len(loop.outputs) == 4  # y, all, the counter, the state
    feeds = {"x": uniform(-1, 1, 3), "s0": uniform(-1, 1, 3), "n": np.array(3)}
    _, _, *apart = Float64Evaluator(finished(transcript.graph)).run(feeds).values()
    product = Float64Evaluator(vector_jacobian(model(text), ["x", "s0"], outputs=["y"]))
    together = product.run({**feeds, "adjoint_y": np.ones(3)}, ["gradient_x", "gradient_s0"])
    for separate, joint in zip(apart, together.values(), strict=True):
        np.testing.assert_allclose(separate, joint)


def test_constants_in_an_unrolled_body_are_kept_once() -> None:
    weights = ", ".join(str(float(v)) for v in normal(400))
    text = f"""g (float[1, 20] x) => (float[1, 20] y) {{
        n = Constant <value_int = 5> ()
        y = Loop (n, , x) <body = step (int64 i, bool go, float[1, 20] s) => (bool go_on, float[1, 20] s_out) {{
            w = Constant <value = float[20, 20] {{ {weights} }}> ()  s_out = MatMul (s, w)  go_on = Identity (go) }}>
    }}"""
    transcript = transcribe(model(text), {})
    assert sum(value.const_value.size == 400 for value in transcript.graph.initializers.values()) == 1


COUNTING = """
    <body = step (int64 i, bool go, int64 k, float[3] s) => (bool go_on, int64 k_out, float[3] s_out) {
        one = Constant <value_int = 1> ()  five = Constant <value_int = 5> ()
        k_out = Add (k, one)  s1 = Mul (s, x)  s_out = Tanh (s1)  go_on = Less (k_out, five) }>
"""


def test_while_loop_that_counts_is_unrolled() -> None:
    text = f"""g (float[3] x, float[3] s0) => (float[3] y) {{
        k = Constant <value_int = 0> ()  go = Constant <value = bool {{1}}> ()
        kn, y = Loop ( , go, k, s0) {COUNTING} }}"""
    product = check_model(model(text), {"x": normal(3), "s0": normal(3)}, ["x", "s0"])
    assert "Loop" not in operators(product)


def test_while_loop_with_a_runtime_condition_and_an_integer_state() -> None:
    text = f"""g (float[3] x, float[3] s0, int64 k) => (float[3] y) {{
        go = Constant <value = bool {{1}}> ()  kn, y = Loop ( , go, k, s0) {COUNTING} }}"""
    check_model(model(text), {"x": normal(3), "s0": normal(3), "k": np.array(2)}, ["x", "s0"])


def test_state_that_the_next_iteration_does_not_read() -> None:
    text = """g (float[3] x, float[3] s0, int64 n) => (float[3] y) {
        y = Loop (n, , s0) <body = step (int64 i, bool go, float[3] s) => (bool go_on, float[3] s_out) {
            f = Cast <to = 1> (i)  a = Mul (x, f)  s_out = Sin (a)  go_on = Identity (go) }>
    }"""
    check_model(model(text), {"x": normal(3), "s0": normal(3), "n": np.array(3)}, ["x"])


def test_two_states_that_swap() -> None:
    text = """g (float[3] x, int64 n) => (float[3] y, float[3] z) {
        h = Exp (x)
        y, z = Loop (n, , x, h) <body = step (int64 i, bool go, float[3] a, float[3] b)
            => (bool go_on, float[3] a_out, float[3] b_out) {
            a_out = Sin (b)  b_out = Mul (a, x)  go_on = Identity (go) }>
    }"""
    check_model(model(text), {"x": normal(3), "n": np.array(3)}, ["x"])


def test_loop_inside_loop_and_if_inside_both() -> None:
    text = """g (float[3] x, int64 n, bool c) => (float[3] y) {
        y = Loop (n, , x) <body = outer (int64 i, bool go, float[3] s) => (bool go_on, float[3] s_out) {
            t = Mul (s, x)
            u = Loop (n, , t) <body = inner (int64 j, bool go2, float[3] p) => (bool go3, float[3] p_out) {
                q = If (c) <then_branch = yes () => (float[3] a) { a = Mul (p, s) },
                            else_branch = no () => (float[3] b) { b = Sin (p) }>
                p_out = Mul (q, x)  go3 = Identity (go2) }>
            s_out = Tanh (u)  go_on = Identity (go) }>
    }"""
    for taken in (True, False):
        check_model(model(text), {"x": normal(3), "n": np.array(2), "c": np.array(taken)}, ["x"])


def test_unrolling_stops_where_an_inner_loop_needs_the_run_time() -> None:
    """The inner loop's trip count is the outer loop's counter, which is known once the outer loop is unrolled."""
    text = """g (float[3] x) => (float[3] y) {
        n = Constant <value_int = 3> ()
        y = Loop (n, , x) <body = outer (int64 i, bool go, float[3] s) => (bool go_on, float[3] s_out) {
            s_out = Loop (i, , s) <body = inner (int64 j, bool go2, float[3] p) => (bool go3, float[3] p_out) {
                p1 = Mul (p, x)  p_out = Sin (p1)  go3 = Identity (go2) }>
            go_on = Identity (go) }>
    }"""
    product = check_model(model(text), {"x": normal(3)}, ["x"])
    assert "Loop" not in operators(product)


GROWING = """g (float[3] x, int64 n) => (float[N] y) {
        y = Loop (n, , x) <body = step (int64 i, bool go, float[M] s) => (bool go_on, float[K] s_out) {
            s1 = Sin (s)  s_out = Concat <axis = 0> (s1, x)  go_on = Identity (go) }>
    }"""


def test_a_state_that_grows_is_refused_and_predicted() -> None:
    m = model(GROWING)
    with pytest.raises(UnsupportedOperatorError, match="changes from iteration to iteration"):
        vector_jacobian(m, ["x"])
    transcript = transcribe(m, {})
    (y,) = transcript.outputs.values()
    path = find_path(list(transcript.graph), {y: None}, [transcript.graph.inputs[0]], transcript.emitter)
    assert [gap.node.op_type for gap in path.gaps] == ["Loop"]


def test_a_state_that_grows_is_fine_when_unrolled() -> None:
    text = GROWING.replace("float[3] x, int64 n", "float[3] x").replace(
        "y = Loop", "n = Constant <value_int = 3> ()  y = Loop"
    )
    check_model(model(text), {"x": normal(3)}, ["x"])


def test_gaps_inside_subgraphs_are_predicted() -> None:
    text = """g (float[3] x, int64 n, bool c) => (float[3] y) {
        y = Loop (n, , x) <body = outer (int64 i, bool go, float[3] s) => (bool go_on, float[3] s_out) {
            s_out = If (c) <then_branch = yes () => (float[3] a) { a = Foo.bar (s) },
                            else_branch = no () => (float[3] b) { b = Sin (s) }>
            go_on = Identity (go) }>
    }"""
    m = parse_unchecked(text)
    transcript = transcribe(m, {})
    (y,) = transcript.outputs.values()
    path = find_path(list(transcript.graph), {y: None}, [transcript.graph.inputs[0]], transcript.emitter)
    assert [gap.node.op_type for gap in path.gaps] == ["bar"]
    with pytest.raises(UnsupportedOperatorError, match=r"Foo\.bar"):
        vector_jacobian(m, ["x"])


def test_an_operator_of_which_nothing_is_known_is_refused() -> None:
    m = parse_unchecked("g (float[3] x) => (float[3] y) { h = Foo.bar (x)  y = Sin (h) }")
    with pytest.raises(UnsupportedOperatorError, match=r"Foo\.bar is unknown"):
        vector_jacobian(m, ["x"])


def parse_unchecked(text: str) -> ir.Model:
    import onnx

    return ir.from_proto(onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 18, "Foo" : 1]>' + text))


def test_what_does_not_lead_to_the_output_is_no_gap() -> None:
    text = """g (float[3] x, int64 n) => (float[3] y) {
        y, z = Loop (n, , x, x) <body = outer (int64 i, bool go, float[3] s, float[3] t)
            => (bool go_on, float[3] s_out, float[3] t_out) {
            s_out = Sin (s)  t_out = Foo.bar (t)  go_on = Identity (go) }>
    }"""
    transcript = transcribe(parse_unchecked(text), {})
    (y,) = transcript.outputs.values()
    path = find_path(list(transcript.graph), {y: None}, [transcript.graph.inputs[0]], transcript.emitter)
    assert not path.gaps


def test_subgraphs_of_half_precision_are_widened() -> None:
    text = """g (float16[3] x, int64 n, bool c) => (float16[3] y) {
        z = Loop (n, , x) <body = step (int64 i, bool go, float16[3] s) => (bool go_on, float16[3] s_out) {
            f = Cast <to = 10> (i)  a = Mul (s, x)  b = Sin (a)  s_out = Add (b, f)  go_on = Identity (go) }>
        y = If (c) <then_branch = yes () => (float16[3] p) { p = Exp (z) },
                    else_branch = no () => (float16[3] q) { q = Sin (z) }>
    }"""
    for taken in (True, False):
        product = check_model(model(text), {"x": uniform(-1, 1, 3), "n": np.array(2), "c": np.array(taken)}, ["x"])
    assert {value.dtype for value in product.graph.inputs[:1]} == {ir.DataType.FLOAT}


# -- Scan --------------------------------------------------------------------------------------------------------------

CELL = """body = cell (float[2] s, float[2] p, float[2] q) => (float[2] s_out, float[2] e, float[2] f) {
    a = Mul (s, p)  b = Add (a, q)  s_out = Sin (b)  e = Mul (b, w)  f = Mul (p, q) }"""


@pytest.mark.parametrize("case", [case for case in CASES if case.op_type == "Scan"], ids=str)
def test_short_scans_are_unrolled_and_long_ones_run_backward(case: ModelCase) -> None:
    version = case.versions[0]
    product = vector_jacobian(case.model(version), ["P"])
    assert count(product, "Scan") == (2 if case.note == "66 steps" else 0)


def test_scan_with_defaults_over_a_runtime_length() -> None:
    text = f"""g (float[2] s0, float[N, 2] P, float[N, 2] Q, float[2] w)
        => (float[2] s, float[N, 2] E, float[N, 2] F) {{
        s, E, F = Scan <num_scan_inputs = 2, {CELL}> (s0, P, Q)
    }}"""
    m = model(text)
    product = vector_jacobian(m, ["s0", "P", "Q", "w"])
    assert count(product, "Scan") == 2
