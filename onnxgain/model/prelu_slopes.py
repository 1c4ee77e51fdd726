"""Finds PRelu slopes that ONNX applies to the columns of an image, although the exporter may have meant channels."""

from __future__ import annotations

import onnx_ir as ir

from onnxgain.gradient.values import static_shape


def slopes_of_columns(graph: ir.Graph) -> tuple[str, ...]:
    """A sentence for each PRelu whose slopes fit both its columns and its channels.

    From opset 7 on, runtimes broadcast a slope of shape [n] along the last axis. MXNet's exporter wrote per-channel
    slopes in this shape. If the numbers of columns and channels are equal, the two cannot be told apart.
    """
    found = []
    for node in graph:
        if node.op_type != "PRelu" or node.domain not in ("", "ai.onnx"):
            continue
        data, slope = (static_shape(x) if x is not None else None for x in node.inputs[:2])
        if data is None or slope is None or len(slope) != 1 or len(data) < 3 or slope[0] == 1:
            continue
        if data[1] == data[-1] == slope[0]:
            channels = ", ".join(map(str, (slope[0], *[1] * (len(data) - 2))))
            found.append(
                f"PRelu {node.name!r}: its {slope[0]} slopes are those of the columns, as ONNX defines it (a slope a "
                f"channel would be of shape [{channels}])"
            )
    return tuple(found)
