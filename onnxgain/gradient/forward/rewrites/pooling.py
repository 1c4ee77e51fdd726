"""Pools with explicit pads, and pools expressed in other operators.

Runtimes and shape inference do not follow the specifications of ``auto_pad`` and ``ceil_mode`` (onnxruntime pads
dilated SAME pools as if they were not dilated; shape inference before opset 22 counts ceil_mode windows that lie in the
padding), but they agree on explicit pads. If a pool has more axes than runtimes support (JAX emits pools over batch and
channels, too), axes with windows of one element are folded into the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.registry import Declined, rewrite
from onnxgain.gradient.values import Value, rank, static_shape
from onnxgain.gradient.window import Window, unpooled_shape

RUNTIME_AXES = 3
"""The maximum number of axes that onnxruntime can pool over."""


_Convert = Callable[..., Sequence[Value] | Declined]


def _pool(op_type: str) -> _Convert:
    def convert(
        op: Emitter, X: Value, *, kernel_shape: Sequence[int], output_count: int, **attributes: Any
    ) -> Sequence[Value] | Declined:
        """Use explicit pads; drop ceil_mode if it has no effect or drops a window that would start in the padding."""
        shape = static_shape(X)
        if len(kernel_shape) > RUNTIME_AXES and shape is not None and output_count == 1:
            return _fold_idle_axes(op, op_type, X, convert, kernel_shape, attributes)
        padded, ceil = attributes.get("auto_pad", "NOTSET") != "NOTSET", bool(attributes.get("ceil_mode"))
        if shape is None or not (padded or ceil):
            return Declined()
        window = Window(shape, kernel_shape, **attributes)
        floor = Window(shape, kernel_shape, **{**attributes, "ceil_mode": 0})
        attributes["kernel_shape"] = kernel_shape
        if ceil and floor.output == window.output:
            attributes["ceil_mode"] = 0
        elif window.drops:
            # Pad the axes that need ceil_mode. AveragePool must not count this padding, but it may count the node's
            # own.
            attributes["ceil_mode"] = 0
            if attributes.pop("count_include_pad", 0):
                X = op.Pad(X, [0, 0, *window.begin, 0, 0, *window.end])
                window.begin, window.end = [0] * len(window.begin), window.overrun
            else:
                window.end = [e + o for e, o in zip(window.end, window.overrun, strict=True)]
        elif not padded:
            return Declined()
        kept = {key: value for key, value in attributes.items() if key != "auto_pad"}
        return op.emit(op_type, (X,), {**kept, "pads": window.begin + window.end}, outputs=output_count)

    return convert


def _fold_idle_axes(
    op: Emitter, op_type: str, X: Value, convert: _Convert, kernel_shape: Sequence[int], attributes: dict[str, Any]
) -> Sequence[Value] | Declined:
    """Pool only over axes whose windows have more than one element; the others become part of the batch."""
    count = len(kernel_shape)
    neutral = {"kernel_shape": 1, "strides": 1, "pads": 0, "dilations": 1}
    lists = {name: attributes[name] for name in neutral if name in attributes} | {"kernel_shape": kernel_shape}
    pooled_axes = [
        i for i in range(count) if any(set(v[i::count]) != {neutral[name]} for name, v in lists.items())
    ] or [0]
    if len(pooled_axes) > RUNTIME_AXES:
        return Declined()
    order = [0, 1, *(2 + i for i in range(count) if i not in pooled_axes), *(2 + i for i in pooled_axes)]
    transposed = op.Transpose(X, perm=order)
    shape = static_shape(transposed)
    assert shape is not None
    kept = shape[: -len(pooled_axes)]
    folded = op.Reshape(transposed, [-1, 1, *shape[-len(pooled_axes) :]])
    reduced = {name: [v[j + i] for j in range(0, len(v), count) for i in pooled_axes] for name, v in lists.items()}
    pooled = convert(op, folded, output_count=1, **{**attributes, **reduced})
    if isinstance(pooled, Declined):
        pooled = op.emit(op_type, (folded,), {**attributes, **reduced})
    (y,) = pooled
    size = static_shape(y)
    assert size is not None
    return [op.Transpose(op.Reshape(y, [*kept, *size[2:]]), perm=[order.index(axis) for axis in range(len(order))])]


for _op_type in ("AveragePool", "LpPool", "MaxPool"):
    rewrite(_op_type, may_decline=True, counts_outputs=True)(_pool(_op_type))


@rewrite("MaxUnpool", may_decline=True)
def max_unpool(
    op: Emitter, X: Value, indices: Value, output_shape: Value | None = None, **attributes: Any
) -> Value | Declined:
    """MaxUnpool to the shape that the attributes imply, padded at the end to ``output_shape``.

    By the specification, the indices refer to the implied shape; onnxruntime takes them to refer to ``output_shape``.
    """
    target, shape = op.known_ints(output_shape), static_shape(X)
    if target is None or shape is None:
        return Declined()
    padding = [t - n for t, n in zip(target, unpooled_shape(shape, **attributes), strict=True)]
    y = op.MaxUnpool(X, indices, **attributes)
    return op.Pad(y, [0] * len(padding) + padding) if any(padding) else y


@rewrite("GlobalLpPool")
def global_lp_pool(op: Emitter, X: Value, *, p: float = 2) -> Value:
    axes = list(range(2, rank(X)))
    if p == 1:
        return op.ReduceL1(X, axes)
    if p == 2:
        return op.ReduceL2(X, axes)
    return op.Pow(op.ReduceSum(op.Pow(op.Abs(X), op.like(p, X)), axes), op.like(1 / p, X))
