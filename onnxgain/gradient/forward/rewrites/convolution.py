"""Convolutions with explicit pads, and convolutions expressed in others.

Runtimes and shape inference do not follow the specifications of ``auto_pad`` and ``output_shape`` (onnxruntime refuses
dilated SAME convolutions), but they agree on explicit pads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.registry import Declined, rewrite, unsupported
from onnxgain.gradient.values import NEEDS_SHAPE, Value, rank, static_shape
from onnxgain.gradient.window import Window, transposed_pads


@rewrite("Conv", may_decline=True)
def conv(op: Emitter, X: Value, W: Value, B: Value | None = None, **attributes: Any) -> Value | Declined:
    shape, weights = static_shape(X), static_shape(W)
    if attributes.get("auto_pad", "NOTSET") == "NOTSET" or shape is None or weights is None:
        return Declined()
    window = Window(shape, weights[2:], **attributes)
    kept = {key: value for key, value in attributes.items() if key != "auto_pad"}
    return op.Conv(X, W, B, **{**kept, "pads": window.begin + window.end})


@rewrite("ConvTranspose", may_decline=True)
def conv_transpose(op: Emitter, X: Value, W: Value, B: Value | None = None, **attributes: Any) -> Value | Declined:
    """With explicit pads; an ``output_shape`` larger than the full output is padded, with the bias as its value."""
    shape, weights = static_shape(X), static_shape(W)
    explicit = attributes.get("auto_pad", "NOTSET") == "NOTSET" and not attributes.get("output_shape")
    if explicit or shape is None or weights is None:
        return Declined()
    pads = transposed_pads(shape, weights, attributes)
    kept = {key: value for key, value in attributes.items() if key not in ("auto_pad", "output_shape")}
    if min(pads) >= 0:
        return op.ConvTranspose(X, W, B, **{**kept, "pads": pads})
    ndim = len(pads) // 2
    y = op.ConvTranspose(X, W, **{**kept, "pads": [max(pad, 0) for pad in pads]})
    y = op.Pad(y, [0] * (2 + ndim) + [0, 0] + [max(-pad, 0) for pad in pads[ndim:]])
    return y if B is None else op.Add(y, op.Reshape(B, [-1] + [1] * ndim))


@rewrite("CausalConvWithState", may_decline=True)
def causal_conv_with_state(
    op: Emitter,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    past_state: Value | None = None,
    *,
    activation: str = "none",
) -> Sequence[Value | None] | Declined:
    """A depthwise convolution of the past state (or zeros) followed by the input; the new state is the end of these."""
    channels, _, taps = static_shape(weight) or (None, None, None)
    if channels is None or taps is None:
        return Declined()
    memory = taps - 1
    padded = op.Pad(x, [0, 0, memory, 0, 0, 0]) if past_state is None else op.Concat(past_state, x, axis=2)
    y = op.Conv(padded, weight, bias, group=channels)
    if activation != "none":
        y = op.Mul(y, op.Sigmoid(y))
    past = op.Slice(padded, op.Sub(op.Shape(padded, start=2), memory), [2**31], [rank(x) - 1])
    return y, past


unsupported("CausalConvWithState", reason=NEEDS_SHAPE)
