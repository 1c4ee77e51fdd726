"""ONNX's own backend node tests as a second source of cases.

Every test model of the default domain with floating inputs and outputs is differentiated as it stands. Integer inputs
(shapes, axes, pads, indices) are graph inputs there, so it is the paths for run-time values that are taken; they become
constants only where a gradient refuses otherwise. The transcribed forward graph is compared with the outputs that ONNX
publishes, and the gradient with differences in float64, along random directions of each input.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnx.defs
import onnx_ir as ir
import pytest

from onnxgain.errors import OnnxgainError, UnsupportedOperatorError
from onnxgain.evaluator import Float64Evaluator
from onnxgain.gradient import registry
from onnxgain.gradient.graphs import vector_jacobian

Feeds = dict[str, Any]
DIRECTIONS = 2
STEP = 1e-5
FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
SINGLE = sorted({schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""})
EXPANDED = "functions written out"

tally: Counter[str] = Counter()
visited: set[str] = set()


@pytest.fixture(scope="module")
def published() -> dict[str, list[Any]]:
    """The test cases by operator; models of several nodes under `EXPANDED`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    found: dict[str, list[Any]] = defaultdict(list)
    for case in cases:
        nodes = case.model.graph.node
        if all(node.domain in ("", "ai.onnx") for node in nodes) and floating(case.model.graph.input):
            if floating(case.model.graph.output):
                found[nodes[0].op_type if len(nodes) == 1 else EXPANDED].append(case)
    return found


def floating(values: Any) -> list[str]:
    """The names of those that are tensors of floating numbers."""
    return [value.name for value in values if value.type.tensor_type.elem_type in FLOATS]


@pytest.mark.parametrize("op_type", [*SINGLE, EXPANDED])
def test_gradients(op_type: str, published: dict[str, list[Any]]) -> None:
    wrong = []
    compared = 0
    for case in published.get(op_type, ()):
        try:
            result = examine(case)
        except Exception as error:  # every case is reported, whatever went wrong
            wrong.append(f"{case.name}: {type(error).__name__}: {str(error).splitlines()[0]}")
            continue
        tally[result] += 1
        compared += result == "compared"
    visited.add(op_type)
    if wrong:
        pytest.fail(f"{len(wrong)} of {len(published[op_type])} cases:\n" + "\n".join(wrong), pytrace=False)
    assert compared or not published.get(op_type) or not has_formula(op_type), "nothing could be compared"


def has_formula(op_type: str) -> bool:
    answers = registry._answers.get(("", op_type), {}).values()
    return any(isinstance(answer, registry.Rule) for versions in answers for answer in versions.values())


def examine(case: Any) -> str:
    """Check one test case; returns what became of it: "compared", "zero" (compared, no dependence) or why not."""
    proto = case.model
    inputs, outputs = case.data_sets[0]
    feeds = {value.name: array(x) for value, x in zip(proto.graph.input, inputs, strict=False)}
    wrt = [name for name in floating(proto.graph.input) if name in feeds and feeds[name].size]
    if not wrt:
        return "empty"
    product, feeds = differentiated(proto, wrt, feeds)
    adjoints = {value.name: value.name.removeprefix("adjoint_") for value in product.graph.inputs}
    adjoints = {seed: y for seed, y in adjoints.items() if seed.startswith("adjoint_")}
    names = [value.name for value in product.graph.outputs][: len(proto.graph.output)]
    evaluator = Float64Evaluator(product)
    expected = dict(zip((value.name for value in proto.graph.output), (array(y) for y in outputs), strict=True))
    rng = np.random.default_rng(len(case.name))
    seeds = {seed: rng.normal(size=np.shape(expected[y])) for seed, y in adjoints.items()}
    forward = evaluator.run({**feeds, **seeds}, names)
    compare_forward(case, dict(zip(expected, forward.values(), strict=True)), expected)

    def gradient(point: Feeds) -> Feeds:
        return evaluator.run({**point, **seeds}, [f"gradient_{name}" for name in wrt])

    run = original(proto, product, evaluator, names, seeds)

    def projected(point: Feeds) -> float:
        result = run(point)
        return float(sum((seeds[seed] * result[y]).sum() for seed, y in adjoints.items()))

    return compare_directions(feeds, wrt, gradient, projected, rng)


def array(x: Any) -> Any:
    """A published tensor as an array, floating ones in float64; sequences and optionals as they are."""
    if isinstance(x, onnx.TensorProto):
        x = onnx.numpy_helper.to_array(x)
    if isinstance(x, (np.ndarray, np.generic)):
        x = np.asarray(x)
        return x.astype(np.float64) if x.dtype.name in ("float16", "bfloat16", "float32") else x
    return x


def differentiated(proto: onnx.ModelProto, wrt: list[str], feeds: Feeds) -> tuple[ir.Model, Feeds]:
    """The gradient model, and the feeds it still needs: with integer inputs as constants where it must know them."""
    try:
        return vector_jacobian(ir.from_proto(proto), wrt), feeds
    except UnsupportedOperatorError:
        pass
    proto = copy.deepcopy(proto)
    for value in list(proto.graph.input):
        if value.name not in wrt and isinstance(feeds.get(value.name), np.ndarray):
            proto.graph.input.remove(value)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(feeds.pop(value.name), value.name))
    return vector_jacobian(ir.from_proto(proto), wrt), feeds


def compare_forward(case: Any, actual: Feeds, expected: Feeds) -> None:
    for name, y in expected.items():
        if not isinstance(y, np.ndarray) or y.dtype.kind not in "fiub":
            continue
        narrow = any(i.type.tensor_type.elem_type not in (1, 11) for i in case.model.graph.output if i.name == name)
        rtol = 2e-2 if narrow else max(case.rtol, 1e-3)
        np.testing.assert_allclose(np.asarray(actual[name], float), y.astype(float), rtol=rtol, atol=max(case.atol, 1e-5))


def original(
    proto: onnx.ModelProto, product: ir.Model, evaluator: Float64Evaluator, names: list[Any], seeds: Feeds
) -> Callable[[Feeds], Feeds]:
    """The test model itself in float64, where it can be evaluated; else the transcribed one, checked before."""
    wanted = [value.name for value in proto.graph.output]
    try:
        untouched = Float64Evaluator(ir.from_proto(proto))
    except OnnxgainError:
        return lambda point: dict(zip(wanted, evaluator.run({**point, **seeds}, names).values(), strict=True))
    return lambda point: untouched.run(point)


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
            assert abs(analytic - numeric) <= 2e-5 * scale + floor, f"d/d{name}: {analytic:.6g}, differences {numeric:.6g}"
            compared += 1
    if not compared:
        return "only kinks"
    return "compared" if nonzero else "zero"


def off_kinks(feeds: Feeds, wrt: list[str], projected: Callable[[Feeds], float], rng: Any) -> Feeds:
    """The published inputs moved by a thousandth, because many of them sit on kinks; unmoved where that is not allowed."""
    moved = {name: feeds[name] + 1e-3 * spread(feeds[name]) * rng.normal(size=feeds[name].shape) for name in wrt}
    point = {**feeds, **moved}
    try:
        if np.isfinite(projected(point)):
            return point
    except Exception:
        pass
    return feeds


def spread(x: np.ndarray) -> float:
    finite = x[np.isfinite(x)]
    return float(np.sqrt(np.mean(finite**2))) or 1.0 if finite.size else 1.0


def difference(point: Feeds, name: str, direction: np.ndarray, projected: Callable[[Feeds], float]) -> float | None:
    """The central difference along a direction, or None at a kink or where the function is not defined."""

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
    return wide


def test_enough_was_compared() -> None:
    if visited != {*SINGLE, EXPANDED}:
        pytest.skip("a part of the operators was chosen")
    print(dict(tally))
    assert tally["compared"] >= 1000
