"""Constants that remember how they were computed from a model's weights, so that the weights can be replaced.

One gradient graph serves many snapshots of a network. Its initializers are the network's weights and constants folded
from them (a flipped kernel, a bias fused with a normalization). `trace` marks the weights; constants folded from traced
ones are traced too. Any other read of a traced constant may affect the structure of the graph, so the weights behind it
are recorded as fixed: the graph is then valid only for snapshots with the same values there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

Compute = Callable[..., np.ndarray | None]


class Traced(ir.LazyTensor):
    """A floating-point constant that knows which weights it was computed from.

    Attributes:
        weights: names of the initializers it was computed from.
        fixed: the set that collects the names of weights whose values were read.
        rebuild: computes the constant from other weights; returns None if that is not possible.
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
        """The array, for constant folding only: this read does not fix the weights."""
        return self.raw().numpy()


def trace(model: ir.Model) -> set[str]:
    """Trace the floating-point initializers of a model, in place; return the set that will collect the fixed ones."""
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
    """The array of a constant, for a computation that `derive` can repeat with other weights."""
    return tensor.array_for_folding() if isinstance(tensor, Traced) else tensor.numpy()


@contextlib.contextmanager
def evaluation(graph: ir.Graph) -> Iterator[None]:
    """Within the block, evaluating the graph reads its constants without recording the weights as fixed."""
    tensors = (value.const_value for value in graph.initializers.values())
    fixed_sets = {id(tensor.fixed): tensor.fixed for tensor in tensors if isinstance(tensor, Traced)}
    before = {key: set(fixed) for key, fixed in fixed_sets.items()}
    try:
        yield
    finally:
        for key, fixed in fixed_sets.items():
            fixed.intersection_update(before[key])


def derive(
    compute: Compute, tensors: Sequence[ir.TensorProtocol | None], *, dtype: ir.DataType, shape: Sequence[int]
) -> ir.TensorProtocol:
    """The constant `compute(*arrays)`, computed when first read; it is traced if one of the `tensors` is."""
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
    """How to compute the initializers of a gradient graph from a model's weights.

    Attributes:
        fixed: names of the weights whose values must not change.
        traced: the initializers that depend on the other weights, by name.
    """

    fixed: frozenset[str]
    traced: Mapping[str, Traced]

    def rebuild(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
        """The initializers for other weights; None if these do not fit the graph."""
        rebuilt: dict[str, np.ndarray] = {}
        for name, tensor in self.traced.items():
            array = tensor.rebuild(weights)
            if array is None:
                return None
            rebuilt[name] = array
        return rebuilt


def untrace(model: ir.Model) -> Swap | None:
    """Replace the traced initializers of a gradient graph by plain tensors; return None if there are none."""
    traced: dict[str, Traced] = {}
    for name, value in model.graph.initializers.items():
        tensor: Any = value.const_value
        if isinstance(tensor, Traced):
            traced[name] = tensor
        elif isinstance(tensor, ir.LazyTensor):
            tensor.numpy()  # records the weights it reads as fixed
    if not traced:
        return None
    fixed = frozenset(next(iter(traced.values())).fixed)
    for name, tensor in traced.items():
        model.graph.initializers[name].const_value = tensor.raw()
    return Swap(fixed, traced)
