"""Variants for the second evaluation of the gate's thresholds: kinds that were not used to choose them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper

from scripts.studies.gate_graphs import (
    Array,
    Layer,
    UnsuitableError,
    activations,
    affine_input,
    after_value,
    along,
    before_input,
    classes_of,
    constant,
    each_weight,
    gathered_input,
    layers,
    store,
    value,
)
from scripts.studies.gate_tunes import last_layer
from scripts.studies.gate_variants import Bench, Make

SECOND: dict[str, tuple[str, Make]] = {}
"""By name: (kind, function), like `gate_variants.VARIANTS`."""


def variant(kind: str, name: str, make: Callable[..., ModelProto], /, **parameters: Any) -> None:
    assert name not in SECOND, name
    SECOND[name] = (kind, lambda bench: make(bench, **parameters))


# ------------------------------------------------------------------------------------------------- weights
def edited(bench: Bench, edit: Callable[[Array, Layer], Array]) -> ModelProto:
    model = bench.model()
    each_weight(model, edit)
    return model


def in_blocks(array: Array, bits: int, size: int = 32) -> Array:
    """Round to signed integers, with one step size per block of ``size`` weights."""
    flat = np.pad(array.ravel(), (0, -array.size % size)).reshape(-1, size)
    top = 2 ** (bits - 1) - 1
    step = np.maximum(np.abs(flat).max(axis=1, keepdims=True) / top, 1e-30)
    return (np.rint(flat / step) * step).ravel()[: array.size].reshape(array.shape)


def as_float8(array: Array, mantissa: int, least: int) -> Array:
    """Round to ``mantissa`` bits of mantissa, scaled so that the largest weight is in range."""
    size = float(np.abs(array).max()) or 1.0
    scaled = array / size * 448.0
    exponent = np.maximum(np.floor(np.log2(np.maximum(np.abs(scaled), 1e-30))), least)
    step = 2.0 ** (exponent - mantissa)
    return np.rint(scaled / step) * step / 448.0 * size


def clustered(array: Array, count: int) -> Array:
    """Replace each weight by the nearest of `count` quantiles, refined by three rounds of k-means."""
    centres = np.quantile(array, (np.arange(count) + 0.5) / count)
    for _ in range(3):
        nearest = np.abs(array.ravel()[:, None] - centres).argmin(axis=1)
        sums, sizes = np.bincount(nearest, array.ravel(), count), np.bincount(nearest, minlength=count)
        centres = np.where(sizes > 0, sums / np.maximum(sizes, 1), centres)
    return centres[np.abs(array.ravel()[:, None] - centres).argmin(axis=1)].reshape(array.shape)


def low_rank(array: Array, layer: Layer, part: float) -> Array:
    matrix = np.moveaxis(array, layer.axis, 0)
    u, s, v = np.linalg.svd(matrix.reshape(len(matrix), -1), full_matrices=False)
    kept = max(round(part * len(s)), 1)
    return np.moveaxis(((u[:, :kept] * s[:kept]) @ v[:kept]).reshape(matrix.shape), 0, layer.axis)


def two_of_four(array: Array) -> Array:
    """Set the two smallest of every four weights to zero."""
    flat = np.pad(array.ravel(), (0, -array.size % 4)).reshape(-1, 4)
    order = np.abs(flat).argsort(axis=1).argsort(axis=1)
    return np.where(order >= 2, flat, 0).ravel()[: array.size].reshape(array.shape)


def fewer_filters(array: Array, layer: Layer, part: float) -> Array:
    """Set the filters with the smallest norms to zero."""
    if array.shape[layer.axis] < 16:
        return array
    norms = np.sqrt((array**2).sum(axis=tuple(a for a in range(array.ndim) if a != layer.axis)))
    return array * along(norms > np.quantile(norms, part), layer, array.ndim)


variant("int4", "int4 in blocks of 32", edited, edit=lambda a, _: in_blocks(a, 4))
variant("int4", "int5 in blocks of 32", edited, edit=lambda a, _: in_blocks(a, 5))
variant("fp8", "fp8 e4m3 weights", edited, edit=lambda a, _: as_float8(a, 3, -6))
variant("fp8", "fp8 e5m2 weights", edited, edit=lambda a, _: as_float8(a, 2, -14))
variant("clustered", "weights of 32 values", edited, edit=lambda a, _: clustered(a, 32))
variant("clustered", "weights of 8 values", edited, edit=lambda a, _: clustered(a, 8))
variant("low rank", "rank 75 %", edited, edit=lambda a, layer: low_rank(a, layer, 0.75))
variant("low rank", "rank 50 %", edited, edit=lambda a, layer: low_rank(a, layer, 0.5))
variant("pruned otherwise", "two of four", edited, edit=lambda a, _: two_of_four(a))
variant("pruned otherwise", "a tenth of the filters", edited, edit=lambda a, layer: fewer_filters(a, layer, 0.1))
variant("pruned otherwise", "a third of the filters", edited, edit=lambda a, layer: fewer_filters(a, layer, 1 / 3))


def of_one(bench: Bench, edit: Callable[[Array, Layer, np.random.Generator], Array]) -> ModelProto:
    """Edit one layer, chosen at random among those that the edit changes."""
    model = bench.model()
    found = layers(model)
    for index in bench.rng.permutation(len(found)):
        array = value(model, found[index].weight)
        changed = edit(array, found[index], bench.rng)
        if not np.array_equal(changed, array):
            store(model, found[index].weight, changed.astype(np.float32))
            return model
    raise UnsuitableError("no layer that this would change")


def transposed_block(array: Array, layer: Layer, rng: np.random.Generator) -> Array:
    return array.swapaxes(0, 1) if array.shape[0] == array.shape[1] else array


def turned_kernels(array: Array, layer: Layer, rng: np.random.Generator) -> Array:
    return array.swapaxes(2, 3) if array.ndim == 4 and array.shape[2] == array.shape[3] else array


def other_filters(array: Array, layer: Layer, rng: np.random.Generator) -> Array:
    return array.take(rng.permutation(array.shape[layer.axis]), layer.axis)


variant("layout", "a square layer transposed", of_one, edit=transposed_block)
variant("layout", "kernels of a layer transposed", of_one, edit=turned_kernels)
variant("layout", "filters of a layer in another order", of_one, edit=other_filters)


def exchanged_layers(bench: Bench) -> ModelProto:
    """Swap the weights of two layers of the same shape."""
    model = bench.model()
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for layer in layers(model):
        by_shape.setdefault(value(model, layer.weight).shape, []).append(layer.weight)
    names = max(by_shape.values(), key=len)
    if len(names) < 2:
        raise UnsuitableError("no two layers of one shape")
    one, other = (names[i] for i in bench.rng.permutation(len(names))[:2])
    first, second = value(model, one), value(model, other)
    store(model, one, second)
    store(model, other, first)
    return model


variant("layout", "two layers exchanged", exchanged_layers)


# --------------------------------------------------------------------------------------------------- nodes
def lost_layer(bench: Bench) -> ModelProto:
    """Bypass a convolution that keeps the shape of its input."""
    model = bench.model()
    fitting = []
    for layer in layers(model)[1:-1]:
        shape = value(model, layer.weight).shape
        strides = next((list(a.ints) for a in layer.node.attribute if a.name == "strides"), [1, 1])
        if len(shape) == 4 and shape[0] == shape[1] and set(strides) == {1}:
            fitting.append(layer.node)
    if not fitting:
        raise UnsuitableError("no layer that keeps its shape")
    node = fitting[int(bench.rng.integers(len(fitting)))]
    node.op_type = "Identity"
    del node.input[1:], node.attribute[:]
    return model


def lost_branch(bench: Bench) -> ModelProto:
    """Replace a residual addition by its first input."""
    model = bench.model()
    known = {tensor.name for tensor in model.graph.initializer}
    adds = [n for n in model.graph.node if n.op_type == "Add" and not known & set(n.input)]
    if not adds:
        raise UnsuitableError("no residual connection")
    node = adds[int(bench.rng.integers(len(adds)))]
    node.op_type = "Identity"
    del node.input[1:]
    return model


def other_activation(bench: Bench, how: str) -> ModelProto:
    model = bench.model()
    nodes = [n for n in activations(model) if n.op_type == "Relu"]
    if not nodes:
        raise UnsuitableError("no ReLU")
    for node in nodes:
        source, target = node.input[0], node.output[0]
        place = next(i for i, n in enumerate(model.graph.node) if n is node)
        if how == "ReLU6":
            six = constant(model, "six", np.array(6, dtype=np.float32))
            made = [helper.make_node("Min", [f"{target}_r", six], [target])]
            made.insert(0, helper.make_node("Relu", [source], [f"{target}_r"]))
        else:
            factor = constant(model, "factor", np.array(1.702, dtype=np.float32))
            made = [
                helper.make_node("Mul", [source, factor], [f"{target}_m"]),
                helper.make_node("Sigmoid", [f"{target}_m"], [f"{target}_s"]),
                helper.make_node("Mul", [source, f"{target}_s"], [target]),
            ]
        del model.graph.node[place]
        for offset, entry in enumerate(made):
            model.graph.node.insert(place + offset, entry)
    return model


def other_padding(bench: Bench, mode: str) -> ModelProto:
    """Pad convolutions by mirroring, or shifted by one pixel, instead of with zeros on all sides."""
    model = bench.model()
    found = 0
    for node in [n for n in model.graph.node if n.op_type == "Conv"]:
        pads = next((a for a in node.attribute if a.name == "pads"), None)
        if pads is None or not any(pads.ints) or len(pads.ints) != 4:
            continue
        found += 1
        top, left, bottom, right = pads.ints
        if mode == "shifted":
            pads.ints[:] = [top + 1, left + 1, bottom - 1, right - 1] if min(bottom, right) else list(pads.ints)
            continue
        amounts = constant(model, "pads", np.array([0, 0, top, left, 0, 0, bottom, right], dtype=np.int64))
        padded = f"{node.output[0]}_padded"
        place = next(i for i, n in enumerate(model.graph.node) if n is node)
        model.graph.node.insert(place, helper.make_node("Pad", [node.input[0], amounts], [padded], mode=mode))
        node.input[0] = padded
        pads.ints[:] = [0, 0, 0, 0]
    if not found:
        raise UnsuitableError("no padding")
    return model


def other_pool(bench: Bench) -> ModelProto:
    model = bench.model()
    nodes = [n for n in model.graph.node if n.op_type == "MaxPool"]
    if not nodes:
        raise UnsuitableError("no MaxPool")
    for node in nodes:
        node.op_type = "AveragePool"
        kept = [a for a in node.attribute if a.name not in ("storage_order", "dilations")]
        del node.attribute[:]
        node.attribute.extend(kept)
    return model


variant("lost layer", "a layer lost", lost_layer)
variant("lost layer", "a residual connection lost", lost_branch)
variant("other activation", "ReLU6 for ReLU", other_activation, how="ReLU6")
variant("other activation", "GELU for ReLU", other_activation, how="GELU")
variant("other padding", "border for zeros", other_padding, mode="edge")
variant("other padding", "mirrored border for zeros", other_padding, mode="reflect")
variant("other padding", "padding on the other side", other_padding, mode="shifted")
variant("other pooling", "average for maximum", other_pool)


# --------------------------------------------------------------------------------------------------- input
def with_nodes(bench: Bench, make: Callable[[ModelProto, Bench, str, str], list[NodeProto]]) -> ModelProto:
    model = bench.model()
    if bench.interface.layout != "NCHW":
        raise UnsuitableError("an image that is not NCHW")
    before_input(model, bench.interface.name, lambda source, target: make(model, bench, source, target))
    return model


def filtered(model: ModelProto, bench: Bench, source: str, target: str, kernel: list[list[float]]) -> list[NodeProto]:
    """Filter the image, like another interpolation."""
    channels = bench.interface.shape[0]
    weights = np.repeat(np.array(kernel, np.float32)[None, None], channels, axis=0)
    amounts = constant(model, "around", np.array([0, 0, 1, 1, 0, 0, 1, 1], dtype=np.int64))
    name = constant(model, "filter", weights)
    return [
        helper.make_node("Pad", [source, amounts], [f"{target}_wide"], mode="edge"),
        helper.make_node("Conv", [f"{target}_wide", name], [target], group=channels),
    ]


def binomial(strength: float) -> list[list[float]]:
    row = np.array([strength, 1 - 2 * strength, strength])
    return np.outer(row, row).tolist()


def levels(bench: Bench) -> tuple[Array, Array]:
    """Step and offset of input = step * pixel + offset per channel, shaped for NCHW."""
    scale, channels = bench.interface.scale, bench.interface.shape[0]
    mean, std = (np.broadcast_to(np.array(v, np.float32), channels) for v in (scale.mean, scale.std))
    step, offset = (np.float32(scale.scale) / std).reshape(-1, 1, 1), (-mean / std).reshape(-1, 1, 1)
    return step.astype(np.float32), offset.astype(np.float32)


def gamma(model: ModelProto, bench: Bench, source: str, target: str, power: float) -> list[NodeProto]:
    """255 (pixel / 255)^power, as if linear intensities were used as sRGB."""
    step, offset = levels(bench)
    names = [
        constant(model, stem, array)
        for stem, array in (
            ("offset", offset), ("range", 255 * step), ("power", np.array(power, np.float32)),
            ("zero", np.array(0, np.float32)),
        )
    ]  # fmt: skip
    steps = [
        ("Sub", [source, names[0]]), ("Div", ["", names[1]]), ("Max", ["", names[3]]), ("Pow", ["", names[2]]),
        ("Mul", ["", names[1]]), ("Add", ["", names[0]]),
    ]  # fmt: skip
    made = []
    for number, (operator, inputs) in enumerate(steps):
        output = target if number == len(steps) - 1 else f"{target}_{number}"
        made.append(helper.make_node(operator, [inputs[0] or f"{target}_{number - 1}", inputs[1]], [output]))
    return made


def grey(model: ModelProto, bench: Bench, source: str, target: str) -> list[NodeProto]:
    if bench.interface.shape[0] != 3:
        raise UnsuitableError("no colours")
    weights = np.tile(np.array([0.299, 0.587, 0.114], np.float32)[None, :, None, None], (3, 1, 1, 1))
    return [helper.make_node("Conv", [source, constant(model, "luma", weights)], [target])]


def exchanged_statistics(bench: Bench) -> ModelProto:
    """(x - std) / mean instead of (x - mean) / std."""
    scale = bench.interface.scale
    mean, std = (np.array(v, np.float32) for v in (scale.mean, scale.std))
    if not mean.any() or scale.bgr:
        raise UnsuitableError("no mean")
    model = bench.model()
    affine_input(model, bench.interface, std / mean, (mean - std) / mean)
    return model


def video_range(bench: Bench) -> ModelProto:
    """Pixels in 16..235 used as 0..255."""
    step, offset = (v.reshape(-1) for v in levels(bench))
    model, factor = bench.model(), np.float32(219 / 255)
    affine_input(model, bench.interface, np.full_like(step, factor), offset * (1 - factor) + 16 * step)
    return model


def mirrored(bench: Bench) -> ModelProto:
    model = bench.model()
    gathered_input(model, bench.interface, "W", range(bench.interface.shape[2])[::-1])
    return model


variant("other interpolation", "slightly blurred", with_nodes, make=lambda *a: filtered(*a, kernel=binomial(0.08)))
variant("other interpolation", "blurred", with_nodes, make=lambda *a: filtered(*a, kernel=binomial(0.25)))
variant("other interpolation", "sharpened", with_nodes, make=lambda *a: filtered(*a, kernel=binomial(-0.06)))
variant("other colours", "gamma 2.2", with_nodes, make=lambda *a: gamma(*a, power=2.2))
variant("other colours", "gamma 1.1", with_nodes, make=lambda *a: gamma(*a, power=1.1))
variant("other colours", "grey for colour", with_nodes, make=grey)
variant("other colours", "mean and std exchanged", exchanged_statistics)
variant("other colours", "video range", video_range)
variant("other geometry", "mirrored", mirrored)


# ------------------------------------------------------------------------------------------------- training
def retrained_head(bench: Bench, noise: float) -> ModelProto:
    """Retrain the last layer from random weights."""
    source = Bench(bench.model(), bench.interface, bench.train, bench.offset, bench.rng)
    layer, _ = classes_of(source.original)
    if layer.bias is None:
        raise UnsuitableError("the last layer has no bias")
    array = value(source.original, layer.weight)
    store(source.original, layer.weight, (bench.rng.normal(size=array.shape) * array.std() * noise).astype(np.float32))
    store(source.original, layer.bias, np.zeros_like(value(source.original, layer.bias)))
    source.cache["features False"] = bench.cache.get("features False", None)
    if source.cache["features False"] is None:
        del source.cache["features False"]
    return last_layer(source, rate=1.0, epochs=25)


def scaled_logits(bench: Bench, factor: float) -> ModelProto:
    model = bench.model()
    last, _ = classes_of(model)
    store(model, last.weight, value(model, last.weight) * np.float32(factor))
    if last.bias is not None:
        store(model, last.bias, value(model, last.bias) * np.float32(factor))
    return model


def prior_of_a_class(bench: Bench, nats: float) -> ModelProto:
    model = bench.model()
    last, count = classes_of(model)
    if last.bias is None:
        raise UnsuitableError("the last layer has no bias")
    bias = value(model, last.bias)
    bias.reshape(-1)[int(bench.rng.integers(count))] += nats
    store(model, last.bias, bias)
    return model


variant("head trained anew", "head trained anew", retrained_head, noise=1.0)
variant("logits scaled", "logits times 4", scaled_logits, factor=4.0)
variant("logits scaled", "logits times 0.2", scaled_logits, factor=0.2)
variant("prior of a class", "a class raised by 0.5 nats", prior_of_a_class, nats=0.5)
variant("prior of a class", "a class raised by 3 nats", prior_of_a_class, nats=3.0)


def saturated(bench: Bench) -> ModelProto:
    """Round activations to 16 levels up to the largest observed one, like a 4-bit accelerator."""
    model = bench.model()
    for name, largest in bench.largest_activations().items():
        step = constant(model, "step", np.array(max(largest, 1e-6) / 15, dtype=np.float32))

        def make(source: str, target: str, step: str = step) -> list[NodeProto]:
            return [
                helper.make_node("Div", [source, step], [f"{target}_d"]),
                helper.make_node("Round", [f"{target}_d"], [f"{target}_r"]),
                helper.make_node("Mul", [f"{target}_r", step], [target]),
            ]

        after_value(model, name, make)
    return model


variant("activations rounded", "activations of 4 bits", saturated)
