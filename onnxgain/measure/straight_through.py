"""The function that the straight-through estimator differentiates, evaluated in float64.

A quantized model is a step function; the straight-through estimator differentiates a smooth surrogate instead. Around a
point at which a quantized tensor has the value a0, the surrogate replaces each quantization by

    S(a) = quantized(a0) + inside (a - a0) / scale

in integer steps, with inside = 1 where round(a0 / scale) + zero point lies in the range of the type (for small floats:
where |a0 / scale| does), else 0. S equals the model at the point and is smooth around it. From there on, real numbers
take the place of the integers.

Quantized activations tie (equal integers in a MaxPool window, zeros before a Relu), which gives S a kink. `jitter`
moves the result of each quantization by a fraction of a step, differently for each element, which removes it.
The emitted gradient is evaluated with the same replacements. The two must then agree, as the rules under test do not
depend on the point.
"""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.engine.evaluator import Override
from onnxgain.engine.kernels.quantization import spread

Array = NDArray[Any]

JITTER = 0.25
"""The largest jitter, in integer steps."""
QUANTIZERS = ("QuantizeLinear", "DynamicQuantizeLinear")


def is_quantized(graph: ir.Graph) -> bool:
    """Whether a graph has quantizations that may depend on its inputs."""
    return any(node.op_type in QUANTIZERS and not node.domain for node in graph.all_nodes())


@dataclass(frozen=True)
class _Anchor:
    point: Array
    slope: Array
    result: Array
    further: tuple[Array, ...]

    def at(self, x: Array) -> tuple[Array, ...]:
        return (np.asarray(self.result + self.slope * (x - self.point)), *self.further)


class StraightThrough:
    """Overrides for `onnxgain.engine.evaluator.Float64Evaluator`. The first evaluation after `restart` sets the point.

    A node in the body of a loop has one anchor per iteration.
    """

    def __init__(self) -> None:
        self._anchors: dict[tuple[str, int], _Anchor] | None = None
        self._calls: Counter[str] = Counter()
        self._jitter: int | None = None

    @property
    def overrides(self) -> dict[str, Override]:
        """The overrides by operator type."""
        return {
            "QuantizeLinear": self._quantize,
            "DynamicQuantizeLinear": self._quantize_dynamically,
            "Cast": self._cast,
            "CastLike": self._cast,
        }

    def restart(self, *, jitter: int | None = None) -> None:
        """Forget the point. ``jitter`` is the seed of the fractions of a step to move results by; None: no jitter."""
        self._anchors, self._jitter = {}, jitter

    def begin(self) -> None:
        """Call before each evaluation of a graph: restarts the count of loop iterations."""
        self._calls.clear()

    def _key(self, node: ir.Node) -> tuple[str, int]:
        name = node.outputs[0].name or ""
        self._calls[name] += 1
        return name, self._calls[name]

    def stop(self) -> None:
        """Quantize as the model does from now on."""
        self._anchors = None

    def _quantize(self, node: ir.Node, arguments: list[Any], kernel: Any) -> tuple[Any, ...]:
        if self._anchors is None:
            return tuple(kernel())
        key = self._key(node)
        x, *parameters = arguments
        if key not in self._anchors:
            (integers,) = kernel()
            slope = _inside(node, x, parameters, integers.dtype) / _spread(node, parameters[0], x)
            self._anchors[key] = self._anchor(x, slope, integers)
        return self._anchors[key].at(x)

    def _quantize_dynamically(self, node: ir.Node, arguments: list[Any], kernel: Any) -> tuple[Any, ...]:
        if self._anchors is None:
            return tuple(kernel())
        key = self._key(node)
        (x,) = arguments
        if key not in self._anchors:
            integers, scale, zero = kernel()
            self._anchors[key] = self._anchor(x, np.broadcast_to(1.0 / scale, x.shape), integers, scale, zero)
        return self._anchors[key].at(x)

    def _cast(self, node: ir.Node, arguments: list[Any], kernel: Any) -> tuple[Any, ...]:
        """Pass a real number that takes the place of an integer through unchanged."""
        source, array = node.inputs[0], arguments[0]
        real = source is not None and source.dtype is not None and not _is_real(source.dtype)
        return (array,) if real and array.dtype.name == "float64" else tuple(kernel())

    def _anchor(self, x: Array, slope: Array, integers: Array, *further: Array) -> _Anchor:
        result = integers.astype(np.float64)
        if self._jitter is not None:
            # The seed depends on the input, so that a gradient graph that quantizes it again gets the same jitter.
            seed = zlib.crc32(np.ascontiguousarray(x, np.float64).tobytes())
            fraction = np.random.default_rng([self._jitter, seed]).uniform(-1, 1, x.shape)
            spacing = 1.0 if integers.dtype.kind in "iu" else 0.1 * np.abs(result) + 1e-3
            result = result + JITTER * fraction * spacing
        return _Anchor(x, slope, result, further)


def _spread(node: ir.Node, values: Array, x: Array) -> Array:
    attributes = node.attributes
    axis = attributes["axis"].as_int() if "axis" in attributes else 1
    block = attributes["block_size"].as_int() if "block_size" in attributes else 0
    return spread(values, x.shape, axis, block)


def _inside(node: ir.Node, x: Array, parameters: list[Any], dtype: np.dtype[Any]) -> Array:
    """1 where a value is in the range of the quantized type, 0 elsewhere."""
    import ml_dtypes

    steps = x / _spread(node, parameters[0], x)
    limits: Any
    if "float" in dtype.name:
        limits = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
        return np.asarray(np.abs(steps) <= float(limits.max), np.float64)
    limits = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
    zero = parameters[1] if len(parameters) > 1 else None
    whole = np.rint(steps) + (0.0 if zero is None else _spread(node, zero.astype(np.float64), x))
    return np.asarray((whole >= int(limits.min)) & (whole <= int(limits.max)), np.float64)


def _is_real(dtype: ir.DataType) -> bool:
    return dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
