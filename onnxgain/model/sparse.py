"""Converts the sparse tensors of a model to dense ones, after `onnxgain.model.screening` has checked them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from onnxgain.errors import ModelError
from onnxgain.model.screening import LARGEST_SPARSE

if TYPE_CHECKING:
    import onnx


def write_out_sparse(model: onnx.ModelProto) -> None:
    """Replace sparse initializers and constants by dense ones, in place, in all graphs and functions.

    Raises:
        ModelError: they are too large in total.
        ValueError: indices lie outside the shape.
    """
    graphs = [graph for graph in _graphs(model.graph) if graph.sparse_initializer]
    constants = list(_constants(model))
    tensors = itertools.chain(*(graph.sparse_initializer for graph in graphs), (a.sparse_tensor for a in constants))
    size = sum(math.prod(sparse.dims) for sparse in tensors)
    if size > LARGEST_SPARSE:
        raise ModelError(
            f"its sparse weights declare {size} elements",
            remedy=f"export the model without sparse weights; up to {LARGEST_SPARSE} elements can be read",
        )
    for graph in graphs:
        for sparse in graph.sparse_initializer:
            graph.initializer.append(_dense(sparse, sparse.values.name))
        graph.ClearField("sparse_initializer")
    for attribute in constants:
        value = _dense(attribute.sparse_tensor, "")
        attribute.Clear()
        attribute.name, attribute.type = "value", type(attribute).TENSOR
        attribute.t.CopyFrom(value)


def _constants(model: onnx.ModelProto) -> Iterator[onnx.AttributeProto]:
    """The attributes of Constant nodes that hold a sparse tensor, in all graphs and functions."""
    for owner in (model.graph, *model.functions):
        for graph in _graphs(owner):
            for node in graph.node:
                for attribute in node.attribute if node.op_type == "Constant" else ():
                    if attribute.name == "sparse_value" and attribute.HasField("sparse_tensor"):
                        yield attribute


def _graphs(owner: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.GraphProto]:
    """A graph or function and the subgraphs of its nodes."""
    waiting: list[onnx.GraphProto] = [owner]  # type: ignore[list-item, unused-ignore]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == type(attribute).GRAPH:
                    waiting.append(attribute.g)
                elif attribute.type == type(attribute).GRAPHS:
                    waiting += attribute.graphs


def _dense(sparse: onnx.SparseTensorProto, name: str) -> onnx.TensorProto:
    import onnx.numpy_helper as helper

    values, indices = helper.to_array(sparse.values), helper.to_array(sparse.indices).astype(np.int64)
    shape = tuple(sparse.dims)
    flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), shape)
    dense = np.zeros(int(np.prod(shape)), values.dtype)
    if len(flat) != len(values) or (len(flat) and not 0 <= flat.min() <= flat.max() < dense.size):
        raise ValueError(f"the sparse weights {sparse.values.name!r} have indices outside their shape")
    dense[flat] = values
    return helper.from_array(dense.reshape(shape), name)
