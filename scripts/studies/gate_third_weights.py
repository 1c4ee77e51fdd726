"""Variants for the third judgement of the gate: the same function in other forms, other precisions and changed weights.

Neither the first study nor the second judgement holds these kinds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper

from onnxgain.model.input_scale import PRESETS
from scripts.studies.gate_graphs import (
    Array,
    Layer,
    UnsuitableError,
    along,
    before_input,
    constant,
    each_weight,
    initializers,
    layers,
    store,
    value,
)
from scripts.studies.gate_variants import Bench, Make, quantized

THIRD: dict[str, tuple[str, Make]] = {}
"""By name: (kind, function), like `gate_variants.VARIANTS`."""


def variant(kind: str, name: str, make: Callable[..., ModelProto], /, **parameters: Any) -> None:
    assert name not in THIRD, name
    THIRD[name] = (kind, lambda bench: make(bench, **parameters))


def nodes_of(model: ModelProto, *operators: str) -> list[NodeProto]:
    found = [node for node in model.graph.node if node.op_type in operators]
    if not found:
        raise UnsuitableError(f"no {operators[0]}")
    return found


def replaced(model: ModelProto, node: NodeProto, made: list[NodeProto]) -> None:
    place = next(i for i, other in enumerate(model.graph.node) if other is node)
    del model.graph.node[place]
    for offset, entry in enumerate(made):
        model.graph.node.insert(place + offset, entry)


# ---------------------------------------------------------------------------------- the same function in another form
def slimmed(bench: Bench) -> ModelProto:
    import onnxslim

    return onnxslim.slim(bench.model())


def simplified(bench: Bench) -> ModelProto:
    import onnxsim

    return onnxsim.simplify(bench.model())[0]


def renamed(bench: Bench) -> ModelProto:
    """Every tensor of the graph has another name, inputs and outputs too."""
    model = bench.model()
    names: dict[str, str] = {"": ""}
    for node in model.graph.node:
        for names_of in (node.input, node.output):
            names_of[:] = [names.setdefault(name, f"t{len(names)}") for name in names_of]
        node.name = ""
    for entry in (*model.graph.input, *model.graph.output, *model.graph.initializer, *model.graph.value_info):
        entry.name = names.get(entry.name, f"unused_{entry.name}")
    return model


def scale_folded(bench: Bench) -> ModelProto:
    """The first convolution takes 0..255: the factor 1/255 is in its weights."""
    model, layer = bench.model(), layers(bench.original)[0]
    if bench.interface.scale.name != "unit" or layer.axis != 0 or layer.node.op_type != "Conv":
        raise UnsuitableError("no scale that could be folded into a convolution")
    store(model, layer.weight, value(model, layer.weight) / np.float32(255))
    bench.declared = PRESETS["raw"]
    return model


def other_layout(bench: Bench) -> ModelProto:
    """The input is NHWC."""
    model, interface = bench.model(), bench.interface
    if interface.layout != "NCHW":
        raise UnsuitableError("an image that is not NCHW")
    before_input(
        model,
        interface.name,
        lambda source, target: [helper.make_node("Transpose", [source], [target], perm=[0, 3, 1, 2])],
    )
    (image,) = (entry for entry in model.graph.input if entry.name == interface.name)
    dims = [(dim.dim_param or None) if dim.dim_param else dim.dim_value for dim in image.type.tensor_type.shape.dim]
    image.CopyFrom(helper.make_tensor_value_info(image.name, TensorProto.FLOAT, [dims[i] for i in (0, 2, 3, 1)]))
    return model


def with_head(bench: Bench, operator: str, **attributes: Any) -> ModelProto:
    model = bench.model()
    output = model.graph.output[0]
    if any(node.op_type in ("Softmax", "LogSoftmax") for node in model.graph.node[-3:]):
        raise UnsuitableError("ends in a softmax")
    inner = f"{output.name}_logits"
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [inner if name == output.name else name for name in names]
    rank = len(output.type.tensor_type.shape.dim)
    axis = attributes.pop("axis", 1 if rank == 4 else -1)
    model.graph.node.append(helper.make_node(operator, [inner], [output.name], axis=axis, **attributes))
    return model


def without_softmax(bench: Bench) -> ModelProto:
    model = bench.model()
    last = next((node for node in model.graph.node if model.graph.output[0].name in node.output), None)
    if last is None or last.op_type != "Softmax":
        raise UnsuitableError("does not end in a softmax")
    last.op_type = "Identity"
    del last.attribute[:]
    return model


def as_clip(bench: Bench) -> ModelProto:
    """Each ReLU is a Clip or a Max."""
    model = bench.model()
    zero = constant(model, "zero", np.array(0, np.float32))
    for number, node in enumerate(nodes_of(model, "Relu")):
        node.op_type = "Max" if number % 2 and model.opset_import[0].version >= 8 else "Clip"
        if model.opset_import[0].version < 11 and node.op_type == "Clip":
            node.attribute.append(helper.make_attribute("min", 0.0))
            continue
        node.input.append(zero)
    return model


def in_two(bench: Bench) -> ModelProto:
    """Each convolution without groups is two, of half its filters, whose results are joined."""
    model = bench.model()
    for layer in [entry for entry in layers(model) if entry.node.op_type == "Conv"]:
        weight, bias = value(model, layer.weight), layer.node.input[2] if len(layer.node.input) > 2 else None
        group = next((a.i for a in layer.node.attribute if a.name == "group"), 1)
        if group != 1 or len(weight) < 2 or (bias is not None and bias not in initializers(model)):
            continue
        half, outputs, made = len(weight) // 2, [], []
        for part in (slice(None, half), slice(half, None)):
            names = [constant(model, "half", weight[part])]
            names += [constant(model, "half", value(model, bias)[part])] if bias is not None else []
            outputs.append(f"{layer.node.output[0]}_{len(outputs)}")
            node = helper.make_node("Conv", [layer.node.input[0], *names], outputs[-1:])
            node.attribute.extend(layer.node.attribute)
            made.append(node)
        replaced(model, layer.node, [*made, helper.make_node("Concat", outputs, layer.node.output, axis=1)])
    return model


def fully_optimized(bench: Bench) -> ModelProto:
    """onnxruntime's optimization of all levels, with layouts for this processor."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.optimized_model_filepath, options.log_severity_level = str(path), 4
        onnxruntime.InferenceSession(bench.original.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(path)


def computed_in_bf16(bench: Bench) -> ModelProto:
    """The inputs of every product are rounded to bf16."""
    model = bench.model()
    if model.opset_import[0].version < 13:
        model = onnx.version_converter.convert_version(model, 13)
    for layer in layers(model):
        name, node = layer.node.input[0], layer.node
        short, wide = f"{node.output[0]}_short", f"{node.output[0]}_wide"
        place = next(i for i, other in enumerate(model.graph.node) if other is node)
        node.input[0] = wide
        model.graph.node.insert(place, helper.make_node("Cast", [short], [wide], to=TensorProto.FLOAT))
        model.graph.node.insert(place, helper.make_node("Cast", [name], [short], to=TensorProto.BFLOAT16))
    return model


def in_float16(bench: Bench) -> ModelProto:
    """All in float16, input and output too."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(bench.model(), keep_io_types=False)


variant("other form", "onnxslim", slimmed)
variant("other form", "onnxsim", simplified)
variant("other form", "all names changed", renamed)
variant("other form", "scale folded into the first layer", scale_folded)
variant("other form", "NHWC input", other_layout)
variant("other form", "Softmax appended", with_head, operator="Softmax")
variant("other form", "LogSoftmax appended", with_head, operator="LogSoftmax")
variant("other form", "Softmax removed", without_softmax)
variant("other form", "ReLU as Clip and Max", as_clip)
variant("other form", "convolutions in two halves", in_two)
variant("other form", "onnxruntime all", fully_optimized)
variant("other precision", "products in bf16", computed_in_bf16)
variant("other precision", "fp16 throughout", in_float16)


# ----------------------------------------------------------------------------------------------------------- int8
variant("int8 of other makes", "int8, entropy calibration", quantized, calibration="good", method="Entropy")
variant("int8 of other makes", "int8, percentile of 48 images", quantized, calibration="good", method="Percentile")


def edited(bench: Bench, edit: Callable[[Array, Layer], Array]) -> ModelProto:
    model = bench.model()
    each_weight(model, edit)
    return model


def clipped(array: Array, deviations: float) -> Array:
    size = deviations * array.std()
    return np.clip(array, -size, size)


def stochastic(array: Array, rng: np.random.Generator, bits: int) -> Array:
    step = max(float(np.abs(array).max()), 1e-30) / (2 ** (bits - 1) - 1)
    return np.floor(array / step + rng.random(array.shape)) * step


def zeroed(bench: Bench, part: float) -> ModelProto:
    """Set weights to zero that are drawn at random."""
    return edited(bench, lambda a, _: np.where(bench.rng.random(a.shape) < part, 0, a))


def stochastically_rounded(bench: Bench, bits: int) -> ModelProto:
    return edited(bench, lambda a, _: stochastic(a, bench.rng, bits))


for _deviations in (4.0, 3.0, 2.0, 1.0):
    variant("weights clipped", f"weights clipped at {_deviations:g} deviations", edited,
            edit=lambda a, _, d=_deviations: clipped(a, d))  # fmt: skip
for _part in (0.002, 0.01, 0.05):
    variant("weights lost at random", f"{_part:.1%} of the weights lost", zeroed, part=_part)
variant("rounded at random", "8 bits, rounded at random", stochastically_rounded, bits=8)
variant("rounded at random", "6 bits, rounded at random", stochastically_rounded, bits=6)
variant(
    "kernels", "all kernels turned by 180 degrees", edited, edit=lambda a, _: a[..., ::-1, ::-1] if a.ndim == 4 else a
)
variant("kernels", "all kernels transposed", edited, edit=lambda a, _: a.swapaxes(2, 3) if a.ndim == 4 else a)


def one_channel(bench: Bench, factor: float, where: str) -> ModelProto:
    """Multiply one output channel of a layer, with its bias; the strongest one, or one drawn at random."""
    model = bench.model()
    found = layers(model)[:-1]
    if not found:
        raise UnsuitableError("one layer only")
    layer = found[0] if where == "first" else found[int(bench.rng.integers(len(found)))]
    array = value(model, layer.weight)
    norms = np.sqrt((array**2).sum(axis=tuple(a for a in range(array.ndim) if a != layer.axis)))
    chosen = int(norms.argmax()) if where == "first" else int(bench.rng.integers(len(norms)))
    factors = np.ones(len(norms), np.float32)
    factors[chosen] = factor
    store(model, layer.weight, array * along(factors, layer, array.ndim))
    if layer.bias is not None and (bias := value(model, layer.bias)).size == len(factors):
        store(model, layer.bias, bias * factors.reshape(bias.shape))
    return model


for _factor, _what in ((0.0, "lost"), (-1.0, "negated"), (8.0, "times 8")):
    variant("one channel", f"the first layer's strongest channel {_what}", one_channel, factor=_factor, where="first")
    variant("one channel", f"a channel {_what}", one_channel, factor=_factor, where="any")


def flipped_bit(bench: Bench, bit: int, count: int) -> ModelProto:
    """Flip a bit of weights, as faulty memory does."""
    model = bench.model()
    found = layers(model)
    for _ in range(count):
        layer = found[int(bench.rng.integers(len(found)))]
        array = value(model, layer.weight).copy()
        bits = array.reshape(-1).view(np.uint32)
        bits[int(bench.rng.integers(len(bits)))] ^= np.uint32(1 << bit)
        store(model, layer.weight, array)
    return model


variant("flipped bits", "a sign flipped", flipped_bit, bit=31, count=1)
variant("flipped bits", "an exponent's bit flipped (times 16)", flipped_bit, bit=25, count=1)
variant("flipped bits", "ten exponents' bits flipped (times 16)", flipped_bit, bit=25, count=10)
variant("flipped bits", "an exponent's highest bit flipped", flipped_bit, bit=30, count=1)


def truncated(bench: Bench, part: float) -> ModelProto:
    """The end of the largest weight is zero, as after an interrupted copy."""
    model = bench.model()
    layer = max(layers(model), key=lambda entry: value(model, entry.weight).size)
    array = value(model, layer.weight).copy()
    flat = array.reshape(-1)
    flat[int(len(flat) * (1 - part)) :] = 0
    store(model, layer.weight, array)
    return model


variant("lost end of a weight", "the last 2 % of a layer lost", truncated, part=0.02)
variant("lost end of a weight", "the last quarter of a layer lost", truncated, part=0.25)
