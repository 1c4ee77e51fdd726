"""Finds the map that a graph applies to the image before its first learned operator, by evaluating it.

Exporters write normalization in many ways and places: before and after resizing, padding, splitting and reversing
channels, with constants, a mean image or batch normalization. All of them amount to a factor and a zero point per
channel, which evaluating a few images reveals.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.errors import OnnxgainError
from onnxgain.gradient.values import PASSES_AT_BOUNDS
from onnxgain.model.image_input import ImageInput
from onnxgain.model.pixelwise import is_pixelwise
from onnxgain.model.sums import scalar_of

if TYPE_CHECKING:
    from onnxgain.gradient.reverse.backpropagate import Path

Array = NDArray[np.float64]

_MOVING = {
    "Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze", "Gather", "Slice", "Dropout",
    "ReverseSequence", "GatherND", "GatherElements",
}  # fmt: skip
_LIMITING = {"Clip", "Max", "Min", "Relu"}
_FRONT = _MOVING | {
    "Abs", "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Div", "Expand", "Max", "Min", "Mul", "Neg",
    "Pad", "Pow", "QuantizeLinear", "DequantizeLinear", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceSum", "ReduceSumSquare", "ReduceL2", "Resize", "Round", "Floor", "SpaceToDepth", "Split", "Sqrt", "Sub",
    "Sum", "Tile", "Upsample", "Where", "MeanVarianceNormalization", "InstanceNormalization", "Equal", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "Log", "CenterCropPad", "DepthToSpace",
    "DynamicQuantizeLinear", "LayerNormalization", "RMSNormalization", "ScatterElements", "ScatterND",
}  # fmt: skip
_MOST_NODES = 200
_MIDDLE = {"INT8": 0.0}
"""Mid-grey as an input of some types stores it; 128 for the others."""
_ALIKE = 1e-3
_COMPRESSING = 4.0
_STRAIGHT = 0.02
"""Slopes below and above the middle of a straight line differ by less than this."""


class FrontMap(NamedTuple):
    """The input of the first learned operators, as a function of the image.

    Attributes:
        slope: (C) magnitude of each channel's factor; all NaN if the map has none (see ``invariant``).
        zero: (C) the model input that the map takes to 0, for each channel. A channel that the graph drops, such as
            transparency, has slope 0 and zero NaN.
        zero_image: (C, H, W) the same for each pixel, if it differs between pixels; else None.
        bounds: (lowest, highest) model input with an effect of its own, where the front clips it to about 1 or at 255;
            infinite for bounds beyond these. None if it clips it to neither.
        invariant: the map removes the contrast of each image, so that there is no factor.
        quantum: (lowest, highest) model input that a quantizer at the input can represent; None if there is none.
        branches: the map in front of each learned operator's input, if they are several values. None for a value that
            has no map of this form.
    """

    slope: Array
    zero: Array
    zero_image: Array | None = None
    bounds: tuple[float, float] | None = None
    invariant: bool = False
    quantum: tuple[float, float] | None = None
    branches: tuple[FrontMap | None, ...] = ()


def front_map(graph: ir.Graph, x: ir.Value, image: ImageInput, path: Path) -> FrontMap | None:
    """The map at the beginning of a transcribed graph; None if there is none, or if it is not of this form.

    Args:
        graph: the graph.
        x: its image input.
        image: the description of that input.
        path: the nodes that carry the gradient from the logits to the image. Only they count: what feeds a condition,
            a mask or another output does not say what the network takes.
    """
    values, trivial = _front(graph, x, path)
    if trivial or not values:
        return None
    from onnxgain.model.tail import cut_out

    model = cut_out(graph, [x], values)
    if model is None:
        return None
    try:
        front = _Front(model, x, values, image)
        found = _measured(front)
        if found is None:
            return None
        branches = [_measured(front.only(index)) for index in range(len(values))] if len(values) > 1 else []
    except (OnnxgainError, ValueError, ArithmeticError):
        return None
    return found._replace(quantum=_quantum(x, path), branches=tuple(branches))


def _front(graph: ir.Graph, x: ir.Value, path: Path) -> tuple[list[ir.Value], bool]:
    """The values that learned operators take from the front, and whether the front only moves numbers."""
    carrying = {*path.edges, *path.bodies, *(gap.node for gap in path.gaps)}
    values: dict[ir.Value, None] = {}
    trivial, seen, waiting = True, {x}, [(x, True)]
    while waiting:
        value, moved = waiting.pop()
        for node in value.consumers():
            if carrying and node not in carrying:
                continue
            if node.graph is not graph or not _is_of_the_front(node, moved=moved) or len(seen) > _MOST_NODES:
                values[value] = None
                continue
            trivial &= node.op_type in _MOVING
            untouched = moved and node.op_type in _MOVING | _LIMITING
            waiting += [(y, untouched) for y in node.outputs if y not in seen]
            seen.update(node.outputs)
    return list(values), trivial


def pass_at_bounds(x: ir.Value) -> None:
    """Let the gradient pass where the front clips a pixel that lies exactly on a bound, as `torch.clamp` does.

    Black and white pixels do. Behind a layer, the bounds belong to an activation, whose flat side counts there.
    """
    seen, waiting = {x}, [(x, True)]
    while waiting:
        value, untrained = waiting.pop()
        for node in value.consumers():
            relu = node.op_type == "Relu" and node.domain in ("", "ai.onnx") and untrained
            if not relu and not _is_of_the_front(node, moved=False):
                continue
            varying = sum(x is not None and x.const_value is None for x in node.inputs)
            floating = value.dtype is not None and value.dtype.is_floating_point()
            if node.op_type in ("Clip", "Max", "Min", "Relu") and varying == 1 and floating:
                node.meta[PASSES_AT_BOUNDS] = True
            untrained_yet = untrained and node.op_type not in ("BatchNormalization", "Conv")
            waiting += [(y, untrained_yet) for y in node.outputs if y not in seen]
            seen.update(node.outputs)
            if len(seen) > _MOST_NODES:
                return


def _is_of_the_front(node: ir.Node, *, moved: bool) -> bool:
    """Whether a node may be part of normalization.

    Args:
        moved: the nodes before it only move or limit numbers. A Relu there only keeps pixels from being negative.
    """
    if node.domain not in ("", "ai.onnx"):
        return False
    return node.op_type in _FRONT or (node.op_type == "Relu" and moved) or is_pixelwise(node)


def _quantum(x: ir.Value, path: Path) -> tuple[float, float] | None:
    """The range of the quantizer that the image passes first; None if there is none."""
    waiting = [x]
    while waiting:
        value = waiting.pop()
        for node in value.consumers():
            if node.op_type == "QuantizeLinear" and node in path.edges:
                scale, zero = (scalar_of(y) for y in (*node.inputs[1:], None, None)[:2])
                kind = node.outputs[0].dtype
                if scale is None or kind not in (ir.DataType.UINT8, ir.DataType.INT8):
                    return None
                low, high = (0, 255) if kind == ir.DataType.UINT8 else (-128, 127)
                return scale * (low - (zero or 0.0)), scale * (high - (zero or 0.0))
            if node.op_type in _MOVING:
                waiting += node.outputs
    return None


class _Front:
    """The values of the front as a function of the image. Evaluates each picture once."""

    def __init__(self, model: ir.Model, x: ir.Value, values: Sequence[ir.Value], image: ImageInput) -> None:
        from onnxgain.engine.evaluator import Float64Evaluator

        self._evaluator = Float64Evaluator(model)
        self._x, self._names, self.image = x.name or "", [value.name or "" for value in values], image
        self.middle = _MIDDLE.get(image.dtype, 128.0)
        self._wanted = range(len(values))
        self._known: dict[bytes, list[Array]] = {}

    def only(self, index: int) -> _Front:
        """One of the values alone."""
        one = copy.copy(self)
        one._wanted = range(index, index + 1)
        return one

    def __call__(self, picture: Array) -> Array:
        """The values that the learned operators take for an image (C, H, W), flattened."""
        key = hashlib.sha256(picture.tobytes()).digest()
        if key not in self._known:
            batch = self.image.fixed_batch or 1
            feeds = {self._x: self.image.to_input([picture] * batch, dtype=np.float64)}
            found = self._evaluator.run(feeds, self._names)
            self._known[key] = [np.asarray(found[name], np.float64).reshape(-1) for name in self._names]
        return np.concatenate([self._known[key][index] for index in self._wanted])

    def slopes(self, low: float, high: float) -> Array:
        """The mean slope of each value between two levels of grey."""
        return (self.flat(high) - self.flat(low)) / (high - low)

    def flat(self, *levels: float) -> Array:
        """The same for an image with these constant channels."""
        spread = np.broadcast_to(np.array(levels)[:, None, None], (len(levels), *self.image.image_shape[1:]))
        return self(np.broadcast_to(spread, self.image.image_shape).copy())


def _measured(front: _Front) -> FrontMap | None:
    with np.errstate(invalid="ignore", divide="ignore"):  # infinite weights, logarithms of 0
        low = front.slopes(0.25, 0.75)
        high = front.slopes(front.middle - 64.0, front.middle + 64.0)
        steep_low, steep_high = _steepness(low), _steepness(high)
        channels = front.image.channels
        if not steep_low and not steep_high:
            return _invariant(front, channels)
        clipped = bool(steep_low and not steep_high)
        base, step = (0.5, 0.25) if clipped else (front.middle, 32.0)
        at_base = front.flat(*[base] * channels)
        columns = []
        for c in range(channels):
            levels = [base] * channels
            levels[c] += step
            columns.append((front.flat(*levels) - at_base) / step)
        bounds = _bounds(front) if clipped else _bounds_of_levels(front)
        bent = _bent(front, base, 0.3 if clipped else 90.0)
    jacobian = np.stack(columns, axis=1)
    slope = np.array([_steepness(jacobian[:, c]) for c in range(channels)])
    seen = slope > 0.0
    if not (np.isfinite(jacobian).all() and np.isfinite(at_base).all() and seen.any()):
        return None
    if bent:
        return _curved(front, jacobian, slope, 1.0 if clipped else 255.0)
    # Each element is jacobian @ (v - zero). Fit the zero to all of them by least squares.
    square = (jacobian.T @ jacobian)[np.ix_(seen, seen)]
    from_base = np.zeros(channels)
    if np.linalg.matrix_rank(square) == seen.sum():
        from_base[seen] = -np.asarray(np.linalg.solve(square, jacobian[:, seen].T @ at_base), np.float64)
    else:  # colours become grey: find the grey that becomes 0
        grey = jacobian.sum(axis=1)
        from_base[seen] = -float(grey @ at_base) / float(grey @ grey)
    zero: Array = np.where(seen, base + from_base, np.nan)
    rows = np.abs(jacobian).max(axis=1) > 0.5 * slope[seen].min()
    left = np.abs(at_base + jacobian @ from_base)[rows]
    uneven = left.size and float(np.median(left)) > _ALIKE * 255 * float(slope.max()) * (1 / 255 if clipped else 1.0)
    return FrontMap(slope, zero, _zero_image(front, base, jacobian, zero) if uneven else None, bounds)


def _bounds(front: _Front) -> tuple[float, float]:
    """The range to which the front clips its input: 0 or -1 to 1, or infinite if it is another one."""
    above = bool(_steepness(front.slopes(1.25, 1.5)))
    below, far_below = (bool(_steepness(front.slopes(v - 0.25, v))) for v in (-0.25, -1.25))
    return (-np.inf if far_below else -1.0 if below else 0.0), (np.inf if above else 1.0)


def _bounds_of_levels(front: _Front) -> tuple[float, float] | None:
    """The range that ends at 255, if the front clips its input there; else None."""
    inside, above = (_steepness(front.slopes(*pair)) for pair in ((239.0, 254.0), (256.0, 271.0)))
    return (0.0 if not _steepness(front.slopes(-16.0, -1.0)) else -np.inf, 255.0) if inside and not above else None


def _bent(front: _Front, base: float, reach: float) -> bool:
    """Whether the front is no straight line over most of its range."""
    below, above = front.slopes(base - reach, base), front.slopes(base, base + reach)
    steep = np.abs(below) + np.abs(above) > 1e-9
    return bool(np.median(np.abs(above - below)[steep] / (np.abs(above) + np.abs(below))[steep]) > _STRAIGHT)


def _curved(front: _Front, jacobian: Array, slope: Array, top: float) -> FrontMap:
    """The map of a front that is no straight line, such as a logarithm or another gamma.

    Its slope is that from black to white, and its zero is looked for between these; black where there is none. A front
    that is much steeper near black, such as a logarithm, does not say what white is: its slope is given as 1.
    """
    channels = len(slope)
    zero, mean = np.zeros(channels), slope.copy()
    for c in range(channels):
        rows = np.abs(jacobian[:, c]) > 0.5 * slope[c] if slope[c] else np.zeros(len(jacobian), bool)
        if not rows.any():
            zero[c] = np.nan
            continue

        def value(level: float, rows: NDArray[np.bool_] = rows) -> float:
            with np.errstate(invalid="ignore", divide="ignore"):
                return float(np.median(front.flat(level)[rows]))

        ends = value(0.0), value(top)
        if np.isfinite(ends).all():
            mean[c] = abs(ends[1] - ends[0]) / top
        near = abs(value(top / 255.0) - ends[0]) * 255.0 / top
        if not near < _COMPRESSING * mean[c]:
            mean[c] = 1.0
        zero[c] = _crossing_of_zero(value, top)
    return FrontMap(mean, zero)


def _crossing_of_zero(value: Callable[[float], float], top: float) -> float:
    """Where a monotone function is 0 between 0 and `top`, to 1e-6 of it; 0 where it is not."""
    low, high = 0.0, top
    ends = value(low), value(high)
    if not np.isfinite(ends[1]) or ends[0] * ends[1] >= 0.0 or np.isnan(ends[0]):
        return top if ends[1] == 0.0 else 0.0
    while high - low > 1e-6 * top:
        middle = (low + high) / 2
        low, high = (middle, high) if value(middle) * ends[1] < 0.0 else (low, middle)
    return (low + high) / 2


def _steepness(slopes: Array) -> float:
    """The median magnitude of the nonzero slopes; 0 if there are none."""
    sizes = np.abs(slopes[np.isfinite(slopes)])
    steep = sizes[sizes > 1e-9]
    return float(np.median(steep)) if steep.size else 0.0


def _invariant(front: _Front, channels: int) -> FrontMap | None:
    """The map if it takes flat images to 0, because it removes their offset, their contrast, or both."""
    noise = np.random.Generator(np.random.PCG64(1)).uniform(-78.0, 22.0, front.image.image_shape) + front.middle
    one, stretched, moved = front(noise), front(1.4 * noise), front(noise + 10.0)
    size = np.abs(one).max() if np.isfinite(one).all() else 0.0

    def alike(other: Array, factor: float = 1.0) -> bool:
        return bool(np.abs(factor * one - other).max() <= _ALIKE * size)

    if size == 0.0:
        return None
    if alike(stretched):
        return FrontMap(np.full(channels, np.nan), np.zeros(channels), invariant=True)
    if alike(stretched, 1.4) and alike(moved):
        return FrontMap(np.full(channels, float(one.std() / noise.std())), np.zeros(channels))
    return None


def _zero_image(front: _Front, base: float, jacobian: Array, zero: Array) -> Array | None:
    """The zero of each pixel, if each element of the front depends on one pixel; else None."""
    shape = front.image.image_shape
    count = int(np.prod(shape))
    ranks = np.random.Generator(np.random.PCG64(2)).permutation(count) + 1.0
    at_base = front(np.full(shape, base))
    moved = front(base + (ranks / count).reshape(shape)) - at_base
    channel = np.abs(jacobian).argmax(axis=1)
    slope = jacobian[np.arange(len(jacobian)), channel]
    taken = np.abs(slope) > 1e-12
    ordered = np.argsort(ranks)
    found = np.rint(moved[taken] / slope[taken] * count).astype(np.int64) - 1
    inside = (found >= 0) & (found < count)
    result = np.broadcast_to(np.where(np.isnan(zero), base, zero)[:, None, None], shape).copy()
    pixels = ordered[found[inside]]
    result.reshape(-1)[pixels] = (base - at_base[taken] / slope[taken])[inside]
    back = front(result)
    exact = np.abs(back).max() <= 1e-6 * max(1.0, float(np.abs(at_base).max()))
    return result if exact else None
