"""Models with deep, endless or huge functions, branches and loops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.support import models
from tests.support.hostile_parts import (
    call,
    function,
    ints,
    through,
    value,
    with_functions,
)

IMAGE = ("N", 3, 8, 8)


def laughs(levels: int) -> onnx.ModelProto:
    """Functions that each call the next twice: 2^levels nodes when inlined."""
    last = function("f0", [helper.make_node("Relu", ["x"], ["y"])])
    rest = [function(f"f{i}", [call(f"f{i - 1}", "x", "t"), call(f"f{i - 1}", "t", "y")]) for i in range(levels, 0, -1)]
    return with_functions(*rest, last)


def silent_laughs(levels: int) -> onnx.ModelProto:
    """The same with functions that compute nothing: the inlined graph is small, but the call tree is not."""
    last = function("f0", [helper.make_node("Identity", ["x"], ["y"])])
    rest = [function(f"f{i}", [call(f"f{i - 1}", "x", "t"), call(f"f{i - 1}", "t", "y")]) for i in range(levels, 0, -1)]
    return with_functions(*rest, last)


def loop_body(nodes: Sequence[onnx.NodeProto], shape: Sequence[int | str] | None) -> onnx.GraphProto:
    """The body of a Loop with one state, v before and w after an iteration."""
    return helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), *nodes],
        "body",
        [value("i", TensorProto.INT64), value("go", TensorProto.BOOL), value("v", shape=shape)],
        [value("on", TensorProto.BOOL), value("w", shape=shape)],
    )


def nested_loops(levels: int, trips: int) -> onnx.ModelProto:
    """Nested loops with few trips each."""
    nodes = [helper.make_node("Relu", ["v"], ["w"])]
    for level in range(levels - 1):
        body = loop_body(nodes, IMAGE)
        constant = helper.make_node("Constant", [], [f"trips{level}"], value_ints=[trips])
        nodes = [constant, helper.make_node("Loop", [f"trips{level}", "", "v"], ["w"], body=body)]
    return through(lambda net, x: net("Loop", net.constant(ints(trips)), "", x, body=loop_body(nodes, IMAGE)))


def endless(condition: bool) -> onnx.ModelProto:
    """A Loop over the image with 2^62 trips, or one without a trip count whose condition stays true."""
    body = loop_body([helper.make_node("Tanh", ["v"], ["w"])], IMAGE)

    def build(net: models.Net, x: str) -> str:
        if condition:
            return net("Loop", "", net.constant(np.array(True)), x, body=body)
        return net("Loop", net.constant(ints(1 << 62)), "", x, body=body)

    return through(build)


def multiplied_trips() -> onnx.ModelProto:
    """A Loop whose trip count is computed in the graph, 2^20 times 2^30."""
    body = loop_body([helper.make_node("Tanh", ["v"], ["w"])], IMAGE)
    return through(
        lambda net, x: net("Loop", net("Mul", *(net.constant(ints(1 << n)) for n in (20, 30))), "", x, body=body)
    )


def counting(bound: int, *, state: bool) -> onnx.ModelProto:
    """A Loop that ends when a counter, the iteration number or one in its state, reaches a bound."""
    counter = "k" if state else "i"
    nodes = [
        helper.make_node("Constant", [], ["bound"], value_int=bound),
        helper.make_node("Constant", [], ["one"], value_int=1),
        helper.make_node("Add", [counter, "one"], ["next"]),
        helper.make_node("Less", ["next", "bound"], ["on"]),
        helper.make_node("Tanh", ["v"], ["w"]),
    ]
    inputs = [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, [])]
    outputs = [value("on", TensorProto.BOOL, [])]
    if state:
        inputs.append(value("k", TensorProto.INT64, []))
        outputs.append(value("next", TensorProto.INT64, []))
    inputs.append(value("v", shape=IMAGE))
    outputs.append(value("w", shape=IMAGE))
    body = helper.make_graph(nodes, "body", inputs, outputs)

    def build(net: models.Net, x: str) -> str:
        if not state:
            return net("Loop", "", net.constant(np.array(True)), x, body=body)
        net.nodes.append(
            helper.make_node(
                "Loop", ["", net.constant(np.array(True)), net.constant(np.array(0)), x], ["count", "looped"],
                "/loop_0", body=body,
            )
        )  # fmt: skip
        return "looped"

    return through(build)


def long_scan(length: int) -> onnx.ModelProto:
    """A Scan over a constant with this many zeros, which does not depend on the image."""
    body = helper.make_graph(
        [helper.make_node("Add", ["v", "item"], ["w"])],
        "body",
        [value("v", shape=IMAGE), value("item", shape=[])],
        [value("w", shape=IMAGE)],
    )

    def build(net: models.Net, x: str) -> str:
        zeros = net("ConstantOfShape", net.constant(ints(length)))
        return net("Scan", x, zeros, body=body, num_scan_inputs=1)

    return through(build)


def scan_of(count: int) -> onnx.ModelProto:
    """A Scan that declares this many scan inputs but has only one."""
    body = helper.make_graph(
        [helper.make_node("Relu", ["v"], ["w"])], "body", [value("v", shape=IMAGE[1:])], [value("w", shape=IMAGE[1:])]
    )
    return through(lambda net, x: net("Scan", x, body=body, num_scan_inputs=count))


def split_in_fewer(net: models.Net, x: str) -> str:
    """A Split into four parts with five outputs."""
    net.nodes.append(helper.make_node("Split", [x], [f"part{i}" for i in range(5)], "/split", axis=2, num_outputs=4))
    return "part0"


def infinite_scale(net: models.Net, x: str) -> str:
    """The image times infinity and then times zero."""
    return net("Mul", net("Mul", x, net.constant(np.array(np.inf))), net.constant(np.array(0.0)))


def nested_branches(levels: int) -> onnx.ModelProto:
    """Nested Ifs whose conditions are known only at run time."""
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["y0"])], "g", [], [value("y0", shape=IMAGE)])
    for level in range(1, levels):
        node = helper.make_node("If", ["go"], [f"y{level}"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "g", [], [value(f"y{level}", shape=IMAGE)])

    def build(net: models.Net, x: str) -> str:
        positive = net("Greater", net("ReduceMax", x, keepdims=0), net.constant(np.array(0.0)), out="go")
        return net("If", positive, then_branch=graph, else_branch=graph)

    return through(build)


def nested_deeply(levels: int) -> bytes:
    """A file with graphs nested too deeply for protobuf, serialized by hand because no library would write it."""
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
    """A long chain of nodes."""

    def build(net: models.Net, x: str) -> str:
        for _ in range(length):
            x = net("Neg", x)
        return x

    return through(build)


def scattered(length: int) -> onnx.ModelProto:
    """The same with the nodes listed in reverse order."""
    model = chain(length)
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model
