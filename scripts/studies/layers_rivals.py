"""Other rankings of layers: onnxruntime's qdq_loss_debug, the error of each tensor, and the distance of weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from scripts.studies.layers_networks import Bench, feed_reader

Ranking = list[str]
"""Names of tensors of the float model, worst first."""


def activations(bench: Bench, path: Path) -> dict[str, list[NDArray[np.float32]]]:
    """All activations at the calibration images, collected by qdq_loss_debug."""
    from onnxruntime.quantization.qdq_loss_debug import collect_activations, modify_model_output_intermediate_tensors

    augmented = path.with_suffix(".augmented.onnx")
    modify_model_output_intermediate_tensors(str(path), str(augmented))
    found: dict[str, list[NDArray[np.float32]]] = collect_activations(str(augmented), feed_reader(bench.feeds()[:8]))
    augmented.unlink()
    return found


def qdq_loss_debug(bench: Bench, before: Path, after: Path) -> dict[str, Ranking]:
    """Its three tables for a float model and its QDQ form, each ranked by signal-to-noise ratio, lowest first."""
    from onnxruntime.quantization import qdq_loss_debug as debug

    matched = debug.create_activation_matching(activations(bench, after), activations(bench, before))
    matched = {name: found for name, found in matched.items() if found.get("float") is not None}
    errors = debug.compute_activation_error(matched)
    pairs = debug.create_weight_matching(str(before), str(after))
    # It does not support scalars.
    pairs = {name: {side: np.atleast_1d(array) for side, array in pair.items()} for name, pair in pairs.items()}
    weights = debug.compute_weight_error(pairs)
    users = {name: node.output[0] for node in onnx.load(before).graph.node for name in node.input}
    return {
        "xmodel_err": _ascending({name: error["xmodel_err"] for name, error in errors.items()}),
        "qdq_err": _ascending({name: error["qdq_err"] for name, error in errors.items()}),
        "weight error": _ascending({users[name]: error for name, error in weights.items() if name in users}),
    }


def tensor_errors(bench: Bench, before: Path, after: Path) -> dict[str, Ranking]:
    """For other pairs of models: the same ratio for all tensors with the same name and size."""
    from onnxruntime.quantization.qdq_loss_debug import compute_signal_to_quantization_noice_ratio as ratio

    old, new = activations(bench, before), activations(bench, after)
    same = [name for name in old if name in new and old[name][0].size == new[name][0].size]
    return {"xmodel_err": _ascending({name: ratio(old[name], new[name]) for name in same})}


def weight_distance(before: onnx.ModelProto, after: onnx.ModelProto) -> Ranking:
    """The outputs of nodes, ranked by the relative L2 distance of weights and biases with the same name."""
    old, new = _weights(before), _weights(after)
    found: dict[str, float] = {}
    for node in before.graph.node:
        for name in node.input:
            if name in old and name in new and old[name].shape == new[name].shape:
                size = float(np.linalg.norm(old[name])) or 1.0
                change = float(np.linalg.norm(new[name] - old[name])) / size
                found[node.output[0]] = max(found.get(node.output[0], 0.0), change)
    changed = {name: change for name, change in found.items() if change > 0}
    return sorted(changed, key=lambda name: -changed[name])


def _weights(model: onnx.ModelProto) -> dict[str, NDArray[np.float64]]:
    """Float initializers, and dequantized values of quantized ones."""
    raw = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = {name: array.astype(np.float64) for name, array in raw.items() if array.dtype.kind == "f"}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in raw:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            array = raw[node.input[0]].astype(np.float64)
            scale, zero = (raw[name].astype(np.float64) for name in node.input[1:3])
            if scale.size > 1:
                form = [-1 if place == axis % array.ndim else 1 for place in range(array.ndim)]
                scale, zero = scale.reshape(form), zero.reshape(form)
            found[node.input[0].removesuffix("_quantized")] = (array - zero) * scale
    return found


def _ascending(values: Mapping[str, float]) -> Ranking:
    return sorted(values, key=lambda name: values[name])
