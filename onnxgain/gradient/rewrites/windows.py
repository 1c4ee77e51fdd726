"""Convolutions and pools with their pads written out.

``auto_pad``, ``output_shape`` and ``ceil_mode`` are where runtimes and shape inference disagree with the operators'
specifications (onnxruntime pads dilated SAME pools as if they were not dilated and refuses dilated SAME convolutions;
shape inference before opset 22 counts ceil_mode windows that lie in the padding). Explicit pads mean the same to all.
"""

from __future__ import annotations

from typing import Any

from onnxgain.gradient.emitter import static_shape
from onnxgain.gradient.lowering import Window, transposed_pads
from onnxgain.gradient.registry import rewrite


def _explicit(op: Any, op_type: str, x: Any, operands: Any, window: Window, attributes: dict[str, Any]) -> Any:
    kept = {key: value for key, value in attributes.items() if key != "auto_pad"}
    outputs = op.requested_outputs if op_type == "MaxPool" else 1
    return op.emit(op_type, (x, *operands), {**kept, "pads": window.begin + window.end}, outputs=outputs)


@rewrite("Conv")
def conv(op: Any, X: Any, W: Any, B: Any = None, **attributes: Any) -> Any:
    shape, weights = static_shape(X), static_shape(W)
    if attributes.get("auto_pad", "NOTSET") == "NOTSET" or shape is None or weights is None:
        return NotImplemented
    return _explicit(op, "Conv", X, (W, B), Window(shape, weights[2:], **attributes), attributes)


@rewrite("ConvTranspose")
def conv_transpose(op: Any, X: Any, W: Any, B: Any = None, **attributes: Any) -> Any:
    """Where the output asked for is larger than the operator makes by itself, the rest of it is the bias."""
    shape, weights = static_shape(X), static_shape(W)
    explicit = attributes.get("auto_pad", "NOTSET") == "NOTSET" and not attributes.get("output_shape")
    if explicit or shape is None or weights is None:
        return NotImplemented
    pads = transposed_pads(shape, weights, attributes)
    kept = {key: value for key, value in attributes.items() if key not in ("auto_pad", "output_shape")}
    if min(pads) >= 0:
        return op.ConvTranspose(X, W, B, **{**kept, "pads": pads})
    ndim = len(pads) // 2
    y = op.ConvTranspose(X, W, **{**kept, "pads": [max(pad, 0) for pad in pads]})
    y = op.Pad(y, [0] * (2 + ndim) + [0, 0] + [max(-pad, 0) for pad in pads[ndim:]])
    return y if B is None else op.Add(y, op.Reshape(B, [-1] + [1] * ndim))


def _pool(op_type: str) -> Any:
    def convert(op: Any, X: Any, *, kernel_shape: Any, **attributes: Any) -> Any:
        """Explicit pads, and no ceil_mode where it says nothing or drops a window that would start in the padding."""
        shape = static_shape(X)
        padded, ceil = attributes.get("auto_pad", "NOTSET") != "NOTSET", bool(attributes.get("ceil_mode"))
        if shape is None or not (padded or ceil):
            return NotImplemented
        window = Window(shape, kernel_shape, **attributes)
        floor = Window(shape, kernel_shape, **{**attributes, "ceil_mode": 0})
        attributes["kernel_shape"] = kernel_shape
        if ceil and floor.output == window.output:
            attributes["ceil_mode"] = 0
        elif window.drops:
            # Other axes do need ceil_mode: pad them instead. That padding must not be counted, but the node's own must.
            attributes["ceil_mode"] = 0
            if attributes.pop("count_include_pad", 0):
                X = op.Pad(X, [0, 0, *window.begin, 0, 0, *window.end])
                window.begin, window.end = [0] * len(window.begin), window.overrun
            else:
                window.end = [e + o for e, o in zip(window.end, window.overrun, strict=True)]
        elif not padded:
            return NotImplemented
        return _explicit(op, op_type, X, (), window, attributes)

    return convert


for _op_type in ("AveragePool", "LpPool", "MaxPool"):
    rewrite(_op_type)(_pool(_op_type))
