"""Small ONNX classifiers made in memory, one function per kind, with the same weights every time.

They have no BatchNormalization, no MaxPool unless requested, and nonzero biases, so that finite differences at an
impulse on black do not cross kinks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


class Net:
    """Collects the nodes of a graph. Calling it adds a node and returns the name of its output."""

    def __init__(self, *, opset: int = 17, dtype: Any = np.float32, seed: int = 0) -> None:
        self.opset = opset
        self.dtype = np.dtype(dtype)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.domains: set[str] = set()
        self._rng = np.random.default_rng(seed)

    def input(self, name: str, shape: Sequence[int | str | None] | None, dtype: Any = None) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, _kind(dtype or self.dtype), shape))
        return name

    def output(self, value: str, shape: Sequence[int | str | None] | None, dtype: Any = None) -> None:
        self.outputs.append(helper.make_tensor_value_info(value, _kind(dtype or self.dtype), shape))

    def constant(self, values: Any, name: str | None = None) -> str:
        """An initializer. Floating-point values get the net's own type."""
        array = np.asarray(values)
        array = array.astype(self.dtype) if array.dtype.kind == "f" else array
        name = name or f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def random(self, *shape: int) -> np.ndarray:
        """Standard normal values divided by the square root of the fan-in (all axes but the first)."""
        return self._rng.standard_normal(shape) / np.sqrt(max(np.prod(shape[1:]), 1))

    def weights(self, *shape: int, name: str | None = None) -> str:
        return self.constant(self.random(*shape), name)

    def bias(self, length: int) -> str:
        """Values of both signs, at least 0.2 away from zero."""
        values = self._rng.uniform(0.2, 0.6, length)
        return self.constant(values * self._rng.choice([-1, 1], length))

    def __call__(self, op_type: str, *inputs: str, out: str | None = None, domain: str = "", **attributes: Any) -> str:
        name = out or f"{op_type.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], f"/{name}", domain=domain, **attributes))
        self.domains.add(domain)
        return name

    def model(self, metadata: dict[str, str] | None = None) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "net", self.inputs, self.outputs, self.initializers)
        imports = [helper.make_opsetid("", self.opset)]
        imports += [helper.make_opsetid(domain, 1) for domain in sorted(self.domains - {"", "ai.onnx"})]
        model = helper.make_model(graph, opset_imports=imports, ir_version=8, producer_name="tests")
        helper.set_model_props(model, metadata or {})
        return model


def _kind(dtype: Any) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def save(model: onnx.ModelProto, path: Path, **options: Any) -> Path:
    onnx.save(model, str(path), **options)
    return path


# ---------------------------------------------------------------------------------------------------- whole models
def conv_net(
    *,
    channels: int = 3,
    size: tuple[int | str, int | str] = (12, 10),
    classes: int = 5,
    head: str = "logits",
    layout: str = "NCHW",
    batch: int | str = "N",
    opset: int = 17,
    dtype: Any = np.float32,
    input_dtype: Any = None,
    margin: float = 0.0,
    normalize: tuple[float, float, float] | None = None,
    pool: str | None = None,
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    """Two convolutions with ReLU, a global average and a linear layer, like most classifiers.

    Args:
        head: see `add_head`.
        layout: layout of the input: NCHW, NHWC, CHW, HWC or NHW.
        input_dtype: type of the input, which is cast to `dtype` first; None for `dtype`.
        margin: added to the logit of class 2.
        normalize: (scale, mean, std) applied inside the graph.
        pool: "MaxPool" or "AveragePool" after the first convolution.
    """
    net = Net(opset=opset, dtype=dtype)
    sizes = {"N": batch, "C": channels, "H": size[0], "W": size[1]}
    x = net.input("image", [sizes[axis] for axis in layout], input_dtype)
    if input_dtype is not None:
        x = net("Cast", x, to=_kind(dtype))
    x = _to_nchw(net, x, layout, sizes)
    if normalize is not None:
        scale, mean, std = map(float, normalize)
        x = net("Mul", x, net.constant(np.array(scale)))
        x = net("Sub", x, net.constant(np.full((1, channels, 1, 1), mean)))
        x = net("Div", x, net.constant(np.full((1, channels, 1, 1), std)))
    features = add_features(net, x, channels, pool=pool)
    add_head(net, add_linear(net, features, 8, classes, margin=margin), classes, head, batch if "N" in layout else 1)
    return net.model(metadata)


def _to_nchw(net: Net, x: str, layout: str, sizes: dict[str, Any]) -> str:
    if layout == "NCHW":
        return x
    if layout in ("NHWC", "HWC"):
        x = net("Transpose", x, perm=[0, 3, 1, 2] if layout == "NHWC" else [2, 0, 1])
    if layout == "NHWC":
        return x
    return net("Reshape", x, net.constant(np.array([-1, sizes["C"], sizes["H"], sizes["W"]], np.int64)))


def add_features(net: Net, x: str, channels: int, *, pool: str | None = None, width: int = 8) -> str:
    """(N, width) features of an image (N, channels, H, W)."""
    x = net("Conv", x, net.weights(6, channels, 3, 3), net.bias(6), pads=[1, 1, 1, 1])
    x = net("Relu", x)
    if pool is not None:
        x = net(pool, x, kernel_shape=[2, 2], strides=[1, 1])
    x = net("Conv", x, net.weights(width, 6, 3, 3), net.bias(width), pads=[1, 1, 1, 1], strides=[2, 2])
    x = net("Relu", x)
    return net("Flatten", net("GlobalAveragePool", x), axis=1)


def add_linear(net: Net, x: str, width: int, classes: int, *, margin: float = 0.0, out: str | None = None) -> str:
    bias = 0.1 * np.arange(classes)
    bias[min(2, classes - 1)] += margin
    return net("Gemm", x, net.constant(3 * net.random(width, classes)), net.constant(bias), out=out)


def add_head(net: Net, logits: str, classes: int, head: str, batch: int | str = "N") -> None:
    """Add the graph output: logits, softmax, log-softmax, sigmoid, or one of the following.

    softmax-4d: over (N, classes, 1, 1), as in SqueezeNet. exp: a decomposed softmax. ratio: softplus over its sum.
    pair: a sigmoid p as [1 - p, p]. hidden: softmax, squared and normalized, which the reader does not recognize.
    """
    if head == "logits":
        net.nodes[-1].output[0] = logits = "output"
    elif head in ("softmax", "log-softmax"):
        net("Softmax" if head == "softmax" else "LogSoftmax", logits, axis=1, out="output")
    elif head == "softmax-4d":
        x = net("Reshape", logits, net.constant(np.array([-1, classes, 1, 1], np.int64)))
        net("Softmax", x, axis=1, out="output")
        return net.output("output", [batch, classes, 1, 1])
    elif head == "exp":
        shifted = net("Sub", logits, net("ReduceMax", logits, axes=[1], keepdims=1))
        exponential = net("Exp", shifted)
        net("Div", exponential, _row_sum(net, exponential), out="output")
    elif head == "ratio":
        positive = net("Softplus", logits)
        net("Div", positive, _row_sum(net, positive), out="output")
    elif head == "sigmoid":
        net("Sigmoid", logits, out="output")
    elif head == "pair":
        p = net("Sigmoid", logits)
        net("Concat", net("Sub", net.constant(np.ones(1)), p), p, axis=1, out="output")
        classes = 2
    else:
        raise ValueError(head)
    net.output("output", [batch, classes])


def _row_sum(net: Net, x: str) -> str:
    if net.opset >= 13:
        return net("ReduceSum", x, net.constant(np.array([1], np.int64)), keepdims=1)
    return net("ReduceSum", x, axes=[1], keepdims=1)


def mlp(
    *, length: int = 49, classes: int = 4, batch: int | str | None = "N", dtype: Any = np.float32
) -> onnx.ModelProto:
    """A multilayer perceptron on flattened images. If `batch` is None, the input has one axis."""
    net = Net(dtype=dtype)
    x = net.input("X", [length] if batch is None else [batch, length])
    if batch is None:
        x = net("Reshape", x, net.constant(np.array([1, length], np.int64)))
    x = net("Tanh", net("Add", net("MatMul", x, net.constant(net.random(length, 16))), net.bias(16)))
    add_head(net, add_linear(net, x, 16, classes), classes, "softmax", 1 if batch is None else batch)
    return net.model()


def linear(weights: np.ndarray, bias: np.ndarray, *, head: str = "logits", batch: int | str = "N") -> onnx.ModelProto:
    """Logits = weights (classes, C, H, W) times the image plus bias, so that their derivatives are known exactly."""
    classes, *shape = weights.shape
    net = Net()
    flat = net("Flatten", net.input("image", [batch, *shape]), axis=1)
    logits = net("Gemm", flat, net.constant(weights.reshape(classes, -1).T), net.constant(bias))
    add_head(net, logits, classes, head, batch)
    return net.model()


def several_heads(names: Sequence[str], widths: Sequence[int], *, embedding: str | None = None) -> onnx.ModelProto:
    """Linear heads on one body, with one output each. `embedding` names an output with the 8 features before them."""
    net = Net()
    features = add_features(net, net.input("image", ["N", 3, 8, 8]), 3)
    if embedding is not None:
        features = net("Identity", features, out=embedding)
        net.output(embedding, ["N", 8])
    for name, width in zip(names, widths, strict=True):
        net.output(add_linear(net, features, 8, width, out=name), ["N", width])
    return net.model()


def with_inputs(**others: tuple[Sequence[int | str], Any]) -> onnx.ModelProto:
    """A classifier whose logits are multiplied by the sum of further inputs: name = (shape, dtype)."""
    net = Net()
    logits = add_linear(net, add_features(net, net.input("image", ["N", 3, 8, 8]), 3), 8, 4)
    for name, (shape, dtype) in others.items():
        value = net("Cast", net.input(name, shape, dtype), to=_kind(np.float32))
        logits = net("Mul", logits, net("ReduceSum", value, keepdims=0))
    add_head(net, net("Identity", logits), 4, "logits")
    return net.model()


def two_images() -> onnx.ModelProto:
    net = Net()
    left, right = net.input("left", ["N", 3, 8, 8]), net.input("right", ["N", 3, 8, 8])
    add_head(net, add_linear(net, add_features(net, net("Sub", left, right), 3), 8, 4), 4, "logits")
    return net.model()


def baked_batch() -> onnx.ModelProto:
    """Declares an open batch size, but reshapes to one image inside, like models of some exporters."""
    net = Net()
    x = add_features(net, net.input("image", ["N", 3, 8, 8]), 3)
    x = net("Reshape", x, net.constant(np.array([1, 8], np.int64)))
    add_head(net, add_linear(net, x, 8, 4), 4, "logits", "N")
    return net.model()


# ------------------------------------------------------------------------------------------------- invalid models
def dead_relu() -> onnx.ModelProto:
    """All units of one ReLU are inactive for every image."""
    net = Net()
    x = net("Conv", net.input("image", ["N", 3, 8, 8]), net.weights(4, 3, 3, 3), net.constant(np.full(4, -1e6)))
    x = net("Flatten", net("GlobalAveragePool", net("Relu", x, out="dead")), axis=1)
    add_head(net, add_linear(net, x, 4, 3), 3, "logits")
    return net.model()


def saturated_tanh() -> onnx.ModelProto:
    """All units are exactly 1 or -1 in float32."""
    net = Net()
    flat = net("Flatten", net.input("image", ["N", 3, 8, 8]), axis=1)
    x = net("Tanh", net("MatMul", flat, net.constant(1e6 * net.random(192, 6))))
    add_head(net, add_linear(net, x, 6, 3), 3, "logits")
    return net.model()


def alone_in_its_sum() -> onnx.ModelProto:
    """One class alone is positive for every image, so that its share of the sum of all is constant."""
    net = Net()
    flat = net("Flatten", net.input("image", ["N", 3, 8, 8]), axis=1)
    scores = net("Relu", net("MatMul", flat, net.constant(np.outer(np.arange(1.0, 193.0), [1.0, -1.0, -2.0]))))
    total = net("Clip", net("ReduceSum", scores, net.constant(np.array([1]))), net.constant(np.float32(1e-12)))
    net.output(net("Div", scores, total), ["N", 3])
    return net.model()


def image_not_used() -> onnx.ModelProto:
    net = Net()
    net.input("image", ["N", 3, 8, 8])
    add_head(net, net("Add", net.constant(np.zeros((1, 3))), net.constant(np.arange(3.0))), 3, "logits", 1)
    return net.model()


def step_function() -> onnx.ModelProto:
    """Uses only the sign of the image, whose derivative is zero everywhere."""
    net = Net()
    x = net("Sign", net.input("image", ["N", 3, 8, 8]))
    add_head(net, add_linear(net, add_features(net, x, 3), 8, 3), 3, "logits")
    return net.model()


def with_weights(values: float) -> onnx.ModelProto:
    """One weight of the last layer has this value, such as NaN."""
    model = conv_net(size=(8, 8))
    tensor = model.graph.initializer[4]
    array = numpy_helper.to_array(tensor).copy()
    array.reshape(-1)[3] = values
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def overflowing() -> onnx.ModelProto:
    """Finite weights, but the logits overflow float32."""
    net = Net()
    x = net("Mul", net.input("image", ["N", 3, 8, 8]), net.constant(np.array(1e38)))
    x = net("Mul", x, net.constant(np.array(1e10)))
    add_head(net, add_linear(net, add_features(net, x, 3), 8, 3), 3, "logits")
    return net.model()


def segmentation() -> onnx.ModelProto:
    net = Net()
    x = net.input("image", ["N", 3, 8, 8])
    net.output(net("Conv", x, net.weights(5, 3, 3, 3), pads=[1, 1, 1, 1], out="map"), ["N", 5, 8, 8])
    return net.model()


def integer_output() -> onnx.ModelProto:
    net = Net()
    logits = add_linear(net, add_features(net, net.input("image", ["N", 3, 8, 8]), 3), 8, 4)
    net.output(net("Cast", logits, to=_kind(np.int64), out="counts"), ["N", 4], np.int64)
    return net.model()


def text_model() -> onnx.ModelProto:
    """Takes token ids instead of an image."""
    net = Net()
    net.input("tokens", ["N", 16, 7, 9, 5], np.int64)
    net("Flatten", net("Cast", "tokens", to=_kind(np.float32)), axis=1, out="flat")
    net.output(net("Softmax", "flat", axis=1, out="output"), ["N", None])
    return net.model()


def with_node(
    op_type: str, *, domain: str = "", shape: Sequence[int | str] | None = ("N", 3, 8, 8), **attributes: Any
) -> onnx.ModelProto:
    """A node of this type between the image and the rest; `shape` is the declared shape of its output."""
    net = Net()
    x = net(op_type, net.input("image", ["N", 3, 8, 8]), domain=domain, **attributes)
    add_head(net, add_linear(net, add_features(net, x, 3), 8, 3), 3, "logits")
    model = net.model()
    model.graph.value_info.append(helper.make_tensor_value_info(x, onnx.TensorProto.FLOAT, shape))
    return model
