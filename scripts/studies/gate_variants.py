"""The variants of the gate study: correct and incorrect things that pipelines do to a trained network.

A variant takes a `Bench` (a network, its data and a random generator) and returns a changed model; the study measures
its loss of accuracy. Kinds whose names start with "structural", "storage" or "class" are also evaluated by name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from onnxgain.model.input_scale import PRESETS, InputScale
from scripts.studies.gate_graphs import (
    Array,
    Layer,
    UnsuitableError,
    activations,
    affine_input,
    after_value,
    along,
    classes_of,
    constant,
    each_weight,
    initializers,
    layers,
    store,
    transposed_input,
    value,
    with_outputs,
)
from scripts.studies.gate_networks import Interface, Labelled, answers, session


@dataclass
class Bench:
    """A network, with the data to create variants of it.

    Attributes:
        original: the unmodified model; `model()` returns a copy to change.
        train: images for calibration and fine-tuning.
        rng: a generator that is seeded by network and variant.
        declared: the input scale of the variant, if it differs from the network's.
    """

    original: ModelProto
    interface: Interface
    train: Labelled
    offset: int
    rng: np.random.Generator = field(default_factory=np.random.default_rng)
    declared: InputScale | None = None
    cache: dict[str, Any] = field(default_factory=dict)

    def model(self) -> ModelProto:
        copy = ModelProto()
        copy.CopyFrom(self.original)
        return copy

    def largest_activations(self) -> dict[str, float]:
        """The largest value of every activation over 32 images."""
        if "largest" not in self.cache:
            names = [node.output[0] for node in activations(self.original)]
            runner = session(with_outputs(self.original, names))
            pixels = self.train.images[:32]
            self.cache["largest"] = {n: float(answers(runner, self.interface, pixels, n).max()) for n in names}
        return self.cache["largest"]


Make = Callable[[Bench], ModelProto]
VARIANTS: dict[str, tuple[str, Make]] = {}
"""By name: (kind, function)."""


def variant(
    kind: str, name: str, /, **parameters: Any
) -> Callable[[Callable[..., ModelProto]], Callable[..., ModelProto]]:
    def register(make: Callable[..., ModelProto]) -> Callable[..., ModelProto]:
        assert name not in VARIANTS, name
        VARIANTS[name] = (kind, lambda bench: make(bench, **parameters))
        return make

    return register


# ------------------------------------------------------------------------------------ structural, storage
@variant("structural", "another opset")
def another_opset(bench: Bench) -> ModelProto:
    version = bench.original.opset_import[0].version
    return onnx.version_converter.convert_version(bench.model(), 13 if version < 13 else 21 if version < 21 else 18)


def optimized(bench: Bench, level: str) -> ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 4
        onnxruntime.InferenceSession(bench.original.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(path)


variant("structural", "onnxruntime basic", level="ORT_ENABLE_BASIC")(optimized)
variant("structural", "onnxruntime extended", level="ORT_ENABLE_EXTENDED")(optimized)


@variant("structural", "normalization folded in")
def folded_normalization(bench: Bench) -> ModelProto:
    """The model takes 0..255 and normalizes its input itself."""
    scale, model = bench.interface.scale, bench.model()
    if scale.name == "raw" or scale.bgr:
        raise UnsuitableError("takes 0..255 already")
    mean, std = (np.array(v, dtype=np.float32) for v in (scale.mean, scale.std))
    affine_input(model, bench.interface, np.float32(scale.scale) / std, -mean / std)
    bench.declared = PRESETS["raw"]
    return model


@variant("structural", "bias as Add")
def bias_as_add(bench: Bench) -> ModelProto:
    model = bench.model()
    for layer in layers(model):
        if layer.node.op_type == "Conv" and len(layer.node.input) > 2:
            bias = value(model, layer.node.input[2])
            name = constant(model, "bias", bias.reshape(1, -1, *[1] * (value(model, layer.weight).ndim - 2)))
            del layer.node.input[2]

            def make(source: str, target: str, name: str = name) -> list[onnx.NodeProto]:
                return [helper.make_node("Add", [source, name], [target])]

            after_value(model, layer.node.output[0], make)
    return model


@variant("structural", "transposed twice")
def transposed_twice(bench: Bench) -> ModelProto:
    model = bench.model()
    transposed_input(model, bench.interface)
    transposed_input(model, bench.interface)
    return model


def narrow(bench: Bench, kind: int) -> ModelProto:
    """Store weights as 16-bit floats and cast them back."""
    model = bench.model()
    for layer in layers(model):
        if layer.weight.startswith("wide"):
            continue
        array = value(model, layer.weight)
        wide = f"wide_{layer.weight}"
        if kind == TensorProto.FLOAT16:
            store(model, layer.weight, array.astype(np.float16))
        else:
            data = bfloat16(array)
            tensor = helper.make_tensor(layer.weight, TensorProto.BFLOAT16, array.shape, data.tobytes(), raw=True)
            initializers(model)[layer.weight].CopyFrom(tensor)
        for node in model.graph.node:
            for place, used in enumerate(node.input):
                if used == layer.weight:
                    node.input[place] = wide
        model.graph.node.insert(0, helper.make_node("Cast", [layer.weight], [wide], to=TensorProto.FLOAT))
    if model.opset_import[0].version < 13:
        return onnx.version_converter.convert_version(model, 13)
    return model


def bfloat16(array: Array) -> NDArray[np.uint16]:
    """Round to nearest, ties to even."""
    bits = array.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


variant("storage", "weights stored as fp16", kind=TensorProto.FLOAT16)(narrow)
variant("storage", "weights stored as bf16", kind=TensorProto.BFLOAT16)(narrow)


@variant("storage", "computed in fp16")
def computed_in_fp16(bench: Bench) -> ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(bench.model(), keep_io_types=True)


# -------------------------------------------------------------------------------------------- quantization
def rounded(array: Array, layer: Layer, bits: int, *, per_channel: bool) -> Array:
    axes = tuple(a for a in range(array.ndim) if a != layer.axis) if per_channel else None
    top = 2 ** (bits - 1) - 1
    step = np.maximum(np.abs(array).max(axis=axes, keepdims=True) / top, 1e-30)
    return np.clip(np.rint(array / step), -top, top) * step


def rounding(bench: Bench, bits: int, per_channel: bool) -> ModelProto:
    model = bench.model()
    each_weight(model, lambda array, layer: rounded(array, layer, bits, per_channel=per_channel))
    return model


for _bits in (8, 7, 6, 5, 4, 3, 2):
    variant("weights rounded", f"weights of {_bits} bits", bits=_bits, per_channel=False)(rounding)
for _bits in (6, 4, 3, 2):
    variant("weights rounded", f"weights of {_bits} bits a channel", bits=_bits, per_channel=True)(rounding)


def quantized(bench: Bench, calibration: str, per_channel: bool = True, method: str = "MinMax") -> ModelProto:
    """onnxruntime's static quantization to 8 bits, in QDQ form."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    count = {"one image": 1, "four images": 4}.get(calibration, 48)
    pixels = bench.train.images[:count].copy()
    if calibration == "noise":
        pixels = bench.rng.integers(0, 256, pixels.shape, dtype=np.uint8)
    elif calibration == "dark":
        pixels = pixels // 6
    elif calibration == "grey":
        pixels = np.full_like(pixels[:4], 128)
    arrays = [np.repeat(bench.interface.feed(p[None]), bench.interface.batch or 1, axis=0) for p in pixels]
    feeds = iter([{bench.interface.name: array} for array in arrays])

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Array] | None:
            return next(feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        names = [str(Path(folder) / f"{n}.onnx") for n in ("source", "prepared", "target")]
        model = bench.model()
        if model.opset_import[0].version < 13:
            model = onnx.version_converter.convert_version(model, 13)
        onnx.save(model, names[0])
        quant_pre_process(names[0], names[1], skip_symbolic_shape=True)
        quantization.quantize_static(
            names[1],
            names[2],
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=per_channel,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=getattr(quantization.CalibrationMethod, method),
        )
        return onnx.load(names[2])


variant("int8", "int8, a scale a channel", calibration="good")(quantized)
variant("int8", "int8, a scale a tensor", calibration="good", per_channel=False)(quantized)
variant("int8", "int8, percentile", calibration="four images", method="Percentile")(quantized)
variant("int8 badly calibrated", "int8, one image", calibration="one image")(quantized)
variant("int8 badly calibrated", "int8, calibrated on noise", calibration="noise")(quantized)
variant("int8 badly calibrated", "int8, calibrated on dark images", calibration="dark")(quantized)
variant("int8 badly calibrated", "int8, calibrated on grey", calibration="grey", per_channel=False)(quantized)


@variant("int8", "int8, dynamic")
def dynamic(bench: Bench) -> ModelProto:
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory() as folder:
        names = [str(Path(folder) / f"{n}.onnx") for n in ("source", "target")]
        onnx.save(bench.model(), names[0])
        quantization.quantize_dynamic(names[0], names[1], weight_type=quantization.QuantType.QUInt8)
        return onnx.load(names[1])


# --------------------------------------------------------------------------------- pruning, noise, damage
def pruned(bench: Bench, part: float) -> ModelProto:
    """Set the smallest weights of every layer to zero."""
    model = bench.model()
    each_weight(model, lambda a, _: np.where(np.abs(a) < np.quantile(np.abs(a), part), 0, a))
    return model


for _part in (0.05, 0.1, 0.3, 0.5, 0.7, 0.9):
    variant("pruned", f"pruned {_part:.0%}", part=_part)(pruned)


def noisy(bench: Bench, strength: float) -> ModelProto:
    model = bench.model()
    each_weight(model, lambda a, _: a + bench.rng.normal(size=a.shape) * a.std() * strength)
    return model


for _strength in (0.003, 0.01, 0.03, 0.1, 0.2, 0.4):
    variant("noise on weights", f"noise of {_strength:g}", strength=_strength)(noisy)


def one_layer(bench: Bench, how: str) -> ModelProto:
    model = bench.model()
    index = int(bench.rng.integers(len(layers(model))))
    edits: dict[str, Callable[[Array, Layer], Array]] = {
        "noise": lambda a, _: a + bench.rng.normal(size=a.shape) * a.std() * 0.5,
        "rounded": lambda a, layer: rounded(a, layer, 3, per_channel=False),
        "scaled": lambda a, _: a * 1.5,
        "weak": lambda a, _: a * 0.9,
        "flipped": lambda a, _: a[..., ::-1, ::-1] if a.ndim == 4 else a[::-1],
        "dead": lambda a, layer: a * along((bench.rng.random(a.shape[layer.axis]) > 0.1), layer, a.ndim),
    }
    each_weight(model, edits[how], [index])
    return model


variant("one layer", "one layer with noise", how="noise")(one_layer)
variant("one layer", "one layer of 3 bits", how="rounded")(one_layer)
variant("one layer", "one layer times 1.5", how="scaled")(one_layer)
variant("one layer", "one layer times 0.9", how="weak")(one_layer)
variant("one layer", "one layer's kernels flipped", how="flipped")(one_layer)
variant("one layer", "a tenth of a layer dead", how="dead")(one_layer)


def broken_statistics(bench: Bench, strength: float) -> ModelProto:
    """Scale and shift the outputs of every convolution at random, like statistics of other data."""
    model = bench.model()
    for layer in layers(model)[:-1]:
        array = value(model, layer.weight)
        factors = np.exp(bench.rng.normal(size=array.shape[layer.axis]) * strength).astype(np.float32)
        store(model, layer.weight, array * along(factors, layer, array.ndim))
        if layer.bias is not None:
            bias = value(model, layer.bias)
            if bias.size == factors.size:
                shift = bench.rng.normal(size=bias.shape) * bias.std() * strength
                store(model, layer.bias, (bias * factors.reshape(bias.shape) + shift).astype(np.float32))
    return model


for _strength in (0.02, 0.05, 0.1, 0.2, 0.5):
    variant("broken statistics", f"statistics off by {_strength:g}", strength=_strength)(broken_statistics)


def wrong_epsilon(bench: Bench, epsilon: float) -> ModelProto:
    """Shrink every channel by sqrt(v / (v + epsilon)), with v log-normal around 0.05, like another epsilon."""
    model = bench.model()

    def edit(array: Array, layer: Layer) -> Array:
        variance = 0.05 * np.exp(bench.rng.normal(size=array.shape[layer.axis]))
        return array * along(np.sqrt(variance / (variance + epsilon)), layer, array.ndim)

    each_weight(model, edit, range(len(layers(model)) - 1))
    return model


variant("wrong epsilon", "epsilon 0.001 for 0.00001", epsilon=1e-3)(wrong_epsilon)
variant("wrong epsilon", "epsilon 0.01", epsilon=1e-2)(wrong_epsilon)
variant("wrong epsilon", "epsilon 0.1", epsilon=1e-1)(wrong_epsilon)


def clipped(bench: Bench, part: float) -> ModelProto:
    """Clip every activation at a fraction of its largest observed value."""
    model = bench.model()
    for name, largest in bench.largest_activations().items():
        top = constant(model, "top", np.array(largest * part, dtype=np.float32))

        def make(source: str, target: str, top: str = top) -> list[onnx.NodeProto]:
            return [helper.make_node("Min", [source, top], [target])]

        after_value(model, name, make)
    return model


for _part in (0.9, 0.5, 0.25, 0.1):
    variant("clipped activations", f"activations cut at {_part:g}", part=_part)(clipped)


def changed_activation(bench: Bench, operator: str, count: int | None, **attributes: Any) -> ModelProto:
    model = bench.model()
    nodes = [node for node in activations(model) if node.op_type in ("Relu", "Clip")]
    if not nodes:
        raise UnsuitableError("no ReLU")
    chosen = nodes if count is None else [nodes[i] for i in bench.rng.permutation(len(nodes))[:count]]
    for node in chosen:
        node.op_type = operator
        del node.input[1:]
        del node.attribute[:]
        node.attribute.extend(helper.make_attribute(key, entry) for key, entry in attributes.items())
    return model


variant("wrong activation", "leaky ReLU for ReLU", operator="LeakyRelu", count=None, alpha=0.01)(changed_activation)
variant("wrong activation", "one ReLU lost", operator="Identity", count=1)(changed_activation)
variant("wrong activation", "leaky ReLU of 0.1", operator="LeakyRelu", count=None, alpha=0.1)(changed_activation)


def dropped_bias(bench: Bench, which: str) -> ModelProto:
    model = bench.model()
    found = [layer.bias for layer in layers(model) if layer.bias is not None]
    if not found:
        raise UnsuitableError("no bias")
    chosen = {"last": found[-1:], "first": found[:1], "one": [found[int(bench.rng.integers(len(found)))]], "all": found}
    for name in chosen[which]:
        store(model, name, np.zeros_like(value(model, name)))
    return model


for _which in ("last", "first", "one", "all"):
    variant("dropped bias", f"bias dropped: {_which}", which=_which)(dropped_bias)


def temperature(bench: Bench, factor: float) -> ModelProto:
    """Make the model more or less confident, with the same predicted classes."""
    model = bench.model()
    last, _ = classes_of(model)
    store(model, last.weight, value(model, last.weight) * factor)
    if last.bias is not None:
        store(model, last.bias, value(model, last.bias) * factor)
    return model


variant("temperature", "logits halved", factor=np.float32(0.5))(temperature)
variant("temperature", "logits doubled", factor=np.float32(2.0))(temperature)
