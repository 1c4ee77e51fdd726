"""Fine-tuning for the gate study: of the last layer, and of whole networks with the project's own gradient graphs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import ModelProto, helper

from onnxgain.gradient.graphs import vector_jacobian
from scripts.studies.gate_graphs import (
    UnsuitableError,
    classes_of,
    initializers,
    layers,
    store,
    value,
    with_outputs,
)
from scripts.studies.gate_networks import answers, session
from scripts.studies.gate_variants import Bench, variant

Array = NDArray[np.float32]
FEATURES = 8000


def softmax(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def _require_training(bench: Bench) -> None:
    if len(bench.train.labels) < FEATURES:
        raise UnsuitableError("no images to train with")


def _features(bench: Bench, *, mirrored: bool) -> Array:
    """The inputs of the last layer for the training images."""
    key = f"features {mirrored}"
    if key not in bench.cache:
        name = classes_of(bench.original)[0].node.input[0]
        pixels = bench.train.images[:FEATURES]
        runner = session(with_outputs(bench.original, [name]))
        bench.cache[key] = answers(runner, bench.interface, pixels[..., ::-1] if mirrored else pixels, name)
    return bench.cache[key]


def last_layer(
    bench: Bench, rate: float, epochs: int, images: int = FEATURES, mirrored: bool = False, few_classes: bool = False
) -> ModelProto:
    """Continue training the last layer with softmax regression."""
    _require_training(bench)
    model = bench.model()
    layer, classes = classes_of(model)
    if layer.bias is None:
        raise UnsuitableError("the last layer has no bias")
    weight, bias = value(model, layer.weight), value(model, layer.bias)
    matrix = np.moveaxis(weight, layer.axis, -1).reshape(-1, classes).astype(np.float64)
    offset = bias.reshape(-1).astype(np.float64)
    labels = bench.train.labels[:images]
    features = _features(bench, mirrored=False)[:images]
    if mirrored and bench.interface.shape[0] == 3:
        features = np.concatenate([features, _features(bench, mirrored=True)[:images]])
        labels = np.concatenate([labels, labels])
    if few_classes:
        kept = labels < 3
        features, labels = features[kept], labels[kept]
    rate = rate / float((features.astype(np.float64) ** 2).sum(axis=1).mean())
    for _ in range(epochs):
        for chosen in np.array_split(bench.rng.permutation(len(labels)), max(len(labels) // 100, 1)):
            x = features[chosen].astype(np.float64)
            error = softmax(x @ matrix + offset)
            error[np.arange(len(chosen)), labels[chosen]] -= 1
            matrix -= rate * x.T @ error / len(chosen)
            offset -= rate * error.mean(axis=0)
    moved = np.moveaxis(weight, layer.axis, -1)
    store(model, layer.weight, np.moveaxis(matrix.reshape(moved.shape), -1, layer.axis).astype(np.float32))
    store(model, layer.bias, offset.reshape(bias.shape).astype(np.float32))
    return model


variant("fine-tuned last layer", "last layer tuned, low rate", rate=0.05, epochs=2)(last_layer)
variant("fine-tuned last layer", "last layer tuned", rate=0.3, epochs=4)(last_layer)
variant("fine-tuned last layer", "last layer tuned, half the images", rate=0.3, epochs=4, images=4000)(last_layer)
variant("fine-tuned last layer", "last layer tuned, mirrored", rate=0.3, epochs=4, mirrored=True)(last_layer)
variant("fine-tuned last layer", "last layer tuned, high rate", rate=8.0, epochs=4)(last_layer)
variant("fine-tuned last layer", "last layer tuned on three classes", rate=0.5, epochs=4, few_classes=True)(last_layer)


def whole(bench: Bench, rate: float, steps: int, mirrored: bool = True, few_classes: bool = False) -> ModelProto:
    """Stochastic gradient descent with momentum on all weights and biases, with few enough steps for a CPU.

    The first layer is not trained if images are 0..255: their scale would make its steps too large.
    """
    _require_training(bench)
    if len(bench.original.graph.node) > 15 or bench.interface.layout == "NF":
        raise UnsuitableError("too large to train here")
    model, step = bench.model(), _gradients(bench)
    weights = {name: value(model, name) for name in _trained(model)}
    fixed = _trained(model)[:2] if bench.interface.scale.name == "raw" else []
    speeds = {name: np.zeros_like(array) for name, array in weights.items()}
    labels = bench.train.labels
    candidates = np.flatnonzero(labels < 3) if few_classes else np.arange(len(labels))
    for number in range(steps):
        chosen = bench.rng.choice(candidates, _BATCH, replace=False)
        pixels = bench.train.images[chosen]
        if mirrored and bench.interface.shape[0] == 3 and number % 2:
            pixels = pixels[..., ::-1]
        gradients = step(weights, bench.interface.feed(pixels), labels[chosen])
        for name in weights.keys() - set(fixed):
            speeds[name] = (0.9 * speeds[name] - rate * gradients[name]).astype(np.float32)
            weights[name] = weights[name] + speeds[name]
    for name, array in weights.items():
        store(model, name, array)
    return model


_BATCH = 40


def _trained(model: ModelProto) -> list[str]:
    """The names of weights and biases, in the order of the layers."""
    names = [name for layer in layers(model) for name in (layer.weight, layer.bias) if name is not None]
    return list(dict.fromkeys(names))


_Step = Callable[[dict[str, Array], Array, NDArray[np.int64]], dict[str, Array]]


def _gradients(bench: Bench) -> _Step:
    """A function that computes the gradient of the mean cross-entropy with respect to every weight."""
    if "gradients" in bench.cache:
        return bench.cache["gradients"]
    model = bench.model()
    last, _ = classes_of(model)
    known = initializers(model)
    names = _trained(model)
    logits = last.node.output[0]
    after = [node for node in model.graph.node if logits in node.input]
    if after and after[0].op_type == "Add":
        logits = after[0].output[0]
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(logits, onnx.TensorProto.FLOAT, None))
    for name in names:
        tensor = known[name]
        model.graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in names]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    shape = (_BATCH, *bench.interface.feed(bench.train.images[:1]).shape[1:])
    graph = vector_jacobian(ir.from_proto(model), names, input_shapes={bench.interface.name: shape})
    runner = session(ir.to_proto(graph))

    def step(weights: dict[str, Array], images: Array, labels: NDArray[np.int64]) -> dict[str, Array]:
        feeds = {bench.interface.name: images, **weights}
        adjoint = next(i.name for i in runner.get_inputs() if i.name.startswith("adjoint_"))
        shape = next(i.shape for i in runner.get_inputs() if i.name == adjoint)
        (scores,) = runner.run([runner.get_outputs()[0].name], feeds | {adjoint: np.zeros(shape, np.float32)})
        error = softmax(np.asarray(scores, dtype=np.float64).reshape(len(labels), -1))
        error[np.arange(len(labels)), labels] -= 1
        seed = (error / len(labels)).astype(np.float32).reshape(shape)
        found = runner.run([f"gradient_{name}" for name in weights], feeds | {adjoint: seed})
        return dict(zip(weights, found, strict=True))

    bench.cache["gradients"] = step
    return step


for _name, _rate in (("lowest", 5e-5), ("low", 2e-4), ("middle", 2e-3), ("high", 5e-2)):
    variant("fine-tuned", f"tuned, {_name} rate", rate=_rate, steps=30)(whole)
variant("fine-tuned", "tuned on three classes", rate=5e-4, steps=30, few_classes=True)(whole)
