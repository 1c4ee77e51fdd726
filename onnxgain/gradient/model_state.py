"""What all graphs of one model share while it is written: its names, its constants, and what it is written for."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal

import numpy as np
import onnx_ir as ir

from onnxgain.errors import ModelError
from onnxgain.gradient.values import Value

Target = Literal["cpu", "brief", "portable"]
"""What a graph is written for: the CPU; the CPU, to run as it stands, once or twice; whatever knows the operators."""

# A few nested functions or loops can stand for more nodes than there is memory for; no classifier comes near this.
_NODE_LIMIT = 1 << 17
_SHARED_BYTES = 1024


class ModelState:
    """State of the main graph and of the subgraphs in it.

    Attributes:
        graph: the main graph; it holds the initializers of all.
        target: which lowerings to prefer, see `onnxgain.gradient.reverse.lowering`.
        single_use: values that one node alone reads in the original graph: a rewrite may absorb their producer.
        shared: values that several lowerings need, under keys of their own.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.target: Target = "cpu"
        self.single_use: set[ir.Value] = set()
        self.shared: dict[Hashable, Value] = {}
        self._names: set[str] = set()
        self._counters: dict[str, int] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Value] = {}
        self._nodes = 0

    def count_node(self) -> None:
        """Note that one more node is written or evaluated.

        Raises:
            ModelError: there are too many.
        """
        self._nodes += 1
        if self._nodes > _NODE_LIMIT:
            raise ModelError(
                f"it has more than {_NODE_LIMIT} nodes with its functions and loops written out",
                remedy="export the model without nested functions and loops",
            )

    def unique(self, base: str) -> str:
        """A name that nothing in the model has yet, made from ``base``."""
        name = base
        while name in self._names:
            count = self._counters[base] = self._counters.get(base, 0) + 1
            name = f"{base}_{count}"
        self._names.add(name)
        return name

    def claim(self, name: str) -> str:
        """``name`` itself where possible: a value of the main graph that has it gets another.

        Except graph inputs, whose names are the caller's: then a name made from it.
        """
        if name in self._names and all(x.name != name for x in self.graph.inputs):
            for other in [*self.graph.initializers.values(), *(y for n in self.graph for y in n.outputs)]:
                if other.name == name:
                    other.name = self.unique(name)
            self._names.discard(name)
        return self.unique(name)

    def constant(self, array: np.ndarray | ir.TensorProtocol, name: str | None = None) -> Value:
        """An initializer holding ``array``; equal small ones are shared."""
        key = None
        if isinstance(array, np.ndarray) and array.nbytes <= _SHARED_BYTES:
            key = (str(array.dtype), array.shape, array.tobytes())
            if key in self._constants:
                return self._constants[key]
        tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape)) if isinstance(array, np.ndarray) else array
        value = Value(
            name=self.unique(name or "const"),
            shape=ir.Shape(tensor.shape.numpy()),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        if key is not None:
            self._constants[key] = value
        return value
