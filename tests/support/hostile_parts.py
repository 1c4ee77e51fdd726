"""Building blocks of hostile models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.support import models

HUGE = 1 << 60


def changed(change: Callable[[onnx.ModelProto], object], **kind: Any) -> onnx.ModelProto:
    """A valid classifier with a change applied."""
    model = models.conv_net(**kind)
    change(model)
    return model


def through(build: Callable[[models.Net, str], str], **options: Any) -> onnx.ModelProto:
    """A classifier of (N, 3, 8, 8) images that first go through the nodes that `build` adds."""
    net = models.Net(**options)
    x = build(net, net.input("image", ["N", 3, 8, 8]))
    models.add_head(net, models.add_linear(net, models.add_features(net, x, 3), 8, 4), 4, "logits")
    return net.model()


def times(build: Callable[[models.Net], str], **options: Any) -> onnx.ModelProto:
    """A classifier whose image is multiplied by the mean of the value that `build` computes from constants."""
    return through(lambda net, x: net("Mul", x, net("ReduceMean", build(net), keepdims=0)), **options)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def attribute(op_type: str, name: str, value: Any) -> onnx.ModelProto:
    """A valid classifier with another attribute on one of its nodes."""

    def change(model: onnx.ModelProto) -> None:
        node = next(node for node in model.graph.node if node.op_type == op_type)
        for old in [a for a in node.attribute if a.name == name]:
            node.attribute.remove(old)
        node.attribute.append(helper.make_attribute(name, value))

    return changed(change, pool="MaxPool")


def tensor(model: onnx.ModelProto, index: int = 0) -> TensorProto:
    return model.graph.initializer[index]


def raw(name: str, dims: Sequence[int], data: bytes, kind: int = TensorProto.FLOAT) -> TensorProto:
    return TensorProto(name=name, dims=dims, data_type=kind, raw_data=data)


def written(folder: Path, model: onnx.ModelProto) -> Path:
    """Write the model to a file; onnx itself refuses to write some of these."""
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def bad_utf8(model: onnx.ModelProto, text: bytes) -> bytes:
    """The file with a string in it replaced by bytes of the same length that are not valid UTF-8."""
    data = model.SerializeToString()
    assert text in data
    return data.replace(text, b"\xff" * len(text))


def used(net: models.Net, x: str, initializer: TensorProto) -> str:
    net.initializers.append(initializer)
    return net("Mul", x, initializer.name)


def function(
    name: str, nodes: Sequence[onnx.NodeProto], inputs: Sequence[str] = ("x",), outputs: Sequence[str] = ("y",)
) -> onnx.FunctionProto:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, inputs, outputs, nodes, imports)


def call(name: str, x: str, y: str) -> onnx.NodeProto:
    return helper.make_node(name, [x], [y], domain="local")


def with_functions(*functions: onnx.FunctionProto, inputs: int = 1) -> onnx.ModelProto:
    """A classifier that calls the first of these functions on its image."""
    model = through(lambda net, x: net(functions[0].name, *[x] * inputs, domain="local"))
    model.functions.extend(functions)
    return model


def value(name: str, kind: int = TensorProto.FLOAT, shape: Sequence[int | str] | None = ()) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)
