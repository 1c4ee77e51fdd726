"""Gradients of windowed operators for a dense grid of geometries, compared with plain loops, for every target."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.gradient.emitter import Emitter, Target
from onnxgain.gradient.reverse.lowering import convolution_input_adjoint, convolution_weight_adjoint
from onnxgain.gradient.window import Window

TARGETS: tuple[Target, ...] = ("cpu", "brief", "portable")
Array = np.ndarray


@dataclass(frozen=True)
class Geometry:
    """One convolution. All tuples have one value per spatial axis."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    group: int = 1
    channels: int = 2  # input and output channels per group
    filters: int = 1

    def window(self) -> Window:
        shape = (1, 1, *self.size)
        return Window(shape, self.kernel, strides=self.strides, dilations=self.dilations, pads=self.pads)


def one_axis() -> Iterator[Geometry]:
    """Every small combination of size, kernel, stride, dilation and pads."""
    ranges = ((1, 5, 8), (1, 2, 3), (1, 2, 4), (1, 2), (0, 1, 5), (0, 1, 4))
    for n, k, s, d, begin, end in itertools.product(*ranges):
        if n + begin + end >= (k - 1) * d + 1:
            yield Geometry((n,), (k,), (s,), (d,), (begin, end))


def two_axes() -> Iterator[Geometry]:
    """Equal strides, which may be lowered by phases, and unequal ones; groups."""
    sizes, kernels = ((5, 8), (6, 3), (7, 7)), ((1, 2), (2, 2), (3, 2), (5, 3))
    pads = ((0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 2, 0), (2, 0, 0, 3), (4, 1, 3, 6))
    strides = ((1, 1), (2, 2), (3, 3), (4, 4), (2, 1))
    for number, (n, k, s, p) in enumerate(itertools.product(sizes, kernels, strides, pads)):
        groups = ((1, 2, 1), (2, 1, 1), (3, 2, 1), (3, 1, 2))[number % 4]
        yield Geometry(n, k, s, (1, 1), p, *groups)
        if number % 3 == 0 and n[0] > 2 * (k[0] - 1) and n[1] > 2 * (k[1] - 1):
            yield Geometry(n, k, s, (2, 2), p, *groups)


def three_axes() -> Iterator[Geometry]:
    for s, p, d in itertools.product((1, 2, 3), ((0,) * 6, (1, 0, 2, 0, 1, 1)), (1, 2)):
        yield Geometry((4, 5, 3), (2, 3, 2), (s,) * 3, (d,) * 3, p, 2, 1)


def blocked() -> Iterator[Geometry]:
    """Depthwise and pointwise convolutions with enough channels for the runtime's blocked layout."""
    depthwise, pointwise = (16, 1, 1), (1, 16, 3)
    pads = ((0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 1, 0), (2, 2, 2, 2))
    for n, s, p in itertools.product(((6, 7), (8, 5)), ((2, 2), (3, 3)), pads):
        for k in ((3, 3), (2, 1), (5, 4)):
            if min(n) + p[0] + p[2] >= max(k):
                yield Geometry(n, k, s, (1, 1), p, *depthwise)
        yield Geometry(n, (1, 1), s, (1, 1), p, *pointwise)
        yield Geometry(n, (1, 1), s, (1, 1), p, *depthwise)


GRIDS = {
    "1d": list(one_axis()),
    "2d": list(two_axes()),
    "blocked": list(blocked()),
    "3d": [g for g in three_axes() if min(g.window().output) > 0],
}


def taps(geometry: Geometry, window: Window) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """(output position, kernel position, input position) wherever the window meets the input."""
    for o in np.ndindex(*window.output):
        for k in np.ndindex(*geometry.kernel):
            u = tuple(
                a * s + b * d - p
                for a, b, s, d, p in zip(o, k, geometry.strides, geometry.dilations, geometry.pads, strict=False)
            )
            if all(0 <= i < n for i, n in zip(u, geometry.size, strict=True)):
                yield o, k, u


def dense_adjoints(geometry: Geometry, window: Window, x: Array, w: Array, dy: Array) -> tuple[Array, Array]:
    """dx and dw of a convolution, computed from its definition."""
    dx, dw = np.zeros(x.shape), np.zeros(w.shape)
    filters, channels = w.shape[0] // geometry.group, w.shape[1]
    for o, k, u in taps(geometry, window):
        for g in range(geometry.group):
            cs, ms = slice(g * channels, (g + 1) * channels), slice(g * filters, (g + 1) * filters)
            at_o, at_k, at_u = (slice(None), ms, *o), (ms, slice(None), *k), (slice(None), cs, *u)
            dx[at_u] += dy[at_o] @ w[at_k]
            dw[at_k] += dy[at_o].T @ x[at_u]
    return dx, dw


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("grid", GRIDS)
def test_convolution_adjoints(grid: str, target: Target) -> None:
    """One graph for a whole grid. float64 is compared with the definition, and onnxruntime with float64."""
    rng = np.random.default_rng(3)
    op = Emitter(ir.Graph([], [], nodes=[], name="grid", opset_imports={"": 18}), 18)
    op.target = target
    feeds, expected = {}, {}
    for number, geometry in enumerate(GRIDS[grid]):
        window = geometry.window()
        shapes = {
            "x": (2, geometry.group * geometry.channels, *geometry.size),
            "w": (geometry.group * geometry.filters, geometry.channels, *geometry.kernel),
            "dy": (2, geometry.group * geometry.filters, *window.output),
        }
        arrays = {key: rng.integers(-4, 5, shape).astype(float) for key, shape in shapes.items()}
        values = {key: _input(op, f"{key}{number}", shape) for key, shape in shapes.items()}
        feeds.update({f"{key}{number}": array for key, array in arrays.items()})
        dx = convolution_input_adjoint(op, values["dy"], values["w"], window, geometry.group)
        dw = convolution_weight_adjoint(op, values["dy"], values["x"], values["w"], window, geometry.group)
        dense = dense_adjoints(geometry, window, arrays["x"], arrays["w"], arrays["dy"])
        for value, array, what in zip((dx, dw), dense, ("dx", "dw"), strict=True):
            op.graph.outputs.append(op.Identity(value))
            expected[op.graph.outputs[-1].name] = (array, f"{what} of {geometry}")
    model = ir.Model(op.graph, ir_version=10)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    _compare(Float64Evaluator(model).run(feeds), expected)
    _compare(_run(model, feeds), expected)


def _input(op: Emitter, name: str, shape: Sequence[int]) -> ir.Value:
    value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    op.graph.inputs.append(value)
    return value


def _run(model: ir.Model, feeds: dict[str, Array]) -> dict[str, Array]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {k: v.astype(np.float32) for k, v in feeds.items()}), strict=True))


def _compare(actual: dict[str, Array], expected: dict[str, tuple[Array, str]]) -> None:
    """Compare exactly: small integers are exact in float32, too."""
    wrong = [
        what
        for name, (array, what) in expected.items()
        if actual[name].shape != array.shape or np.abs(actual[name] - array).max() > 1e-3
    ]
    assert not wrong, f"{len(wrong)} of {len(expected)} adjoints are wrong, first {wrong[:3]}"


def test_a_wrong_lowering_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxgain.gradient.reverse import lowering

    monkeypatch.setattr(lowering, "flip", lambda op, w, axes: w)
    with pytest.raises(AssertionError, match="adjoints are wrong"):
        test_convolution_adjoints("3d", "cpu")
