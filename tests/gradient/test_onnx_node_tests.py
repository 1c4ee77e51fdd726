"""ONNX's own backend node tests as a second source of cases.

Every test model of the default domain with floating inputs and outputs is differentiated unchanged. Integer inputs
(shapes, axes, pads, indices) are graph inputs there, so this tests the code for run-time values. They become constants
only if the gradient requires it. The transcribed forward graph is compared with the outputs that ONNX publishes, and
the gradient with finite differences in float64, along random directions of each input.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.defs
import onnx_ir as ir
import pytest

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.errors import OnnxgainError
from onnxgain.gradient import registry
from onnxgain.gradient.graphs import vector_jacobian

Feeds = dict[str, Any]
DIRECTIONS = 2
STEP = 1e-5
TOLERANCE = 2e-5
NEWEST = onnx.defs.onnx_opset_version()
FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
SINGLE = sorted({schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""})
EXPANDED = "functions written out"
# onnxruntime divides by the integer number of output elements, these tests by the fractional number from the scales.
DISPUTED = {
    "test_resize_downsample_scales_linear_align_corners",
    "test_resize_downsample_scales_cubic_align_corners",
}
# In the test models of these operators, any change of the input changes the shape of the output.
UNCOMPARABLE = {"Unique"}
# Rounding counts as the identity here, and scales as constants, so finite differences do not apply.
STRAIGHT_THROUGH = {"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"}
RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}

tally: Counter[str] = Counter()
visited: set[str] = set()


@pytest.fixture(scope="module")
def published() -> dict[str, list[Any]]:
    """The test cases by operator; models with several nodes are under `EXPANDED`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    found: dict[str, list[Any]] = defaultdict(list)
    for case in cases:
        nodes = case.model.graph.node
        if any(node.domain not in ("", "ai.onnx") for node in nodes):
            continue
        if floating(case.model.graph.input) and floating(case.model.graph.output):
            found[nodes[0].op_type if len(nodes) == 1 else EXPANDED].append(case)
    return found


def floating(values: Any) -> list[str]:
    """The names of the floating-point tensors among the values."""
    return [value.name for value in values if value.type.tensor_type.elem_type in FLOATS]


@pytest.mark.parametrize("op_type", [*SINGLE, EXPANDED])
def test_gradients(op_type: str, published: dict[str, list[Any]]) -> None:
    wrong = []
    compared = 0
    for case in published.get(op_type, ()):
        try:
            result = examine(case)
        except Exception as error:  # report every case, with any error
            wrong.append(f"{case.name}: {type(error).__name__}: {str(error).splitlines()[0]}")
            continue
        tally[result] += 1
        compared += result == "compared"
    visited.add(op_type)
    if wrong:
        pytest.fail(f"{len(wrong)} of {len(published[op_type])} cases:\n" + "\n".join(wrong), pytrace=False)
    if op_type in published and has_formula(op_type):
        assert bool(compared) != (op_type in UNCOMPARABLE | STRAIGHT_THROUGH), f"{compared} cases compared"


@pytest.mark.parametrize(
    ("op_type", "name", "factor"), [("Tanh", "input", 1.001), ("MatMul", "B", -1.0), ("Exp", "input", 0.0)]
)
def test_wrong_rules_are_found(
    op_type: str, name: str, factor: float, published: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = registry.find_answer("", op_type, NEWEST, name)
    assert isinstance(right, registry.Rule)
    wrong = registry.Rule(lambda *args, **attributes: right.formula(*args, **attributes) * factor, right.broadcasts)
    monkeypatch.setitem(registry._answers[("", op_type)], name, {1: wrong})
    with pytest.raises(AssertionError, match="along a direction"):
        examine(published[op_type][0])


def has_formula(op_type: str) -> bool:
    answers = registry._answers.get(("", op_type), {}).values()
    return any(isinstance(answer, registry.Rule) for versions in answers for answer in versions.values())


def examine(case: Any) -> str:
    """Check one test case; returns "compared", "zero" (compared, no dependence) or why it was not compared."""
    if any(node.op_type in RANDOM for node in case.model.graph.node):
        return "random"
    inputs, outputs = case.data_sets[0]
    feeds = {value.name: array(x) for value, x in zip(case.model.graph.input, inputs, strict=False)}
    if is_training_dropout(case.model, feeds):
        return "random"
    wrt = [name for name in floating(case.model.graph.input) if name in feeds and feeds[name].size]
    if not wrt:
        return "empty"
    proto, wrt, feeds, product = differentiated(case.model, wrt, feeds)
    expected = {value.name: array(y) for value, y in zip(proto.graph.output, outputs, strict=True)}
    rng = np.random.default_rng(len(case.name))
    # The derivative of a NaN output is NaN.
    seeds = {
        f"adjoint_{name}": np.where(np.isfinite(y), rng.normal(size=np.shape(y)), 0)
        for name, y in expected.items()
        if any(value.name == f"adjoint_{name}" for value in product.graph.inputs)
    }
    read = {value.name for value in product.graph.inputs}
    feeds = {name: x for name, x in feeds.items() if name in read}
    evaluator = Float64Evaluator(product)
    names = [value.name or "" for value in product.graph.outputs][: len(expected)]

    def transcribed(point: Feeds) -> Feeds:
        return dict(zip(expected, evaluator.run({**point, **seeds}, names).values(), strict=True))

    if case.name not in DISPUTED:
        compare_forward(case, transcribed(feeds), expected)
    if any(node.op_type in STRAIGHT_THROUGH for node in proto.graph.node):
        return "by definition"
    forward = original(proto) or transcribed

    def projected(point: Feeds) -> float:
        result = forward(point)
        total = 0.0
        for seed, weights in seeds.items():
            y = result[seed.removeprefix("adjoint_")]
            if np.shape(y) != weights.shape:
                return np.nan
            total += float((weights[weights != 0] * y[weights != 0]).sum())
        return total

    def gradient(point: Feeds) -> Feeds:
        return evaluator.run({**point, **seeds}, [f"gradient_{name}" for name in wrt])

    if np.isnan([slope.sum() for slope in gradient(feeds).values()]).any() and passes_through_nan(proto, feeds):
        return "not a number inside"
    return compare_directions(feeds, wrt, gradient, projected, rng)


def passes_through_nan(proto: onnx.ModelProto, feeds: Feeds) -> bool:
    """Whether the test model computes an intermediate NaN, which a Where hides, or has infinite inputs.

    0 times NaN is NaN in its derivative, as in PyTorch.
    """
    proto = copy.deepcopy(proto)
    names = [name for node in proto.graph.node for name in node.output if name]
    values = [*Float64Evaluator(ir.from_proto(proto)).run(feeds, names).values(), *feeds.values()]
    floats = [y for y in values if isinstance(y, np.ndarray) and y.dtype.kind == "f"]
    return any(np.isnan(y).any() for y in floats) or any(np.isinf(x).any() for x in floats[len(names) :])


def is_training_dropout(proto: onnx.ModelProto, feeds: Feeds) -> bool:
    modes = [feeds.get(node.input[2]) for node in proto.graph.node if node.op_type == "Dropout" and len(node.input) > 2]
    return any(mode is not None and mode.any() for mode in modes)


def array(x: Any) -> Any:
    """A published tensor as an array, floating ones in float64; sequences and optionals are unchanged."""
    if isinstance(x, onnx.TensorProto):
        x = onnx.numpy_helper.to_array(x)
    if isinstance(x, (np.ndarray, np.generic)):
        x = np.asarray(x)
        return x.astype(np.float64) if x.dtype.name in ("float16", "bfloat16", "float32") else x
    return x


def differentiated(
    proto: onnx.ModelProto, wrt: list[str], feeds: Feeds
) -> tuple[onnx.ModelProto, list[str], Feeds, ir.Model]:
    """The test model, the inputs it is differentiated with respect to, its feeds, and its gradient model.

    If the gradient requires it, integer inputs become constants, and if necessary everything but the first input.
    """
    for kept in (None, wrt, wrt[:1]):
        frozen, left = proto, feeds
        if kept is not None:
            tally["with constants"] += 1
            frozen, left = frozen_but(proto, kept, feeds)
        try:
            return frozen, kept or wrt, left, vector_jacobian(ir.from_proto(frozen), kept or wrt)
        except OnnxgainError as error:
            refusal = error
    raise refusal


def frozen_but(proto: onnx.ModelProto, kept: list[str], feeds: Feeds) -> tuple[onnx.ModelProto, Feeds]:
    """The model with all tensor inputs except ``kept`` as initializers, and the remaining feeds."""
    proto, feeds = copy.deepcopy(proto), dict(feeds)
    for value in list(proto.graph.input):
        if value.name not in kept and isinstance(feeds.get(value.name), np.ndarray):
            dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            tensor = onnx.numpy_helper.from_array(feeds.pop(value.name).astype(dtype), value.name)
            proto.graph.input.remove(value)
            proto.graph.initializer.append(tensor)
    return proto, feeds


def compare_forward(case: Any, actual: Feeds, expected: Feeds) -> None:
    for value in case.model.graph.output:
        y = expected[value.name]
        if not isinstance(y, np.ndarray) or y.dtype.kind not in "fiub":
            continue
        wide = value.type.tensor_type.elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
        rtol = max(case.rtol, 1e-3) if wide else 2e-2
        # Rounding to 8 bits may differ in float64.
        atol = 1 if y.dtype.itemsize == 1 and y.dtype.kind != "b" else max(case.atol, 1e-5)
        np.testing.assert_allclose(np.asarray(actual[value.name], float), y.astype(float), rtol=rtol, atol=atol)


def original(proto: onnx.ModelProto) -> Callable[[Feeds], Feeds] | None:
    """A function that evaluates the test model itself in float64; None if that is not possible."""
    try:
        return Float64Evaluator(ir.from_proto(proto)).run
    except OnnxgainError:
        return None


def compare_directions(
    feeds: Feeds, wrt: list[str], gradient: Callable[[Feeds], Feeds], projected: Callable[[Feeds], float], rng: Any
) -> str:
    point = off_kinks(feeds, wrt, projected, rng)
    slopes = gradient(point)
    compared, nonzero = 0, False
    for name in wrt:
        slope, x = slopes[f"gradient_{name}"], point[name]
        nonzero |= bool(np.any(slope))
        for _ in range(DIRECTIONS):
            direction = np.where(np.isfinite(x), rng.normal(size=x.shape), 0) * spread(x)
            numeric = difference(point, name, direction, projected)
            if numeric is None:
                continue
            products = np.where(direction == 0, 0, slope * direction)
            analytic, scale = float(products.sum()), max(abs(numeric), float(np.abs(products).sum()))
            floor = 1e-9 * max(abs(projected(point)), 1)
            what = f"d/d{name} along a direction: {analytic:.6g}, differences {numeric:.6g}"
            assert abs(analytic - numeric) <= TOLERANCE * scale + floor, what
            compared += 1
    if not compared:
        return "only kinks"
    return "compared" if nonzero else "zero"


def off_kinks(feeds: Feeds, wrt: list[str], projected: Callable[[Feeds], float], rng: Any) -> Feeds:
    """The published inputs moved by a thousandth, because many lie on kinks; unmoved if the model does not allow it."""
    moved = {name: feeds[name] + 1e-3 * spread(feeds[name]) * rng.normal(size=feeds[name].shape) for name in wrt}
    return {**feeds, **moved} if np.isfinite(projected({**feeds, **moved})) else feeds


def spread(x: np.ndarray) -> float:
    """The magnitude of the finite elements, at most 1."""
    finite = x[np.isfinite(x)]
    return min(float(np.sqrt(np.mean(finite**2))), 1.0) or 1.0 if finite.size else 1.0


def difference(point: Feeds, name: str, direction: np.ndarray, projected: Callable[[Feeds], float]) -> float | None:
    """The derivative along a direction; None at a kink or if the function is not defined there."""

    def moved(step: float) -> float:
        return projected({**point, name: point[name] + step * direction})

    middle, (up, down), (near, below) = moved(0), (moved(STEP), moved(-STEP)), (moved(STEP / 2), moved(-STEP / 2))
    if not np.isfinite([middle, up, down, near, below]).all():
        return None
    wide, narrow = (up - down) / (2 * STEP), (near - below) / STEP
    right, left = (up - middle) / STEP, (middle - down) / STEP
    scale = max(abs(wide), abs(right), abs(left), 1e-6 * abs(middle))
    if abs(wide - narrow) > 1e-4 * scale or abs(right - left) > 1e-2 * scale:
        return None
    return (4 * narrow - wide) / 3


def test_enough_was_compared() -> None:
    if visited != {*SINGLE, EXPANDED}:
        pytest.skip("a part of the operators was chosen")
    seen = sum(count for result, count in tally.items() if result != "with constants")
    assert tally["compared"] >= 800
    assert tally["compared"] >= 0.88 * seen, dict(tally)
    assert tally["not a number inside"] <= 0.02 * seen, dict(tally)
