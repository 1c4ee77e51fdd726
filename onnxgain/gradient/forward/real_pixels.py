"""Integer images as real numbers: what the arithmetic before their cast to floating point becomes.

A pixel of an integer image may lie between two integers in an analysis. Casts to integers that hold all of its values,
and sums, products and bounds in 32 or 64 bits, mean the same for real numbers. Narrower arithmetic wraps around and
integer division truncates; neither is replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.emitter import Emitter

_MOVING = {
    "Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Tile",
    "Transpose", "Unsqueeze",
}  # fmt: skip
_ARITHMETIC = {"Add", "Sub", "Mul"}
_BOUNDS = {"Min", "Max", "Clip"}
_WIDE = (ir.DataType.INT32, ir.DataType.INT64)


class RealPixels:
    """The values of a graph being written that are floating-point numbers in place of the file's integers."""

    def __init__(self) -> None:
        self._integers: dict[ir.Value, ir.DataType] = {}

    def declare(self, value: ir.Value, file_type: ir.DataType | None) -> None:
        """Note an input that the file declares with an integer type."""
        if file_type is not None and file_type.is_integer():
            self._integers[value] = file_type

    def integer_cast(self, node: ir.Node, inputs: Sequence[ir.Value | None]) -> ir.Value | None:
        """The number that a Cast to integers leaves unchanged; None for any other node."""
        source = inputs[0] if inputs else None
        if node.op_type != "Cast" or source is None or source not in self._integers or "to" not in node.attributes:
            return None
        target = ir.DataType(node.attributes["to"].as_int())
        return source if target.is_integer() and _holds(target, self._integers[source]) else None

    def operands(self, node: ir.Node, inputs: Sequence[ir.Value | None], op: Emitter) -> Sequence[ir.Value | None]:
        """The inputs of a node, with integer constants as floating-point numbers where real pixels meet them."""
        kinds = [self._integers[x] for x in inputs if x is not None and x in self._integers]
        if not kinds or not (node.op_type in _BOUNDS or (node.op_type in _ARITHMETIC and kinds[0] in _WIDE)):
            return inputs
        return [self._operand(x, op) for x in inputs]

    def _operand(self, value: ir.Value | None, op: Emitter) -> ir.Value | None:
        known = op.known(value) if value is not None and value not in self._integers else None
        return value if known is None or known.dtype.kind not in "iu" else op.constant(known.astype(np.float32))

    def note(self, node: ir.Node, inputs: Sequence[ir.Value | None], outputs: Sequence[Any]) -> None:
        """Note the results of a node that are real pixels."""
        if not self._integers or node.op_type not in _MOVING | _ARITHMETIC | _BOUNDS | {"Cast"}:
            return
        kind = next((self._integers[x] for x in inputs if x is not None and x in self._integers), None)
        if kind is None:
            return
        if node.op_type == "Cast":
            kind = ir.DataType(node.attributes["to"].as_int())
        if kind.is_integer():
            self._integers |= {y: kind for y in outputs if isinstance(y, ir.Value) and y.dtype == ir.DataType.FLOAT}


def _holds(target: ir.DataType, source: ir.DataType) -> bool:
    wide, narrow = np.iinfo(target.numpy()), np.iinfo(source.numpy())
    return bool(wide.min <= narrow.min and wide.max >= narrow.max)
