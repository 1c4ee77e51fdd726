"""The gradient of a quantized model by finite differences, independent of our rules.

A quantized model is a step function. The straight-through estimator differentiates another function, in which rounding
counts as the identity and saturation as a clip. This module constructs that function for an image x0. In the real
domain, in which a quantized tensor stands for scale (integer - zero point), each quantization of a tensor a is

    rounded    Q(a) = scale (clip(round(a / scale) + zero, low, high) - zero)     as the model computes it
    anchored   S(a) = Q(a0) + inside (a - a0)                                     a0: the value of a at x0

with inside = 1 where round(a0 / scale) + zero is in the range of the type, else 0. S(a0) = Q(a0), so every activation
at x0 is the quantized one, either computed in float64 or (to check a float32 gradient) by onnxruntime. Quantized
activations can tie: two zeros in a MaxPool window, or a zero at the input of a Relu. There, one-sided differences would
disagree, so the choice is anchored as well, as PyTorch makes it: MaxPool takes the first maximum at x0, and Relu
multiplies by 1 where its input at x0 is above 0, else by 0.

The anchored model is an ordinary float model that is smooth near x0. Its directional differences in float64, computed
with `Float64Evaluator`, are the reference. `real_model` builds both forms from a model with QuantizeLinear and
DequantizeLinear pairs, or with onnxruntime's QLinear operators, by their specifications.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from onnxgain.engine.evaluator import Float64Evaluator

Array = np.ndarray

# Integers pass through these unchanged.
MOVING = {
    "MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "Concat", "Split",
    "Expand", "Identity", "Pad", "DepthToSpace", "SpaceToDepth",
}  # fmt: skip
CHOOSING = {"MaxPool", "Relu"}
STEPS = (1e-5, 1e-6, 1e-7)
ONE_SIDED_AGREEMENT = 1e-2
TOLERANCE = 1e-3


@dataclass
class Quantization:
    """One quantization in a model.

    Attributes:
        before: the name of the real tensor that is quantized.
        after: the name of the result.
        scale, zero: scale and zero point of the result.
        low, high: the range of the type.
        step: the size of one integer step; the scale, except for the rounding in `_integer_step`.
    """

    before: str
    after: str
    scale: float
    zero: float
    low: float
    high: float
    step: float

    def rounded(self, a: Array) -> Array:
        """The quantized values of a tensor, as the model computes them."""
        integers = np.clip(np.rint(a / self.step) + self.zero, self.low, self.high)
        return self.scale * (integers - self.zero)

    def inside(self, a: Array) -> Array:
        """Where the rounded value is in the range."""
        integers = np.rint(a / self.step) + self.zero
        return (integers >= self.low) & (integers <= self.high)


@dataclass
class RealModel:
    """A quantized model in the real domain.

    Attributes:
        source: the original model.
        nodes: nodes on float tensors, with quantizations between them, in any order.
        choices: the MaxPool and Relu nodes, which are not in `nodes`.
    """

    source: onnx.ModelProto
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    choices: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    quantizations: list[Quantization] = field(default_factory=list)
    domains: dict[str, tuple[str, str]] = field(default_factory=dict)

    def rounded(self, results: dict[str, Array] | None = None) -> Float64Evaluator:
        """An evaluator of the model's own function; the results of quantizations are given or computed.

        Additional outputs `<output>/indices` are the indices of each MaxPool.
        """
        constants = dict(results or {})
        nodes = [] if results else [node for q in self.quantizations for node in _rounding(q, constants)]
        for choice in self.choices:
            node = onnx.NodeProto()
            node.CopyFrom(choice)
            if node.op_type == "MaxPool":
                node.output[:] = [node.output[0], f"{node.output[0]}/indices"]
            nodes.append(node)
        return self._evaluator(nodes, constants)

    def anchored(self, at: dict[str, Array]) -> Float64Evaluator:
        """An evaluator of the anchored form, given the values of `anchors` and of quantizations at the image."""
        constants: dict[str, Array] = {}
        nodes = [
            node
            for q in self.quantizations
            for node in _anchoring(q, constants, at[q.before], at.get(q.after, q.rounded(at[q.before])))
        ]
        for choice in self.choices:
            name = choice.output[0]
            if choice.op_type == "Relu":
                constants[f"{name}/chosen"] = (at[choice.input[0]] > 0).astype(np.float64)
                nodes.append(onnx.helper.make_node("Mul", [choice.input[0], f"{name}/chosen"], [name]))
            else:
                constants[f"{name}/chosen"], constants[f"{name}/all"] = at[f"{name}/indices"], np.array([-1])
                nodes.append(onnx.helper.make_node("Reshape", [choice.input[0], f"{name}/all"], [f"{name}/flat"]))
                nodes.append(onnx.helper.make_node("Gather", [f"{name}/flat", f"{name}/chosen"], [name]))
        return self._evaluator(nodes, constants)

    def anchors(self) -> list[str]:
        """The values that `anchored` needs, by their names in `rounded`."""
        chosen = [c.input[0] if c.op_type == "Relu" else f"{c.output[0]}/indices" for c in self.choices]
        return list(dict.fromkeys([*(q.before for q in self.quantizations), *chosen]))

    def _evaluator(self, nodes: list[onnx.NodeProto], constants: dict[str, Array]) -> Float64Evaluator:
        graph = onnx.GraphProto(name="real")
        graph.input.extend(self.source.graph.input)
        graph.output.extend(self.source.graph.output)
        graph.node.extend([*self.nodes, *nodes])
        tensors = {**self.constants, **constants}
        graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items())
        model = ir.from_proto(onnx.helper.make_model(graph, opset_imports=[*self.source.opset_import], ir_version=10))
        model.graph.sort()
        return Float64Evaluator(model)


def _rounding(q: Quantization, constants: dict[str, Array]) -> list[onnx.NodeProto]:
    make, name = onnx.helper.make_node, q.after
    numbers = {"scale": q.scale, "step": q.step, "zero": q.zero, "low": q.low, "high": q.high}
    constants.update({f"{name}/{key}": np.asarray(value) for key, value in numbers.items()})
    return [
        make("Div", [q.before, f"{name}/step"], [f"{name}/steps"]),
        make("Round", [f"{name}/steps"], [f"{name}/whole"]),
        make("Add", [f"{name}/whole", f"{name}/zero"], [f"{name}/integer"]),
        make("Clip", [f"{name}/integer", f"{name}/low", f"{name}/high"], [f"{name}/inside"]),
        make("Sub", [f"{name}/inside", f"{name}/zero"], [f"{name}/centred"]),
        make("Mul", [f"{name}/centred", f"{name}/scale"], [name]),
    ]


def _anchoring(q: Quantization, constants: dict[str, Array], before: Array, after: Array) -> list[onnx.NodeProto]:
    make, name, inside = onnx.helper.make_node, q.after, q.inside(before)
    constants[f"{name}/slope"] = inside.astype(np.float64)
    constants[f"{name}/anchor"] = after - inside * before
    return [
        make("Mul", [q.before, f"{name}/slope"], [f"{name}/moved"]),
        make("Add", [f"{name}/moved", f"{name}/anchor"], [name]),
    ]


def real_model(path: Path) -> RealModel:
    """The real-domain form of a quantized model.

    Raises:
        NotImplementedError: onnxruntime's static quantization does not write an operator that the model has.
    """
    source = onnx.load(path)
    model = RealModel(source, constants={t.name: numpy_helper.to_array(t) for t in source.graph.initializer})
    for node in source.graph.node:
        translate = QUANTIZED.get(node.op_type)
        if translate is not None:
            translate(model, node)
        elif any(name in model.domains for name in node.input):
            _move(model, node)
        elif node.op_type in CHOOSING:
            model.choices.append(node)
        elif node.op_type == "Constant":
            model.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        else:
            model.nodes.append(node)
    return model


def _move(model: RealModel, node: onnx.NodeProto) -> None:
    if node.op_type not in MOVING:
        raise NotImplementedError(f"{node.op_type} on integers")
    (domain,) = {model.domains[name] for name in node.input if name in model.domains}
    if node.op_type == "Pad":
        node = _real_padding(model, node, *domain)
    (model.choices if node.op_type in CHOOSING else model.nodes).append(node)
    model.domains.update(dict.fromkeys(node.output, domain))


def _real_padding(model: RealModel, node: onnx.NodeProto, scale: str, zero: str) -> onnx.NodeProto:
    """A Pad with the real value of its integer constant (0 by default)."""
    padded = onnx.NodeProto()
    padded.CopyFrom(node)
    inputs = [*node.input, "", ""]
    name = inputs[2] or f"{node.output[0]}/nothing"
    model.constants.setdefault(name, np.zeros((), model.constants[zero].dtype))
    inputs[2] = _real(model, name, scale, zero)
    padded.input[:] = inputs[: max(len(node.input), 3)]
    return padded


def _real(model: RealModel, name: str, scale: str, zero: str, axis: int = 0) -> str:
    """The name of the real tensor for a quantized one; constants are converted here."""
    if name in model.domains:
        assert _same(model, model.domains[name], (scale, zero)), (
            f"{name} is read with another scale than it was written"
        )
        return name
    real = f"{name}/real"
    values = model.constants[name].astype(np.float64)
    factors, zeros = (np.asarray(model.constants[key], np.float64) if key else np.float64(0) for key in (scale, zero))
    view = [-1 if i == axis % max(values.ndim, 1) else 1 for i in range(values.ndim)]
    factors, zeros = (p.reshape(view if p.size > 1 else ()) for p in (factors, zeros))
    model.constants[real] = factors * (values - zeros)
    return real


def _same(model: RealModel, one: tuple[str, str], other: tuple[str, str]) -> bool:
    values = [[np.ravel(model.constants[key]) if key else np.zeros(1) for key in pair] for pair in (one, other)]
    return all(np.array_equal(a, b) for a, b in zip(*values, strict=True))


def _quantize(model: RealModel, before: str, after: str, scale: str, zero: str, step: float | None = None) -> None:
    zeros = model.constants[zero]
    assert model.constants[scale].size == 1, f"{after} has a scale per channel"
    limits = np.iinfo(zeros.dtype)
    size = float(model.constants[scale].item())
    numbers = (size, float(zeros.item()), float(limits.min), float(limits.max), step or size)
    model.quantizations.append(Quantization(before, after, *numbers))
    model.domains[after] = (scale, zero)


def _compute(
    model: RealModel,
    node: onnx.NodeProto,
    op_type: str,
    inputs: Sequence[str],
    scale: str,
    zero: str,
    step: float | None = None,
) -> None:
    """Add a float operator on real tensors whose result is quantized."""
    before = f"{node.output[0]}/real"
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert not attributes.pop("channels_last", 0), f"{op_type} with channels last"
    attributes.pop("opset", None)
    model.nodes.append(onnx.helper.make_node(op_type, inputs, [before], **attributes))
    _quantize(model, before, node.output[0], scale, zero, step)


def _integer_step(model: RealModel, a: str, b: str, y: str) -> float:
    """The size of an integer step of the result: sums of integer products are multiplied by a single float32 factor."""
    scales = [np.float32(model.constants[name].item()) for name in (a, b, y)]
    return float(scales[0]) * float(scales[1]) / float(scales[0] * scales[1] / scales[2])


def _quantize_linear(model: RealModel, node: onnx.NodeProto) -> None:
    x, scale, zero = node.input
    _quantize(model, x, node.output[0], scale, zero)
    if x in model.constants:
        constant = model.quantizations.pop()
        model.constants[constant.after] = constant.rounded(model.constants[x].astype(np.float64))


def _dequantize_linear(model: RealModel, node: onnx.NodeProto) -> None:
    x, scale, *zero = node.input
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    real = _real(model, x, scale, zero[0] if zero else "", axis)
    if real in model.constants:
        model.constants[node.output[0]] = model.constants[real]
    else:
        model.nodes.append(onnx.helper.make_node("Identity", [real], [node.output[0]]))


def _conv(model: RealModel, node: onnx.NodeProto) -> None:
    x, sx, zx, w, sw, zw, sy, zy, *bias = node.input
    inputs = [_real(model, x, sx, zx), _real(model, w, sw, zw)]
    if bias:
        inputs.append(_bias(model, bias[0], model.constants[sx] * model.constants[sw].astype(np.float64)))
    _compute(model, node, "Conv", inputs, sy, zy, _integer_step(model, sx, sw, sy))


def _bias(model: RealModel, name: str, scale: Array) -> str:
    real = f"{name}/real"
    model.constants[real] = model.constants[name].astype(np.float64) * scale
    return real


def _gemm(model: RealModel, node: onnx.NodeProto) -> None:
    a, sa, za, b, sb, zb, c, sy, zy = node.input
    inputs = [_real(model, a, sa, za), _real(model, b, sb, zb, 1)]
    alpha = next((t.f for t in node.attribute if t.name == "alpha"), 1.0)
    assert alpha == 1.0
    if c:
        inputs.append(_bias(model, c, model.constants[sa] * model.constants[sb].astype(np.float64)))
    _compute(model, node, "Gemm", inputs, sy, zy, _integer_step(model, sa, sb, sy))


def _binary(op_type: str) -> Callable[[RealModel, onnx.NodeProto], None]:
    def translate(model: RealModel, node: onnx.NodeProto) -> None:
        a, sa, za, b, sb, zb, sy, zy = node.input
        _compute(model, node, op_type, [_real(model, a, sa, za), _real(model, b, sb, zb, -1)], sy, zy)

    return translate


def _matmul(model: RealModel, node: onnx.NodeProto) -> None:
    a, sa, za, b, sb, zb, sy, zy = node.input
    inputs = [_real(model, a, sa, za), _real(model, b, sb, zb, -1)]
    _compute(model, node, "MatMul", inputs, sy, zy, _integer_step(model, sa, sb, sy))


def _unary(op_type: str) -> Callable[[RealModel, onnx.NodeProto], None]:
    def translate(model: RealModel, node: onnx.NodeProto) -> None:
        x, sx, zx, sy, zy = node.input
        _compute(model, node, op_type, [_real(model, x, sx, zx)], sy, zy)

    return translate


def _concat(model: RealModel, node: onnx.NodeProto) -> None:
    sy, zy, *parts = node.input
    triples = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    _compute(model, node, "Concat", [_real(model, *triple) for triple in triples], sy, zy)


QUANTIZED: dict[str, Callable[[RealModel, onnx.NodeProto], None]] = {
    "QuantizeLinear": _quantize_linear,
    "DequantizeLinear": _dequantize_linear,
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "QLinearAdd": _binary("Add"),
    "QLinearMul": _binary("Mul"),
    "QGemm": _gemm,
    "QLinearConcat": _concat,
    "QLinearAveragePool": _unary("AveragePool"),
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearLeakyRelu": _unary("LeakyRelu"),
    "QLinearSoftmax": _unary("Softmax"),
}


class Anchored:
    """The function that the straight-through estimator differentiates, at an image.

    Args:
        path: a quantized model with one input and one output, the logits.
        image: the image x0.
        winner: the class.
        runtime: use the quantized activations of onnxruntime (without its graph optimizations).
    """

    def __init__(self, path: Path, image: Array, winner: int, *, runtime: bool = False) -> None:
        model = real_model(path)
        constants = {tensor.name for tensor in model.source.graph.initializer}
        (self._input,) = (value.name for value in model.source.graph.input if value.name not in constants)
        self._output, self.winner = model.source.graph.output[0].name, winner
        self.image = image.astype(np.float64)
        results = runtime_results(model, {self._input: image}) if runtime else {}
        at = model.rounded(results).run({self._input: self.image}, [*model.anchors(), self._output])
        self.logits = at[self._output]
        self._evaluator = model.anchored({**at, **results})

    def __call__(self, image: Array) -> float:
        """log z_i."""
        logits = self._evaluator.run({self._input: image})[self._output].reshape(-1)
        highest = logits.max()
        return float(logits[self.winner] - highest - np.log(np.exp(logits - highest).sum()))

    def slope(self, direction: Array) -> float | None:
        """The derivative along a direction (of any length); None if there is a kink at every step size."""
        here = self(self.image)
        for step in STEPS:
            move = direction * (step / np.sqrt(np.mean(direction**2)))
            ahead, behind = self(self.image + move) - here, here - self(self.image - move)
            if abs(ahead - behind) < ONE_SIDED_AGREEMENT * max(abs(ahead), abs(behind)):
                return (ahead + behind) / (2 * step) * float(np.sqrt(np.mean(direction**2)))
        return None


def runtime_results(model: RealModel, feeds: dict[str, Array]) -> dict[str, Array]:
    """The results of all quantizations of a model in onnxruntime, in the real domain."""
    import onnxruntime

    source = onnx.ModelProto()
    source.CopyFrom(model.source)
    known = {value.name for value in source.graph.output}
    names = [q.after for q in model.quantizations]
    source.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(source.SerializeToString(), options, providers=["CPUExecutionProvider"])
    integers = session.run(names, feeds)
    return {
        q.after: q.scale * (value.astype(np.float64) - q.zero)
        for q, value in zip(model.quantizations, integers, strict=True)
    }


def differences(function: Anchored, gradient: Array, directions: int = 4) -> list[float | None]:
    """Differences of a gradient from directional derivatives, relative to its typical directional derivative.

    Half of the directions are white noise, half are the gradient times white noise in 0..2, with large derivatives.
    """
    generator = np.random.default_rng(0)
    errors: list[float | None] = []
    for index in range(directions):
        noise = generator.normal(size=gradient.shape)
        direction = noise if index % 2 == 0 else gradient * generator.uniform(0, 2, gradient.shape)
        expected = float(np.sum(gradient * direction))
        typical = max(abs(expected), float(np.linalg.norm(gradient) * np.linalg.norm(direction) / np.sqrt(noise.size)))
        found = function.slope(direction)
        errors.append(None if found is None else abs(found - expected) / typical)
    return errors
