"""Malicious model files, one function or line each. All are small and made in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support import fleet, models
from tests.support.hostile_parts import (
    HUGE,
    call,
    function,
    ints,
    raw,
    tensor,
    through,
    times,
    used,
    value,
    with_functions,
)


def twice_computed(model: onnx.ModelProto) -> None:
    model.graph.node[2].output[0] = model.graph.node[0].output[0]


def own_input(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[0] = model.graph.node[1].output[0]


def cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = model.graph.node[3].output[0]


def overwritten_input(model: onnx.ModelProto) -> None:
    model.graph.node[1].output[0] = "image"
    model.graph.node[2].input[0] = "image"


def same_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(tensor(model))


def same_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(model.graph.input[0])


def same_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(model.graph.output[0])


def nameless_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].name = ""


def nameless_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = ""
    model.graph.node[0].input[0] = ""


def nameless_output(model: onnx.ModelProto) -> None:
    model.graph.node[0].output[0] = ""
    model.graph.node[1].input[0] = ""


def constant_output(model: onnx.ModelProto) -> None:
    """The output is a constant of the file: probabilities."""
    model.graph.initializer.append(numpy_helper.from_array(np.full((1, 5), 0.2, np.float32), "always"))
    model.graph.output[0].name = "always"
    model.graph.output[0].type.tensor_type.ClearField("shape")


def missing_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "nothing"


def typeless_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].ClearField("type")


def sequence_input(model: onnx.ModelProto) -> None:
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, [1, 3, 8, 8])
    model.graph.input[0].CopyFrom(helper.make_value_info("image", helper.make_sequence_type_proto(kind)))


def image_of(*dims: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].CopyFrom(value("image", shape=dims))

    return change


def dangerous_names(model: onnx.ModelProto) -> None:
    """A node whose name contains a line break and a clear-screen sequence, and whose input does not exist."""
    model.graph.node[1].name = "relu\n\x1b[2Jerror: all is well\r"
    model.graph.node[1].input[0] = "x\x1b]0;title\x07"


def endless_name(model: onnx.ModelProto) -> None:
    model.graph.node[1].name = "n" * 5_000_000
    model.graph.node[1].input[0] = "nowhere"


def twice_imported(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("", 12))


def opset(version: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = version

    return change


def no_opset(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


def no_operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = ""


def no_inputs(model: onnx.ModelProto) -> None:
    del model.graph.node[0].input[:]


def many_inputs(model: onnx.ModelProto) -> None:
    model.graph.node[1].input.extend(["image"] * 50)


def many_outputs(model: onnx.ModelProto) -> None:
    model.graph.node[1].output.extend(f"more{i}" for i in range(50))


def only_optional(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[0] = ""


def sparse_weights(model: onnx.ModelProto) -> None:
    """2^60 elements, of which one is given."""
    weights = model.graph.initializer[0]
    values = numpy_helper.from_array(np.ones(1, np.float32), weights.name)
    indices = numpy_helper.from_array(ints(HUGE - 1), "indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [HUGE]))
    model.graph.initializer.remove(weights)


def sparse_constant() -> onnx.ModelProto:
    values = numpy_helper.from_array(np.ones(1, np.float32), "values")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(ints(0), "indices"), [HUGE])
    return times(lambda net: net("Constant", sparse_value=sparse))


def declares(*dims: int, data: bytes = b"", kind: int = TensorProto.FLOAT) -> Callable[[onnx.ModelProto], None]:
    """The first weights declare a shape or type that does not match their data."""

    def change(model: onnx.ModelProto) -> None:
        name = tensor(model).name
        tensor(model).CopyFrom(raw(name, dims, data, kind))

    return change


def few_numbers(model: onnx.ModelProto) -> None:
    """Fewer numbers in a typed field than declared."""
    name = tensor(model).name
    tensor(model).CopyFrom(TensorProto(name=name, dims=[6, 3, 3, 3], data_type=TensorProto.FLOAT, float_data=[1.0]))


def texts() -> onnx.ModelProto:
    return through(lambda net, x: used(net, x, TensorProto(name="t", dims=[1 << 50], data_type=TensorProto.STRING)))


def bomb(op_type: str, *inputs: Any, **attributes: Any) -> onnx.ModelProto:
    """A classifier that depends on the result of a node with small constants as inputs."""
    opset = attributes.pop("opset", 17)

    def build(net: models.Net) -> str:
        made = net(op_type, *(net.constant(np.asarray(array)) for array in inputs), **attributes)
        return net("Cast", made, to=TensorProto.FLOAT)

    return times(build, opset=opset)


def pad_bomb() -> onnx.ModelProto:
    return through(lambda net, x: net("Pad", x, net.constant(ints(0, 0, 0, 0, 0, 0, 1 << 40, 1 << 40))))


def resize_bomb() -> onnx.ModelProto:
    scales = np.array([1, 1, 1e9, 1e9], np.float32)
    return through(lambda net, x: net("Resize", x, "", net.constant(scales), mode="nearest"))


def wide_head() -> onnx.ModelProto:
    """So many classes that no machine has the memory for them."""
    net = models.Net()
    features = models.add_features(net, net.input("image", ["N", 3, 8, 8]), 3)
    logits = net("Expand", net("ReduceMean", features, axes=[1]), net.constant(ints(1, 1 << 45)), out="output")
    net.output(logits, ["N", 1 << 45])
    return net.model()


def folded_twice() -> onnx.ModelProto:
    """Constants that grow by a factor of a thousand per node."""

    def build(net: models.Net) -> str:
        x = net.constant(np.ones((1,), np.float32))
        for i in range(8):
            x = net("Unsqueeze", x, net.constant(ints(0)))
            x = net("Tile", x, net.constant(ints(1000, *[1] * (i + 1))))
        return x

    return times(build)


def recursive() -> onnx.ModelProto:
    return with_functions(function("f", [call("f", "x", "y")]))


def mutually_recursive() -> onnx.ModelProto:
    return with_functions(function("f", [call("g", "x", "y")]), function("g", [call("f", "x", "y")]))


def unfinished_function() -> onnx.ModelProto:
    return with_functions(function("f", [helper.make_node("Relu", ["x"], ["z"])]))


def same_function() -> onnx.ModelProto:
    relu = function("f", [helper.make_node("Relu", ["x"], ["y"])])
    return with_functions(relu, relu)


def cyclic_function() -> onnx.ModelProto:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    return with_functions(function("f", nodes, outputs=["b"]))


def crowded_function() -> onnx.ModelProto:
    return with_functions(function("f", [helper.make_node("Relu", ["x"], ["y"])]), inputs=3)


def no_branches() -> onnx.ModelProto:
    return through(lambda net, x: net("If", net.constant(np.array(True))))


def no_body() -> onnx.ModelProto:
    return through(lambda net, x: net("Loop", net.constant(ints(3)), "", x))


def scattered_by_less_than_nothing() -> onnx.ModelProto:
    """Crashes the shape inference of GatherND, which the gradient of ScatterND uses."""
    net = models.Net(opset=18)
    net.input("indices", [2, 1, -2], np.int64)
    x = net("ScatterND", net.input("image", ["N", 3, 8, 8]), "indices", "image", reduction="mul")
    models.add_head(net, models.add_linear(net, models.add_features(net, x, 3), 8, 4), 4, "logits")
    return net.model()


def memory_bomb() -> onnx.ModelProto:
    return fleet.huge()
