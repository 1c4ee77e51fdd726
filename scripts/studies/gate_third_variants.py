"""Variants for the third judgement of the gate: changed operators, input and classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper

from onnxgain.model.input_scale import PRESETS
from scripts.studies.gate_graphs import (
    UnsuitableError,
    affine_input,
    after_value,
    along,
    before_input,
    classes_of,
    constant,
    gathered_input,
    initializers,
    reordered_classes,
    store,
    value,
)
from scripts.studies.gate_third_weights import THIRD, nodes_of, variant, with_head
from scripts.studies.gate_variants import Bench

__all__ = ["THIRD"]


# ---------------------------------------------------------------------------------------------------------- nodes
def wrong_statistics(bench: Bench, how: str) -> ModelProto:
    """Batch normalization with another epsilon, or with the statistics that it is initialized with."""
    model = bench.model()
    found = nodes_of(model, "BatchNormalization")
    for node in found if how != "one reset" else [found[int(bench.rng.integers(len(found)))]]:
        if how.startswith("epsilon"):
            kept = [a for a in node.attribute if a.name != "epsilon"]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("epsilon", float(how.split()[1]))])
        elif how == "variance as deviation":
            store(model, node.input[4], np.sqrt(np.abs(value(model, node.input[4]))))
        else:
            store(model, node.input[3], np.zeros_like(value(model, node.input[3])))
            store(model, node.input[4], np.ones_like(value(model, node.input[4])))
    return model


for _how in ("epsilon 0.001", "epsilon 0.1", "one reset", "all reset", "variance as deviation"):
    variant("batch normalization", f"batch normalization: {_how}", wrong_statistics, how=_how)


def other_operator(
    bench: Bench, before: tuple[str, ...], after: str, count: int | None = None, **attributes: Any
) -> ModelProto:
    model = bench.model()
    found = nodes_of(model, *before)
    for node in [found[i] for i in bench.rng.permutation(len(found))[:count]] if count else found:
        node.op_type = after
        del node.input[1:]
        del node.attribute[:]
        node.attribute.extend(helper.make_attribute(name, entry) for name, entry in attributes.items())
    return model


_SMOOTH = ("HardSwish", "Erf", "Sigmoid", "HardSigmoid", "Tanh", "Elu")
variant("activation of another kind", "Erf of GELU as Tanh", other_operator, before=("Erf",), after="Tanh")
variant("activation of another kind", "HardSwish as ReLU", other_operator, before=("HardSwish",), after="Relu")
variant(
    "activation of another kind", "HardSigmoid as Sigmoid", other_operator, before=("HardSigmoid",), after="Sigmoid"
)
variant(
    "activation of another kind",
    "one smooth activation lost",
    other_operator,
    before=_SMOOTH,
    after="Identity",
    count=1,
)
variant("activation of another kind", "ReLU as Softplus", other_operator, before=("Relu",), after="Softplus")


def other_strides(bench: Bench, operators: tuple[str, ...]) -> ModelProto:
    """Operators with stride 2 begin one pixel later, as those of another framework's padding."""
    model, found = bench.model(), 0
    for node in nodes_of(model, *operators):
        attributes = {a.name: a for a in node.attribute}
        if 2 in attributes.get("strides", helper.make_attribute("strides", [1])).ints and "pads" in attributes:
            pads = attributes["pads"].ints
            if len(pads) == 4 and min(pads[:2]) > 0:
                pads[:] = [pads[0] - 1, pads[1] - 1, pads[2] + 1, pads[3] + 1]
                found += 1
    if not found:
        raise UnsuitableError("no stride with padding")
    return model


variant("stride", "strides begin a pixel later", other_strides, operators=("Conv", "MaxPool"))


def lost_input(bench: Bench, operator: str) -> ModelProto:
    """An addition or product of two computed values keeps its first input only."""
    model = bench.model()
    known = set(initializers(model))
    fitting = [
        n for n in model.graph.node if n.op_type == operator and not known & set(n.input) and len(set(n.input)) == 2
    ]
    if not fitting:
        raise UnsuitableError(f"no {operator} of computed values")
    node = fitting[int(bench.rng.integers(len(fitting)))]
    node.op_type = "Identity"
    del node.input[1:]
    return model


def lost_parameters(bench: Bench, how: str) -> ModelProto:
    """A LayerNormalization without its weights, or a position embedding that is zero or in another order."""
    model = bench.model()
    if how == "norm":
        nodes = nodes_of(model, "LayerNormalization")
        name = nodes[int(bench.rng.integers(len(nodes)))].input[1]
        store(model, name, np.ones_like(value(model, name)))
        return model
    known = initializers(model)
    wide = [
        x for n in model.graph.node if n.op_type == "Add" for x in n.input if x in known and len(known[x].dims) == 3
    ]
    if not wide:
        raise UnsuitableError("no position embedding")
    array = value(model, wide[0])
    store(model, wide[0], array * 0 if how == "zero" else array[:, bench.rng.permutation(array.shape[1])])
    return model


variant("transformers", "a normalization's weights lost", lost_parameters, how="norm")
variant("transformers", "positions lost", lost_parameters, how="zero")
variant("transformers", "positions in another order", lost_parameters, how="order")
variant("lost input", "one input of a product lost", lost_input, operator="Mul")


# ---------------------------------------------------------------------------------------------------------- input
def of_another_preset(bench: Bench, preset: str) -> ModelProto:
    """Preprocessing of another kind of network."""
    own, other, model = bench.interface.scale, PRESETS[preset], bench.model()
    if own.bgr or other.bgr or preset == own.name or bench.interface.shape[0] != 3:
        raise UnsuitableError("its own preprocessing")
    mean, std, wrong, spread = (np.array(v, np.float32) for v in (own.mean, own.std, other.mean, other.std))
    factor = np.float32(other.scale / own.scale) * std / spread
    affine_input(model, bench.interface, factor, factor * mean / std - wrong / spread)
    return model


for _preset in ("raw", "unit", "imagenet", "inception", "clip"):
    variant("preprocessing of another network", f"preprocessing of {_preset}", of_another_preset, preset=_preset)


def reread(bench: Bench) -> ModelProto:
    """Interleaved pixels that are read as planes."""
    model, interface = bench.model(), bench.interface
    if interface.layout == "NF" or interface.shape[0] == 1:
        raise UnsuitableError("one plane")
    channels, height, width = interface.shape
    own = [0, channels, height, width] if interface.layout == "NCHW" else [0, height, width, channels]
    first, order = constant(model, "own", np.array(own)), [0, 2, 3, 1] if interface.layout == "NCHW" else [0, 3, 1, 2]

    def make(source: str, target: str) -> list[NodeProto]:
        turned = helper.make_node("Transpose", [source], [f"{target}_turned"], perm=order)
        return [turned, helper.make_node("Reshape", [f"{target}_turned", first], [target])]

    before_input(model, interface.name, make)
    return model


def nearest(bench: Bench, factor: int) -> ModelProto:
    """Only every second, third ... row and column is read, and repeated, from another phase than the middle."""
    model = bench.model()
    for axis, size in zip("HW", bench.interface.shape[1:], strict=True):
        gathered_input(
            model, bench.interface, axis, [min(i // factor * factor + factor - 1, size - 1) for i in range(size)]
        )
    return model


def cropped(bench: Bench, margin: float) -> ModelProto:
    """The middle of the image, enlarged by nearest neighbours."""
    model = bench.model()
    for axis, size in zip("HW", bench.interface.shape[1:], strict=True):
        places = np.linspace(margin * (size - 1), (1 - margin) * (size - 1), size)
        gathered_input(model, bench.interface, axis, np.rint(places).astype(int).tolist())
    return model


def one_channel_for_all(bench: Bench) -> ModelProto:
    if bench.interface.shape[0] != 3:
        raise UnsuitableError("no colours")
    model = bench.model()
    gathered_input(model, bench.interface, "C", [1, 1, 1])
    return model


def affine(bench: Bench, factor: float, level: float) -> ModelProto:
    """factor * pixel + level, 8-bit levels."""
    scale, model = bench.interface.scale, bench.model()
    step = np.float32(scale.scale) / np.array(scale.std, np.float32)
    offset = -np.array(scale.mean, np.float32) / np.array(scale.std, np.float32)
    affine_input(model, bench.interface, np.float32(factor), offset * np.float32(1 - factor) + np.float32(level) * step)
    return model


variant("other input", "interleaved pixels read as planes", reread)
variant("other input", "every third pixel", nearest, factor=3)
variant("other input", "the middle, enlarged", cropped, margin=0.1)
variant("other input", "green for all channels", one_channel_for_all)
variant("other input", "half the contrast", affine, factor=0.5, level=64.0)
variant("other input", "2 levels brighter", affine, factor=1.0, level=2.0)
variant("other input", "30 levels brighter", affine, factor=1.0, level=30.0)


# -------------------------------------------------------------------------------------------------------- classes
def some_classes(bench: Bench, how: str) -> ModelProto:
    model = bench.model()
    last, count = classes_of(model)
    order, chosen = np.arange(count), bench.rng.permutation(count)[:3]
    if how == "three rotated":
        order[chosen] = order[np.roll(chosen, 1)]
        reordered_classes(model, order)
    elif how == "doubled":
        order[chosen[0]] = chosen[1]
        reordered_classes(model, order)
    elif how == "negated":
        factors = np.ones(count, np.float32)
        factors[chosen[0]] = -1
        array = value(model, last.weight)
        store(model, last.weight, array * along(factors, last, array.ndim))
    return model


def prior(bench: Bench, nats: float) -> ModelProto:
    model = bench.model()
    last, count = classes_of(model)
    if last.bias is None:
        raise UnsuitableError("the last layer has no bias")
    bias = value(model, last.bias).copy()
    bias.reshape(-1)[int(bench.rng.integers(count))] += nats
    store(model, last.bias, bias)
    return model


def rounded_logits(bench: Bench) -> ModelProto:
    model = bench.model()
    last, _ = classes_of(model)
    name = last.node.output[0]
    after = [node for node in model.graph.node if name in node.input]
    name = after[0].output[0] if after and after[0].op_type == "Add" and last.bias in after[0].input else name
    if name == model.graph.output[0].name:
        for node in model.graph.node:
            node.output[:] = [f"{n}_exact" if n == name else n for n in node.output]
        model.graph.node.append(helper.make_node("Round", [f"{name}_exact"], [name]))
        return model
    after_value(model, name, lambda source, target: [helper.make_node("Round", [source], [target])])
    return model


variant("some classes", "three classes rotated", some_classes, how="three rotated")
variant("some classes", "a class in the place of another", some_classes, how="doubled")
variant("some classes", "a class's weights negated", some_classes, how="negated")
variant("bias of a class", "a class lowered by 5 nats", prior, nats=-5.0)
variant("bias of a class", "a class lowered by 1 nat", prior, nats=-1.0)
variant("bias of a class", "a class raised by 5 nats", prior, nats=5.0)
variant("logits", "logits rounded to integers", rounded_logits)
variant("logits", "softmax over the wrong axis", with_head, operator="Softmax", axis=0)
