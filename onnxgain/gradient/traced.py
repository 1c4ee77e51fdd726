"""Constants that remember how they follow from a model's weights, so that other weights can take their places.

A gradient graph is differentiated once for many snapshots of one network. Its initializers are the network's weights,
and what was folded from them (a flipped kernel, a bias fused with a normalization). Weights are traced by `trace`;
whatever is folded from traced constants is traced too. What reads a traced constant for any other
purpose may decide by them how the graph looks: then the weights behind it are noted as fixed, and the graph holds only
for snapshots that have just these numbers there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

Compute = Callable[..., np.ndarray | None]


class Traced(ir.LazyTensor):
    """A floating-point constant with its origin.

    Attributes:
        weights: names of the initializers that it follows from.
        fixed: where the names of weights are noted whose numbers were read.
        rebuild: gives the constant that other weights give; None where it cannot be had.
    """

    __slots__ = ("fixed", "rebuild", "weights")

    def __init__(
        self,
        get: Callable[[], ir.TensorProtocol],
        dtype: ir.DataType,
        shape: tuple[int, ...],
        weights: frozenset[str],
        fixed: set[str],
        rebuild: Callable[[Mapping[str, np.ndarray]], np.ndarray | None],
        name: str | None = None,
    ) -> None:
        super().__init__(get, dtype, ir.Shape(shape), name=name)
        self.weights = weights
        self.fixed = fixed
        self.rebuild = rebuild

    def _evaluate(self) -> ir.TensorProtocol:
        self.fixed.update(self.weights)
        return super()._evaluate()

    def array_for_folding(self) -> np.ndarray:
        """The array, for folding only: reading it does not fix the weights."""
        return self.raw().numpy()


def trace(model: ir.Model) -> set[str]:
    """Trace the floating-point initializers of a model, in place; returns the set where fixed ones will be noted."""
    fixed: set[str] = set()
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.dtype.is_floating_point():
            value.const_value = _weight(name, tensor, fixed)
    return fixed


def _weight(name: str, tensor: ir.TensorProtocol, fixed: set[str]) -> Traced:
    shape = tuple(tensor.shape.numpy())
    return Traced(
        lambda: tensor, tensor.dtype, shape, frozenset({name}), fixed, lambda weights: weights.get(name), tensor.name
    )


def folding_array(tensor: ir.TensorProtocol) -> np.ndarray:
    """The array of a constant, for a use that `derive` repeats with other weights."""
    return tensor.array_for_folding() if isinstance(tensor, Traced) else tensor.numpy()


@contextlib.contextmanager
def evaluation(graph: ir.Graph) -> Iterator[None]:
    """Let a graph be evaluated inside, which reads its constants, without noting the weights as fixed."""
    tensors = (value.const_value for value in graph.initializers.values())
    notes = {id(tensor.fixed): tensor.fixed for tensor in tensors if isinstance(tensor, Traced)}
    before = {key: set(fixed) for key, fixed in notes.items()}
    try:
        yield
    finally:
        for key, fixed in notes.items():
            fixed.intersection_update(before[key])


def derive(
    compute: Compute, tensors: Sequence[ir.TensorProtocol | None], *, dtype: ir.DataType, shape: Sequence[int]
) -> ir.TensorProtocol:
    """The constant `compute(*arrays)`, computed when it is read, and traced where one of the `tensors` is."""
    sizes = tuple(shape)

    def get() -> ir.TensorProtocol:
        array = compute(*(None if tensor is None else folding_array(tensor) for tensor in tensors))
        assert array is not None
        return ir.tensor(np.ascontiguousarray(array).reshape(sizes), dtype=dtype)

    traced = [tensor for tensor in tensors if isinstance(tensor, Traced)]
    if not traced:
        return ir.LazyTensor(get, dtype=dtype, shape=ir.Shape(sizes))

    def rebuild(weights: Mapping[str, np.ndarray]) -> np.ndarray | None:
        arrays = [
            tensor.rebuild(weights) if isinstance(tensor, Traced) else None if tensor is None else tensor.numpy()
            for tensor in tensors
        ]
        if any(new is None and tensor is not None for new, tensor in zip(arrays, tensors, strict=True)):
            return None
        array = compute(*arrays)
        return array if array is not None and array.shape == sizes and array.dtype == dtype.numpy() else None

    return Traced(get, dtype, sizes, frozenset().union(*(t.weights for t in traced)), traced[0].fixed, rebuild)


class Swap(NamedTuple):
    """How the initializers of a gradient graph follow from a model's weights.

    Attributes:
        fixed: weights that must be what they were.
        traced: the initializers that follow from the others, by their names.
    """

    fixed: frozenset[str]
    traced: Mapping[str, Traced]

    def rebuild(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
        """The initializers that other weights give; None where they do not fit the graph."""
        rebuilt: dict[str, np.ndarray] = {}
        for name, tensor in self.traced.items():
            array = tensor.rebuild(weights)
            if array is None:
                return None
            rebuilt[name] = array
        return rebuilt


def untrace(model: ir.Model) -> Swap | None:
    """Put plain tensors in the places of the traced initializers of a gradient graph; None where there are none."""
    traced: dict[str, Traced] = {}
    for name, value in model.graph.initializers.items():
        tensor: Any = value.const_value
        if isinstance(tensor, Traced):
            traced[name] = tensor
        elif isinstance(tensor, ir.LazyTensor):
            tensor.numpy()  # what it reads is noted as fixed
    if not traced:
        return None
    fixed = frozenset(next(iter(traced.values())).fixed)
    for name, tensor in traced.items():
        model.graph.initializers[name].const_value = tensor.raw()
    return Swap(fixed, traced)
