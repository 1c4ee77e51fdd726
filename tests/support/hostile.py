"""Model files made to do harm, one function or line each. Every one is small and made in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support import fleet, models

HUGE = 1 << 60


# ------------------------------------------------------------------------------------------- ways to build models
def changed(change: Callable[[onnx.ModelProto], object], **kind: Any) -> onnx.ModelProto:
    """A sound classifier with something done to it."""
    model = models.conv_net(**kind)
    change(model)
    return model


def through(build: Callable[[models.Net, str], str], **options: Any) -> onnx.ModelProto:
    """A classifier of (N, 3, 8, 8) images that go through what `build` adds first."""
    net = models.Net(**options)
    x = build(net, net.input("image", ["N", 3, 8, 8]))
    models.add_head(net, models.add_linear(net, models.add_features(net, x, 3), 8, 4), 4, "logits")
    return net.model()


def times(build: Callable[[models.Net], str], **options: Any) -> onnx.ModelProto:
    """A classifier whose image is multiplied by the mean of what `build` makes of constants."""
    return through(lambda net, x: net("Mul", x, net("ReduceMean", build(net), keepdims=0)), **options)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def attribute(op_type: str, name: str, value: Any) -> onnx.ModelProto:
    """A sound classifier, one of whose nodes has another attribute."""

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
    """The model in a file; onnx itself refuses to write some of these."""
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def bad_utf8(model: onnx.ModelProto, text: bytes) -> bytes:
    """The file with a text in it replaced by bytes of the same length that are no UTF-8."""
    data = model.SerializeToString()
    assert text in data
    return data.replace(text, b"\xff" * len(text))


# --------------------------------------------------------------------------------------------------- external data
def external(folder: Path, **entries: str | None) -> Path:
    """A classifier whose first weights lie beside it, with some of what says where changed."""
    path = folder / "net.onnx"
    options = {"save_as_external_data": True, "size_threshold": 0, "location": "net.data"}
    models.save(models.conv_net(), path, **options)
    model = onnx.load(path, load_external_data=False)
    place(tensor(model), **entries)
    path.write_bytes(model.SerializeToString())
    return path


def place(target: TensorProto, **entries: str | None) -> None:
    """Say where the external data of a tensor lie."""
    old = {entry.key: entry.value for entry in target.external_data}
    del target.external_data[:]
    target.data_location = TensorProto.EXTERNAL
    for key, value in (old | entries).items():
        if value is not None:
            target.external_data.add(key=key, value=value)


def secret(folder: Path) -> Path:
    """A file that a model has no business with: in the folder above the model's."""
    file = folder / "secret.bin"
    file.write_bytes(os.urandom(5000))
    inner = folder / "model"
    inner.mkdir()
    return inner


def linked_file(folder: Path) -> Path:
    inner = secret(folder)
    path = external(inner, location="link.data")
    (inner / "link.data").symlink_to("../secret.bin")
    return path


def linked_folder(folder: Path) -> Path:
    inner = secret(folder)
    path = external(inner, location="sub/secret.bin")
    (inner / "sub").symlink_to("..")
    return path


def linked_device(folder: Path) -> Path:
    (folder / "zero").symlink_to("/dev/zero")
    return external(folder, location="zero")


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return external(folder, location="pipe")


def data_folder(folder: Path) -> Path:
    (folder / "data").mkdir()
    return external(folder, location="data")


def external_constant(folder: Path) -> Path:
    """The value of a Constant node lies outside."""
    value = raw("c", [1], b"")
    place(value, location="../secret.bin")
    return written(folder, through(lambda net, x: net("Mul", x, net("Constant", value=value, out="c"))))


def external_in_branch(folder: Path) -> Path:
    value = raw("w", [1], b"")
    place(value, location="/etc/hostname")
    branch = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])], "branch", [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])], [value],
    )  # fmt: skip

    def build(net: models.Net, x: str) -> str:
        return net("Mul", x, net("If", net.constant(np.array(True)), then_branch=branch, else_branch=branch))

    return written(folder, through(build))


def external_in_function(folder: Path) -> Path:
    value = raw("c", [1], b"")
    place(value, location="../secret.bin")
    nodes = [helper.make_node("Constant", [], ["c"], value=value), helper.make_node("Mul", ["x", "c"], ["y"])]
    return written(folder, with_functions(function("f", nodes)))


def external_texts(folder: Path) -> Path:
    value = TensorProto(name="c", dims=[1 << 40], data_type=TensorProto.STRING)
    place(value, location="net.data")
    return written(folder, through(lambda net, x: used(net, x, value)))


def used(net: models.Net, x: str, initializer: TensorProto) -> str:
    net.initializers.append(initializer)
    return net("Mul", x, initializer.name)


# ------------------------------------------------------------------------------------------- functions and depth
def function(
    name: str, nodes: Sequence[onnx.NodeProto], inputs: Sequence[str] = ("x",), outputs: Sequence[str] = ("y",)
) -> onnx.FunctionProto:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, inputs, outputs, nodes, imports)


def call(name: str, x: str, y: str) -> onnx.NodeProto:
    return helper.make_node(name, [x], [y], domain="local")


def with_functions(*functions: onnx.FunctionProto, inputs: int = 1) -> onnx.ModelProto:
    """A classifier that calls the first of these on its image."""
    model = through(lambda net, x: net(functions[0].name, *[x] * inputs, domain="local"))
    model.functions.extend(functions)
    return model


def laughs(levels: int) -> onnx.ModelProto:
    """Functions that each call the next twice: 2^levels nodes when written out."""
    last = function("f0", [helper.make_node("Relu", ["x"], ["y"])])
    rest = [function(f"f{i}", [call(f"f{i - 1}", "x", "t"), call(f"f{i - 1}", "t", "y")]) for i in range(levels, 0, -1)]
    return with_functions(*rest, last)


def silent_laughs(levels: int) -> onnx.ModelProto:
    """The same of functions that compute nothing: what is written out stays small, walking it does not."""
    last = function("f0", [helper.make_node("Identity", ["x"], ["y"])])
    rest = [function(f"f{i}", [call(f"f{i - 1}", "x", "t"), call(f"f{i - 1}", "t", "y")]) for i in range(levels, 0, -1)]
    return with_functions(*rest, last)


def value(name: str, kind: int = TensorProto.FLOAT, shape: Sequence[int | str] | None = ()) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def loop_body(nodes: Sequence[onnx.NodeProto], shape: Sequence[int | str] | None) -> onnx.GraphProto:
    """The body of a Loop with one state, v before and w after a trip."""
    return helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), *nodes],
        "body",
        [value("i", TensorProto.INT64), value("go", TensorProto.BOOL), value("v", shape=shape)],
        [value("on", TensorProto.BOOL), value("w", shape=shape)],
    )


IMAGE = ("N", 3, 8, 8)


def nested_loops(levels: int, trips: int) -> onnx.ModelProto:
    """Loops in loops, each of few trips."""
    nodes = [helper.make_node("Relu", ["v"], ["w"])]
    for level in range(levels - 1):
        body = loop_body(nodes, IMAGE)
        constant = helper.make_node("Constant", [], [f"trips{level}"], value_ints=[trips])
        nodes = [constant, helper.make_node("Loop", [f"trips{level}", "", "v"], ["w"], body=body)]
    return through(lambda net, x: net("Loop", net.constant(ints(trips)), "", x, body=loop_body(nodes, IMAGE)))


def endless(condition: bool) -> onnx.ModelProto:
    """A Loop of 2^62 trips on the way of the image, or one without a number of trips whose condition stays true."""
    body = loop_body([helper.make_node("Tanh", ["v"], ["w"])], IMAGE)

    def build(net: models.Net, x: str) -> str:
        if condition:
            return net("Loop", "", net.constant(np.array(True)), x, body=body)
        return net("Loop", net.constant(ints(1 << 62)), "", x, body=body)

    return through(build)


def scan_of(count: int) -> onnx.ModelProto:
    """A Scan over as many inputs as it says, which has one."""
    body = helper.make_graph(
        [helper.make_node("Relu", ["v"], ["w"])], "body", [value("v", shape=IMAGE[1:])], [value("w", shape=IMAGE[1:])]
    )
    return through(lambda net, x: net("Scan", x, body=body, num_scan_inputs=count))


def split_in_fewer(net: models.Net, x: str) -> str:
    """A Split of four parts with five outputs."""
    net.nodes.append(helper.make_node("Split", [x], [f"part{i}" for i in range(5)], "/split", axis=2, num_outputs=4))
    return "part0"


def infinite_scale(net: models.Net, x: str) -> str:
    """The image times infinity and then times zero."""
    return net("Mul", net("Mul", x, net.constant(np.array(np.inf))), net.constant(np.array(0.0)))


def nested_branches(levels: int) -> onnx.ModelProto:
    """If in If in If, its condition known only when it runs."""
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["y0"])], "g", [], [value("y0", shape=IMAGE)])
    for level in range(1, levels):
        node = helper.make_node("If", ["go"], [f"y{level}"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "g", [], [value(f"y{level}", shape=IMAGE)])

    def build(net: models.Net, x: str) -> str:
        positive = net("Greater", net("ReduceMax", x, keepdims=0), net.constant(np.array(0.0)), out="go")
        return net("If", positive, then_branch=graph, else_branch=graph)

    return through(build)


def nested_deeply(levels: int) -> bytes:
    """A file whose graphs are nested too deeply for protobuf, written by hand as no library would."""
    graph = b""
    for _ in range(levels):
        attribute = _field(1, b"body") + _field(6, graph) + b"\xa0\x01\x05"
        graph = _field(1, _field(4, b"If") + _field(5, attribute))
    return b"\x08\x08" + _field(7, graph)


def _field(number: int, content: bytes) -> bytes:
    length, size = b"", len(content)
    while size >= 128:
        length += bytes([size % 128 + 128])
        size //= 128
    return bytes([number * 8 + 2]) + length + bytes([size]) + content


def chain(length: int) -> onnx.ModelProto:
    """One node after the other."""

    def build(net: models.Net, x: str) -> str:
        for _ in range(length):
            x = net("Neg", x)
        return x

    return through(build)


def scattered(length: int) -> onnx.ModelProto:
    """The same with the nodes in reverse order."""
    model = chain(length)
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


# --------------------------------------------------------------------------------------------------------- names
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
    """A node's name holds a line break and what clears a terminal; its input does not exist."""
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
    """2^60 elements, one of them given."""
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
    """The first weights declare another shape or type than what there is of them."""

    def change(model: onnx.ModelProto) -> None:
        name = tensor(model).name
        tensor(model).CopyFrom(raw(name, dims, data, kind))

    return change


def few_numbers(model: onnx.ModelProto) -> None:
    """Numbers in a field of their own, fewer than declared."""
    name = tensor(model).name
    tensor(model).CopyFrom(TensorProto(name=name, dims=[6, 3, 3, 3], data_type=TensorProto.FLOAT, float_data=[1.0]))


def texts() -> onnx.ModelProto:
    return through(lambda net, x: used(net, x, TensorProto(name="t", dims=[1 << 50], data_type=TensorProto.STRING)))


def bomb(op_type: str, *inputs: Any, **attributes: Any) -> onnx.ModelProto:
    """A classifier that depends on what a node makes of small constants."""
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
    """So many classes that nobody has the memory for them."""
    net = models.Net()
    features = models.add_features(net, net.input("image", ["N", 3, 8, 8]), 3)
    logits = net("Expand", net("ReduceMean", features, axes=[1]), net.constant(ints(1, 1 << 45)), out="output")
    net.output(logits, ["N", 1 << 45])
    return net.model()


def folded_twice() -> onnx.ModelProto:
    """Constants that grow a thousandfold a node."""

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
    """The shape inference of GatherND, which is in the gradient of ScatterND, does not survive it."""
    net = models.Net(opset=18)
    net.input("indices", [2, 1, -2], np.int64)
    x = net("ScatterND", net.input("image", ["N", 3, 8, 8]), "indices", "image", reduction="mul")
    models.add_head(net, models.add_linear(net, models.add_features(net, x, 3), 8, 4), 4, "logits")
    return net.model()


def memory_bomb() -> onnx.ModelProto:
    return fleet.huge()
