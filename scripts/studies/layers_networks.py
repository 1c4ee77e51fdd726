"""The trained networks of the layers study, their int8 forms, and the comparison of their outputs."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import version_converter

from onnxgain.model.classifier import Classifier, Reading, describe
from onnxgain.model.input_scale import PRESETS
from scripts.studies.gate_networks import (
    INCEPTION_LITE,
    NETWORKS,
    Interface,
    Labelled,
    Network,
    answers,
    find_model,
    load_data,
    session,
)

OTHERS = {
    network.name: network
    for network in (
        Network("mlperf_tiny_vww_mobilenet025", "imagenet", PRESETS["unit"], 1000),
        Network("cifar10_resnet44", "cifar10", PRESETS["imagenet"], 1000),
        Network("efficientnet_lite0", "imagenet", INCEPTION_LITE, 300),
        Network("torchvision_resnet18", "imagenet", PRESETS["imagenet"], 300),
        Network("mobilenet_v1_1.0_224", "imagenet", PRESETS["inception"], 300, 1),
    )
}
LEAST_OPSET = 13
"""The first has one scale per channel."""
CALIBRATION = 32
"""Number of images for calibration, and for comparing activations with qdq_loss_debug."""


@dataclass(frozen=True)
class Bench:
    """A network ready to be damaged or quantized.

    Attributes:
        network: the network.
        model, path: its float model, preprocessed by onnxruntime for quantization, in memory and on disk.
        interface: the interface of the model.
        calibration, test: disjoint sets of images.
    """

    network: Network
    model: onnx.ModelProto
    path: Path
    interface: Interface
    calibration: NDArray[np.uint8]
    test: Labelled

    def read(self, model: onnx.ModelProto) -> Classifier:
        proto = onnx.ModelProto.FromString(model.SerializeToString())
        reading = Reading(self.network.image_shape, scale=self.network.scale)
        return describe(ir.from_proto(proto), reading)

    def feeds(self) -> list[dict[str, NDArray[np.float32]]]:
        return [{self.interface.name: self.interface.feed(image[None])} for image in self.calibration]

    def save(self, model: onnx.ModelProto, name: str) -> Path:
        path = self.path.with_name(f"{self.network.name}.{name}.onnx")
        onnx.save(model, path)
        return path


def prepare(name: str, shared: Path, cifar: Path, work: Path) -> Bench:
    """Read a network and preprocess it for onnxruntime's quantizer: optimized, with all shapes."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    logging.disable(logging.WARNING)
    network = NETWORKS.get(name) or OTHERS[name]
    path = work / f"{name}.float.onnx"
    if not path.exists():
        source = onnx.load(find_model(name, shared))
        for number, node in enumerate(source.graph.node):
            node.name = node.name or f"{node.op_type.lower()}_{number}"
        if source.opset_import[0].version < LEAST_OPSET:
            source = version_converter.convert_version(source, LEAST_OPSET)
        onnx.save(source, work / f"{name}.named.onnx")
        quant_pre_process(str(work / f"{name}.named.onnx"), str(path), skip_symbolic_shape=True)
    model = onnx.load(path)
    classifier = describe(ir.from_proto(onnx.load(path)), Reading(network.image_shape, scale=network.scale))
    image = classifier.image
    interface = Interface(
        image.name, image.layout, classifier.head.output, image.fixed_batch, image.image_shape, classifier.scale
    )
    calibration, test = load_data(network.data, image.image_shape[1], shared, cifar)
    if network.data == "imagenet":  # the calibration images are the first test images
        test = Labelled(test.images[64:], test.labels[64:])
    return Bench(network, model, path, interface, calibration.images[:CALIBRATION], test)


def feed_reader(feeds: Sequence[dict[str, Any]]) -> Any:
    """A reader of the feeds for onnxruntime's quantizer and qdq_loss_debug."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left: Iterator[dict[str, Any]] = iter(feeds)

        def get_next(self) -> dict[str, Any] | None:
            return next(self._left, None)

    return Reader()


def quantize(bench: Bench, *, per_channel: bool) -> onnx.ModelProto:
    """onnxruntime's static quantization: QDQ, uint8 activations from minima and maxima, int8 weights."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    target = bench.path.with_name(f"{bench.network.name}.int8{'c' if per_channel else 't'}.onnx")
    if not target.exists():
        quantize_static(
            str(bench.path),
            str(target),
            feed_reader(bench.feeds()),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=per_channel,
        )
    return onnx.load(target)


# ----------------------------------------------------------------------------------------------- agreement
@dataclass(frozen=True)
class Agreement:
    """The agreement of two models on the same images.

    Attributes:
        same: share of images with the same predicted class.
        divergence: Jensen-Shannon divergence of the class probabilities in nats, mean over images.
        cosine: cosine of the centred logits (or log-probabilities), mean over images.
    """

    same: float
    divergence: float
    cosine: float


def agreement(bench: Bench, model: onnx.ModelProto, reference: NDArray[np.float32], count: int) -> Agreement:
    """The agreement of a model with the float one, given the latter's outputs for the first `count` test images."""
    found = answers(session(model), bench.interface, bench.test.images[:count])
    given = reference.min() >= 0 and bool(np.abs(reference.sum(axis=1) - 1).max() < 1e-2)
    (p, one), (q, other) = (_probabilities(x.astype(np.float64), given=given) for x in (reference, found))
    middle = (p + q) / 2
    divergence = (_kl(p, middle) + _kl(q, middle)) / 2
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosine = (one * other).sum(axis=1) / np.where(norms > 0, norms, 1)
    same = found.argmax(axis=1) == reference.argmax(axis=1)
    return Agreement(float(same.mean()), float(divergence.mean()), float(cosine.mean()))


def _probabilities(rows: NDArray[np.float64], *, given: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Class probabilities and centred logits from a model's outputs, which are probabilities if `given`."""
    logits = np.log(np.maximum(rows, 1e-6)) if given else rows
    centred = logits - logits.mean(axis=1, keepdims=True)
    powers = np.exp(centred - centred.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True), centred


def _kl(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((p * np.log((p + 1e-12) / (q + 1e-12))).sum(axis=1))


# --------------------------------------------------------------------------------------------- un-quantize
def unquantized(quantized: onnx.ModelProto, floating: onnx.ModelProto, nodes: Collection[str]) -> onnx.ModelProto:
    """The quantized model with some nodes kept in float: their weights, biases and outputs.

    "image" keeps the image in float. Activations that the quantizer removed, because the range has the same effect, are
    restored.
    """
    model = onnx.ModelProto.FromString(quantized.SerializeToString())
    graph = model.graph
    weights = {tensor.name: tensor for tensor in floating.graph.initializer}
    originals = {node.name: node for node in floating.graph.node}
    present = {node.name for node in graph.node}
    producers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.name in nodes and node.name in originals:
            for place, name in enumerate(node.input):
                producer = producers.get(name)
                weight = weights.get(originals[node.name].input[place])
                if producer is not None and producer.op_type == "DequantizeLinear" and weight is not None:
                    node.input[place] = _added(graph, weight)
    for original in floating.graph.node:
        if original.name in nodes:
            for name in original.output:
                target = name
                if original.name not in present and _pairs(graph, name):
                    kept = graph.node.add()
                    kept.CopyFrom(original)
                    kept.input[0], kept.output[0] = name, f"{name}__kept"
                    for place, used in enumerate(original.input):
                        if place and used in weights:
                            kept.input[place] = _added(graph, weights[used])
                    target = kept.output[0]
                _bypass(graph, name, target)
    if "image" in nodes:
        _bypass(graph, graph.input[0].name, graph.input[0].name)
    _sort(graph)
    return model


def _added(graph: onnx.GraphProto, weight: onnx.TensorProto) -> str:
    name = f"{weight.name}__float"
    if name not in {tensor.name for tensor in graph.initializer}:
        tensor = graph.initializer.add()
        tensor.CopyFrom(weight)
        tensor.name = name
    return name


def _pairs(graph: onnx.GraphProto, name: str) -> list[str]:
    """Outputs of the DequantizeLinear nodes that follow QuantizeLinear nodes of a tensor."""
    stored = {x.output[0] for x in graph.node if x.op_type == "QuantizeLinear" and x.input[0] == name}
    return [x.output[0] for x in graph.node if x.op_type == "DequantizeLinear" and x.input[0] in stored]


def _bypass(graph: onnx.GraphProto, name: str, target: str) -> None:
    producers = {output: node for node in graph.node for output in node.output}
    restoring = producers.get(name)
    if restoring is not None and restoring.op_type == "DequantizeLinear":  # an output of the model
        inner = producers[restoring.input[0]].input[0]
        restoring.output[0] = f"{name}__quantized"
        producers[inner].output[0] = name
        for node in graph.node:
            node.input[:] = [name if used == inner else used for used in node.input]
    restored = set(_pairs(graph, name))
    for node in graph.node:
        for place, used in enumerate(node.input):
            if used in restored:
                node.input[place] = target


def _sort(graph: onnx.GraphProto) -> None:
    """Put the nodes into topological order."""
    known = {"", *(x.name for x in graph.initializer), *(x.name for x in graph.input)}
    left = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:]
    while left:
        ready = [node for node in left if all(name in known for name in node.input)]
        if not ready:
            raise ValueError("the graph has a cycle")
        graph.node.extend(ready)
        known.update(name for node in ready for name in node.output)
        left = [node for node in left if not any(node is other for other in ready)]
