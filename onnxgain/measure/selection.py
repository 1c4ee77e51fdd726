"""Breaks the ties of operators that select, to measure how far other choices move the results.

TopK, ArgMax, ArgMin and Hardmax choose among elements. Where elements at the limit of the choice are equal, as the
tokens of a flat image are, the order of the runtime decides which of them the derivative goes to. Here they choose at
random. Selected values stay those of the model, so without ties the results are equal to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.gradient.reverse.ties import TOLERANCE
from onnxgain.gradient.values import static_shape
from onnxgain.model.classifier import Classifier

SELECTORS = frozenset({"TopK", "ArgMax", "ArgMin", "Hardmax"})
"""Operators of the default domain that choose among elements."""
_PREFIX = "onnxgain/choice/"
_FLOAT = ir.TensorType(ir.DataType.FLOAT)


def may_select(classifier: Classifier) -> bool:
    """Whether a classifier may have operators that select."""
    return bool(classifier.model.functions) or not SELECTORS.isdisjoint(classifier.operators)


def selectors(graph: ir.Graph) -> frozenset[str]:
    """The names of the nodes that select, also in subgraphs."""
    return frozenset(node.name for node in graph.all_nodes() if _selects(node) and node.name)


class Choices:
    """A gradient graph with an extra input for each node that selects; changed in place.

    Args:
        model: a gradient graph, before it is loaded.
        names: of the nodes of the network that select; the gradient's own are left as they are.

    Attributes:
        operators: type and name of each node that was changed.
    """

    def __init__(self, model: ir.Model, names: frozenset[str]) -> None:
        self._shapes: dict[str, tuple[int, ...]] = {}
        nodes = [node for node in model.graph.all_nodes() if _selects(node) and node.name in names]
        self.operators = tuple(f"{node.op_type} {node.name!r}" for node in nodes if self._change(model.graph, node))

    def __bool__(self) -> bool:
        return bool(self._shapes)

    def draw(self, seed: int) -> dict[str, NDArray[np.float32]]:
        """Random values for the extra inputs, by name."""
        rng = np.random.default_rng(seed)
        return {name: rng.uniform(-1, 1, shape).astype(np.float32) for name, shape in self._shapes.items()}

    def _change(self, main: ir.Graph, node: ir.Node) -> bool:
        """Let a node choose by ``x + TOLERANCE max|x| random`` instead of x; whether that is possible."""
        x, graph = node.inputs[0], node.graph
        if graph is None or x is None or x.const_value is not None or x.dtype != ir.DataType.FLOAT:
            return False
        shape = static_shape(x)
        if shape is None:
            return False
        name = f"{_PREFIX}{len(self._shapes)}"
        self._shapes[name] = tuple(shape)
        random = ir.Value(name=name, shape=ir.Shape(shape), type=_FLOAT)
        main.inputs.append(random)

        made: list[ir.Node] = []

        def emit(op_type: str, inputs: Sequence[ir.Value], shape: Sequence[int] = (), **attributes: Any) -> ir.Value:
            new = ir.node(op_type, inputs, attributes, name=f"{name}/{len(made)}")
            out = new.outputs[0]
            out.name, out.shape, out.type = new.name, ir.Shape(shape), _FLOAT
            made.append(new)
            return out

        largest = emit("ReduceMax", [emit("Abs", [x], shape)], keepdims=0)
        size = emit("Mul", [largest, emit("Constant", [], value=ir.tensor(np.array(TOLERANCE, np.float32)))])
        moved = emit("Add", [x, emit("Mul", [random, size], shape)], shape)
        graph.insert_before(node, made)
        node.replace_input_with(0, moved)
        if node.op_type == "TopK":
            _keep_values(node, x)
        return True


def _selects(node: ir.Node) -> bool:
    return node.op_type in SELECTORS and not node.domain


def _keep_values(node: ir.Node, x: ir.Value) -> None:
    """Replace the values of a TopK by the elements of x that it selected."""
    values, indices = node.outputs
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    gather = ir.node("GatherElements", [x, indices], {"axis": axis}, name=f"{node.name}/values")
    own = gather.outputs[0]
    own.name, own.shape, own.type = f"{values.name}/own", values.shape, values.type
    assert node.graph is not None
    ir.convenience.replace_all_uses_with(values, own, replace_graph_outputs=True)
    node.graph.insert_after(node, gather)
