"""Convolutions and their transposes. The choice of lowering is in `onnxgain.gradient.lowering`."""

from __future__ import annotations

from typing import Any

from onnxgain.gradient.lowering import (
    Window,
    convolution_input_adjoint,
    convolution_weight_adjoint,
    require_static,
)
from onnxgain.gradient.registry import rule


def _window(x: Any, w: Any, attributes: dict[str, Any]) -> Window:
    return Window(require_static(x, "Conv"), require_static(w, "Conv")[2:], **attributes)


@rule("Conv", "X")
def conv_input(op: Any, dy: Any, X: Any, W: Any, B: Any = None, *, group: int = 1, **attributes: Any) -> Any:
    attributes.pop("kernel_shape", None)
    return convolution_input_adjoint(op, dy, W, _window(X, W, attributes), group)


@rule("Conv", "W")
def conv_weight(op: Any, dy: Any, X: Any, W: Any, B: Any = None, *, group: int = 1, **attributes: Any) -> Any:
    attributes.pop("kernel_shape", None)
    return convolution_weight_adjoint(op, dy, X, _window(X, W, attributes), group)


@rule("Conv", "B")
def conv_bias(op: Any, dy: Any, X: Any, W: Any, B: Any = None, **attributes: Any) -> Any:
    ndim = len(require_static(X, "Conv"))
    return op.ReduceSum(dy, [0, *range(2, ndim)], keepdims=0)
