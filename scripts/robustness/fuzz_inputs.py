"""The inputs of the fuzzer: models of the tests and of ONNX, changed in random steps that depend on a number."""

from __future__ import annotations

import contextlib
import functools
import random
import warnings
from collections.abc import Callable

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from scripts import ROOT

TARGETS = ("inspect", "inspect", "gradient", "score")
INTEGERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    -2,
    99,
    255,
    -100,
    1 << 16,
    1 << 31,
    (1 << 31) - 1,
    1 << 40,
    1 << 62,
    (1 << 63) - 1,
    -(1 << 63),
)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-30, 1e38, -1e38, float("nan"), float("inf"), float("-inf"), 0.5)
TEXTS = ("", "NOTSET", "SAME_UPPER", "linear", "reflect", "\n", "x" * 300, "nearest", "ij,jk->ik", "\0", "é")


@functools.cache
def classifiers() -> list[tuple[str, onnx.ModelProto]]:
    """The models for inspect, gradient and score, in a fixed order."""
    from tests.support import models

    found = [(path.name, onnx.load(path)) for path in sorted((ROOT / "models").glob("*.onnx"))]
    small = {
        "conv": models.conv_net(), "softmax": models.conv_net(head="softmax"), "exp": models.conv_net(head="exp"),
        "max pool": models.conv_net(pool="MaxPool"), "average pool": models.conv_net(pool="AveragePool"),
        "NHWC": models.conv_net(layout="NHWC"), "uint8": models.conv_net(input_dtype=np.uint8),
        "normalized": models.conv_net(normalize=(1 / 255, 0.5, 0.2)), "float16": models.conv_net(dtype=np.float16),
        "fixed": models.conv_net(batch=2), "heads": models.several_heads(["a", "b"], [4, 7]),
        "extra": models.with_inputs(factor=([2], np.float32)), "flat": models.mlp(), "loop": looping(),
        "dead": models.dead_relu(),
    }  # fmt: skip
    return found + list(small.items())


def looping() -> onnx.ModelProto:
    """A classifier with a Loop that is too long to be unrolled."""
    from tests.support import fleet

    model = fleet.endless()
    trips = model.graph.initializer[0]
    trips.CopyFrom(numpy_helper.from_array(np.array(70, np.int64), trips.name))
    return model


@functools.cache
def node_tests() -> list[tuple[str, onnx.ModelProto]]:
    """ONNX's backend node tests, in a fixed order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    return sorted(((case.name, case.model) for case in cases), key=lambda item: item[0])


class Mutator:
    """Changes a model in place, with a random generator."""

    def __init__(self, model: onnx.ModelProto, rng: random.Random) -> None:
        self.model = model
        self.rng = rng
        self.graphs = [model.graph]
        for graph in self.graphs:
            for node in graph.node:
                self.graphs += [a.g for a in node.attribute if a.type == AttributeProto.GRAPH]

    def step(self) -> str:
        """Apply one change and return its name."""
        change = self.rng.choice(CHANGES)
        graph = self.rng.choice(self.graphs)
        with contextlib.suppress(IndexError, ValueError, TypeError):  # there is nothing of that kind to change
            change(self, graph)
        return change.__name__

    def names(self, graph: onnx.GraphProto) -> list[str]:
        """Names of values that nodes can be rewired to."""
        made = [name for node in graph.node for name in node.output]
        return [*made, *(i.name for i in graph.input), *(t.name for t in graph.initializer), "", "nowhere"]

    def remove_node(self, graph: onnx.GraphProto) -> None:
        del graph.node[self.rng.randrange(len(graph.node))]

    def bypass_node(self, graph: onnx.GraphProto) -> None:
        node = self.rng.choice(graph.node)
        old, new = node.output[0], node.input[0]
        graph.node.remove(node)
        for other in graph.node:
            for i, name in enumerate(other.input):
                if name == old:
                    other.input[i] = new

    def double_node(self, graph: onnx.GraphProto) -> None:
        node = type(graph.node[0])()
        node.CopyFrom(self.rng.choice(graph.node))
        if self.rng.random() < 0.7:
            for i, name in enumerate(node.output):
                node.output[i] = f"{name}_again"
        graph.node.append(node)

    def exchange_nodes(self, graph: onnx.GraphProto) -> None:
        a, b = self.rng.choice(graph.node), self.rng.choice(graph.node)
        a.op_type, b.op_type = b.op_type, a.op_type

    def other_operator(self, graph: onnx.GraphProto) -> None:
        self.rng.choice(graph.node).op_type = self.rng.choice(operators())

    def other_domain(self, graph: onnx.GraphProto) -> None:
        self.rng.choice(graph.node).domain = self.rng.choice(
            ("ai.onnx", "com.microsoft", "ai.onnx.ml", "acme", "local")
        )

    def rewire(self, graph: onnx.GraphProto) -> None:
        node = self.rng.choice(graph.node)
        node.input[self.rng.randrange(len(node.input))] = self.rng.choice(self.names(graph))

    def fewer_inputs(self, graph: onnx.GraphProto) -> None:
        node = self.rng.choice(graph.node)
        del node.input[self.rng.randrange(len(node.input))]

    def more_inputs(self, graph: onnx.GraphProto) -> None:
        self.rng.choice(graph.node).input.append(self.rng.choice(self.names(graph)))

    def other_outputs(self, graph: onnx.GraphProto) -> None:
        node = self.rng.choice(graph.node)
        if self.rng.random() < 0.5:
            node.output.append(self.rng.choice([*self.names(graph), "more"]))
        else:
            node.output[self.rng.randrange(len(node.output))] = self.rng.choice(self.names(graph))

    def insert_node(self, graph: onnx.GraphProto) -> None:
        """Insert a node of a backend test between a value and its consumers."""
        node = type(graph.node[0])()
        node.CopyFrom(self.rng.choice(self.rng.choice(node_tests())[1].graph.node))
        position = self.rng.randrange(len(graph.node))
        target = graph.node[position]
        place = self.rng.randrange(len(target.input))
        names = self.names(graph)
        for i in range(len(node.input)):
            node.input[i] = self.rng.choice(names)
        node.input[0] = target.input[place]
        for i in range(len(node.output)):
            node.output[i] = f"inserted_{self.rng.randrange(1 << 30)}"
        target.input[place] = node.output[0]
        graph.node.insert(position, node)

    def drop_attribute(self, graph: onnx.GraphProto) -> None:
        node = self.rng.choice(graph.node)
        del node.attribute[self.rng.randrange(len(node.attribute))]

    def change_attribute(self, graph: onnx.GraphProto) -> None:
        attribute = self.rng.choice(self.rng.choice([node for node in graph.node if node.attribute]).attribute)
        kinds = AttributeProto
        if attribute.type == kinds.INT:
            attribute.i = self.integer()
        elif attribute.type == kinds.FLOAT:
            attribute.f = self.rng.choice(FLOATS)
        elif attribute.type == kinds.STRING:
            attribute.s = self.rng.choice(TEXTS).encode()
        elif attribute.type == kinds.INTS and attribute.ints and self.rng.random() < 0.7:
            attribute.ints[self.rng.randrange(len(attribute.ints))] = self.integer()
        elif attribute.type == kinds.INTS:
            attribute.ints[:] = [self.integer() for _ in range(self.rng.randrange(6))]
        elif attribute.type == kinds.FLOATS:
            attribute.floats[:] = [self.rng.choice(FLOATS) for _ in range(self.rng.randrange(5))]
        elif attribute.type == kinds.TENSOR:
            self._change_tensor(attribute.t)

    def retype_attribute(self, graph: onnx.GraphProto) -> None:
        node = self.rng.choice(graph.node)
        value = self.rng.choice((1, 2.5, "text", [1, 2], [0.5], b"\xff"))
        node.attribute[self.rng.randrange(len(node.attribute))].CopyFrom(
            helper.make_attribute(self.rng.choice(node.attribute).name, value)
        )

    def borrow_attribute(self, graph: onnx.GraphProto) -> None:
        other = self.rng.choice([node for node in graph.node if node.attribute])
        self.rng.choice(graph.node).attribute.append(self.rng.choice(other.attribute))

    def change_tensor(self, graph: onnx.GraphProto) -> None:
        self._change_tensor(self.rng.choice(graph.initializer))

    def remove_tensor(self, graph: onnx.GraphProto) -> None:
        del graph.initializer[self.rng.randrange(len(graph.initializer))]

    def _change_tensor(self, tensor: TensorProto) -> None:
        what = self.rng.randrange(7)
        if what == 0:
            dims = list(tensor.dims)
            tensor.dims[self.rng.randrange(len(dims))] = self.integer()
        elif what == 1:
            tensor.data_type = self.rng.randrange(24)
        elif what == 2:
            tensor.raw_data = tensor.raw_data[: self.rng.randrange(len(tensor.raw_data) + 1)]
        elif what == 3:
            tensor.dims[:] = self.rng.sample(list(tensor.dims), len(tensor.dims))
        else:
            self._change_values(tensor)

    def _change_values(self, tensor: TensorProto) -> None:
        try:
            array = numpy_helper.to_array(tensor).copy()
        except (ValueError, TypeError, OverflowError):
            return
        if not array.size or array.dtype.kind not in "iuf":
            return
        if self.rng.random() < 0.2:
            array = np.ascontiguousarray(array[: self.rng.randrange(len(array) + 1)] if array.ndim else array[None])
        if array.size:
            value = self.integer() if array.dtype.kind in "iu" else self.rng.choice(FLOATS)
            with np.errstate(all="ignore"):
                index = self.rng.randrange(array.size)
                array.reshape(-1)[index] = np.array(value).astype(array.dtype)
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(array, name))

    def change_shape(self, graph: onnx.GraphProto) -> None:
        value = self.rng.choice([*graph.input, *graph.output, *graph.value_info])
        dim = self.rng.choice(value.type.tensor_type.shape.dim)
        if self.rng.random() < 0.3:
            dim.dim_param = self.rng.choice(("N", "", "\n"))
        else:
            dim.dim_value = self.integer()

    def change_rank(self, graph: onnx.GraphProto) -> None:
        shape = self.rng.choice([*graph.input, *graph.output]).type.tensor_type.shape
        if self.rng.random() < 0.5:
            shape.dim.add(dim_value=self.integer())
        else:
            del shape.dim[self.rng.randrange(len(shape.dim))]

    def change_type(self, graph: onnx.GraphProto) -> None:
        value = self.rng.choice([*graph.input, *graph.output])
        value.type.tensor_type.elem_type = self.rng.randrange(24)

    def change_interface(self, graph: onnx.GraphProto) -> None:
        values = self.rng.choice((graph.input, graph.output))
        if self.rng.random() < 0.5:
            del values[self.rng.randrange(len(values))]
        else:
            values.append(self.rng.choice(values))

    def rename(self, graph: onnx.GraphProto) -> None:
        value = self.rng.choice([*graph.input, *graph.output])
        value.name = self.rng.choice(self.names(graph))

    def change_opset(self, graph: onnx.GraphProto) -> None:
        self.rng.choice(self.model.opset_import).version = self.rng.choice((*range(1, 29), 0, -1, 1 << 40))

    def branch(self, graph: onnx.GraphProto) -> None:
        """Move a node into both branches of an If."""
        position = self.rng.randrange(len(graph.node))
        node = graph.node[position]
        body = helper.make_graph([node], "branch", [], [onnx.ValueInfoProto(name=name) for name in node.output])
        condition = f"condition_{self.rng.randrange(1 << 30)}"
        graph.initializer.append(numpy_helper.from_array(np.array(self.rng.random() < 0.5), condition))
        graph.node[position].CopyFrom(
            helper.make_node("If", [condition], list(node.output), then_branch=body, else_branch=body)
        )

    def as_function(self, graph: onnx.GraphProto) -> None:
        """Replace a node by a call of a function that contains it."""
        node = self.rng.choice(graph.node)
        inner = type(node)()
        inner.CopyFrom(node)
        inputs = [f"i{i}" for i in range(len(node.input))]
        outputs = [f"o{i}" for i in range(len(node.output))]
        inner.input[:], inner.output[:] = inputs, outputs
        imports = [*self.model.opset_import, helper.make_opsetid("local", 1)]
        self.model.functions.append(helper.make_function("local", "made", inputs, outputs, [inner], imports))
        node.op_type, node.domain = "made", "local"
        del node.attribute[:]
        self.model.opset_import.append(helper.make_opsetid("local", 1))

    def integer(self) -> int:
        return self.rng.choice(INTEGERS) if self.rng.random() < 0.6 else self.rng.randrange(-4, 20)


CHANGES: list[Callable[[Mutator, onnx.GraphProto], None]] = [
    value
    for name, value in vars(Mutator).items()
    if not name.startswith("_") and name not in ("step", "names", "integer")
]


@functools.cache
def operators() -> list[str]:
    """The operators of ONNX, and one that does not exist."""
    from onnx import defs

    return [*sorted({schema.name for schema in defs.get_all_schemas() if schema.domain == ""}), "NoSuchOperator"]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The data with some bytes changed, removed or duplicated."""
    content = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        position = rng.randrange(len(content))
        what = rng.randrange(4)
        if what == 0:
            content[position] ^= 1 << rng.randrange(8)
        elif what == 1:
            content[position] = rng.randrange(256)
        elif what == 2:
            del content[position : position + rng.randrange(1, 40)]
        else:
            content[position:position] = content[position : position + rng.randrange(1, 40)]
    return bytes(content)


def make_input(number: int) -> tuple[str, str, bytes]:
    """The target, the description and the content of an input."""
    rng = random.Random(number)
    target = "node" if rng.random() < 0.45 else rng.choice(TARGETS)
    name, original = rng.choice(node_tests() if target == "node" else classifiers())
    model = onnx.ModelProto()
    model.CopyFrom(original)
    steps = []
    if rng.random() < 0.9:
        mutator = Mutator(model, rng)
        steps = [mutator.step() for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))]
    data = model.SerializeToString()
    if not steps or rng.random() < 0.03:
        data, steps = damaged(data, rng), [*steps, "bytes"]
    return target, f"{name}: {', '.join(steps)}", data
