"""The `op` of rules and rewrites: operators as methods, and helpers that hide whether a shape is static."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Literal, TypedDict, Unpack

import numpy as np
import onnx_ir as ir

from onnxgain.errors import ModelError
from onnxgain.gradient.fold import FOLD_LIMIT
from onnxgain.gradient.operator_calls import Attribute, Operand, Operators
from onnxgain.gradient.values import Value, float_dtype, static_shape

Target = Literal["cpu", "brief", "portable"]
"""What a graph is optimized for: onnxruntime's CPU provider; the same, for one or two runs without its graph
optimizations; or any runtime that supports the operators."""

# A few nested functions or loops can expand to more nodes than fit in memory. Real classifiers stay far below this.
_NODE_LIMIT = 1 << 17
_SHARED_BYTES = 1024


class NodeOptions(TypedDict, total=False):
    """Optional arguments of `Op.emit`.

    Attributes:
        outputs: number of outputs, 1 by default.
        domain: operator domain, "" by default.
        name: preferred name of the node.
        output_names: preferred names of its outputs; None for a generated name.
    """

    outputs: int
    domain: str
    name: str | None
    output_names: Sequence[str | None]


class ModelState:
    """What the graphs of one model share while it is being written: names, constants, and the lowering target.

    Attributes:
        graph: the main graph; it holds the initializers of all graphs.
        target: which lowerings to prefer, see `onnxgain.gradient.reverse.lowering`.
        single_use: values that only one node reads in the original graph: a rewrite may absorb their producer.
        shared: values that several lowerings need, so that each is emitted once.
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
        """Count one more node that is emitted or evaluated.

        Raises:
            ModelError: the limit is exceeded.
        """
        self._nodes += 1
        if self._nodes > _NODE_LIMIT:
            raise ModelError(
                f"it has more than {_NODE_LIMIT} nodes with its functions and loops written out",
                remedy="export the model without nested functions and loops",
            )

    def unique(self, base: str) -> str:
        """A name made from ``base`` that is not used in the model yet."""
        name = base
        while name in self._names:
            count = self._counters[base] = self._counters.get(base, 0) + 1
            name = f"{base}_{count}"
        self._names.add(name)
        return name

    def claim(self, name: str) -> str:
        """Free ``name`` for the caller: rename the value of the main graph that has it.

        Graph inputs keep their names, because callers feed them by name; then the result is a name made from ``name``.
        """
        if name in self._names and all(x.name != name for x in self.graph.inputs):
            for value in [*self.graph.initializers.values(), *(y for n in self.graph for y in n.outputs)]:
                if value.name == name:
                    value.name = self.unique(name)
            self._names.discard(name)
        return self.unique(name)

    def constant(self, array: np.ndarray | ir.TensorProtocol, name: str | None = None) -> Value:
        """An initializer holding ``array``; small ones with equal contents are shared."""
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


class Op(Operators, ABC):
    """Emits nodes into a graph.

    Attributes:
        model: the state that all graphs of the model share.
        opset: the version of the default operator domain.
        scope: prefix of the names of emitted nodes.
    """

    model: ModelState
    opset: int
    scope: str

    @abstractmethod
    def emit(
        self,
        op_type: str,
        inputs: Sequence[Operand],
        attributes: Mapping[str, Attribute] | None = None,
        **options: Unpack[NodeOptions],
    ) -> list[Value]:
        """Append one node, or what it is rewritten to or folded to, and return its outputs."""

    def __getattr__(self, op_type: str) -> Callable[..., Value]:
        if not op_type[0].isupper():
            raise AttributeError(op_type)

        def emit_op(*inputs: Operand, **attributes: Attribute) -> Value:
            return self.emit(op_type, inputs, attributes)[0]

        setattr(self, op_type, emit_op)
        return emit_op

    @property
    def target(self) -> Target:
        """The lowering target of the graph."""
        return self.model.target

    @target.setter
    def target(self, target: Target) -> None:
        self.model.target = target

    @property
    def node_name(self) -> str:
        """The node being rewritten or differentiated, as error messages name it."""
        return f"node {self.scope.rstrip('/')!r}"

    # -- constants ---------------------------------------------------------------------------------------------------

    def constant(self, array: np.ndarray | ir.TensorProtocol, name: str | None = None) -> Value:
        """An initializer holding ``array``; small ones with equal contents are shared."""
        return self.model.constant(array, name)

    def known(self, value: ir.Value | None) -> np.ndarray | None:
        """The array of a small constant (shape, axes, scalar, per-channel vector), else None."""
        if value is None or value.const_value is None or value.const_value.size > FOLD_LIMIT:
            return None
        return value.const_value.numpy()

    def number(self, value: ir.Value | None) -> float | None:
        """The number in a constant that has one element, else None."""
        if value is None or value.const_value is None or value.const_value.size != 1:
            return None
        return float(value.const_value.numpy().reshape(-1)[0])

    def known_ints(self, value: ir.Value | None) -> list[int] | None:
        """The elements of a small constant as integers, else None."""
        array = self.known(value)
        return None if array is None else [int(item) for item in array.reshape(-1)]

    # -- shapes and types ----------------------------------------------------------------------------------------------

    def dims(self, value: ir.Value) -> Value:
        """The shape of ``value`` as an int64 vector; a constant if the shape is static."""
        return self.Shape(value)

    def like(self, number: float, value: ir.Value) -> Value:
        """A scalar constant of the gradient type of ``value``, see `float_dtype`."""
        return self.constant(np.array(number, float_dtype(value)))

    def full_like(self, number: float, value: ir.Value) -> Value:
        """A tensor with the shape of ``value``, filled with ``number``."""
        return self.Expand(self.like(number, value), self.dims(value))

    def reshape_like(self, x: Value, like: ir.Value) -> Value:
        """``x`` reshaped to the shape of ``like``; ``x`` itself if the shapes are known to be equal."""
        shape = static_shape(like)
        if shape is not None and shape == static_shape(x):
            return x
        return self.Reshape(x, self.dims(like), allowzero=1 if shape and 0 in shape else None)

    def expand_like(self, x: Value, like: ir.Value) -> Value:
        """``x`` broadcast to the shape of ``like``; ``x`` itself if the shapes are known to be equal."""
        shape = static_shape(like)
        if shape is not None and shape == static_shape(x):
            return x
        result = self.Expand(x, self.dims(like))
        result.shape = result.shape or like.shape
        return result

    def sum_to(self, x: Value, like: ir.Value) -> Value:
        """Sum ``x`` down to the shape of ``like``: over the axes along which broadcasting repeated ``like``."""
        have, want = static_shape(x), static_shape(like)
        if have is not None and have == want:
            return x
        if have is not None and want is not None:
            lead = len(have) - len(want)
            assert lead >= 0, f"a gradient of shape {have} for an input of shape {want}"
            axes = [*range(lead), *(lead + i for i, d in enumerate(want) if d == 1 and have[lead + i] != 1)]
            assert all(lead + i in axes or d == have[lead + i] for i, d in enumerate(want)), (have, want)
            return self.reshape_like(self.ReduceSum(x, axes, keepdims=1) if axes else x, like)
        lead_ones = self.ConstantOfShape(
            self.Sub(self.Shape(self.dims(x)), self.Shape(self.dims(like))), value=ir.tensor(np.array([1], np.int64))
        )
        padded = self.Concat(lead_ones, self.dims(like), axis=0)
        repeated = self.Reshape(self.NonZero(self.Not(self.Equal(padded, self.dims(x)))), [-1])
        return self.reshape_like(self.ReduceSum(x, repeated, keepdims=1, noop_with_empty_axes=1), like)

    def cast_like(self, x: Value, like: ir.Value) -> Value:
        """``x`` cast to the element type of ``like``; ``x`` itself if it has that type."""
        if x.dtype == like.dtype or like.dtype is None:
            return x
        return self.Cast(x, to=like.dtype.value)

    def mask(self, condition: ir.Value, like: ir.Value) -> Value:
        """A boolean tensor as 0 and 1, in the gradient type of ``like``."""
        return self.Cast(condition, to=ir.DataType.from_numpy(np.dtype(float_dtype(like))).value)
