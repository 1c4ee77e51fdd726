"""What a rule sees as `op`: the emitter, and the node being differentiated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import onnx_ir as ir

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.op import Op
from onnxgain.gradient.operator_calls import Attribute, Operand
from onnxgain.gradient.values import Value


class RuleOp(Op):
    """Emits through an emitter, and knows the forward node.

    Attributes:
        node: the forward node.
        version: the version of its operator.
        index: which of the node's inputs is asked for (for variadic inputs).
    """

    def __init__(self, emitter: Emitter, node: ir.Node, adjoints: Sequence[Value | None], version: int) -> None:
        self.emitter = emitter
        self.model, self.opset, self.scope = emitter.model, emitter.opset, emitter.scope
        self.node = node
        self.version = version
        self.index = 0
        self._adjoints = adjoints

    @property
    def ys(self) -> Sequence[Value]:
        """The node's outputs."""
        return cast("Sequence[Value]", self.node.outputs)

    @property
    def y(self) -> Value:
        """The node's first output."""
        return self.ys[0]

    def emit(
        self,
        op_type: str,
        inputs: Sequence[Operand],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        outputs: int = 1,
        domain: str = "",
        name: str | None = None,
        output_names: Sequence[str | None] = (),
    ) -> list[Value]:
        """Append one node (or its constant result, or its rewrite) and return its outputs."""
        return self.emitter.emit(
            op_type, inputs, attributes, outputs=outputs, domain=domain, name=name, output_names=output_names
        )

    def adjoint(self, index: int) -> Value:
        """The adjoint of one output: zeros where nothing depends on it."""
        known = self._adjoints[index] if index < len(self._adjoints) else None
        return known if known is not None else self.full_like(0.0, self.ys[index])

    def has_adjoint(self, index: int) -> bool:
        """Whether anything depends on an output."""
        return index < len(self._adjoints) and self._adjoints[index] is not None
