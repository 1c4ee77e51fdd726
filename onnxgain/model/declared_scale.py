"""Reads the input scale that a model itself declares: its metadata, its input type, normalization inside the graph."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxgain.errors import ModelError, OnnxgainError
from onnxgain.model.input_scale import InputScale, input_scale

PREPROCESS_KEY = "onnxgain.preprocess"
"""Metadata key: the name of a preset, or a JSON object with mean, std and scale."""

# https://github.com/onnx/onnx/blob/main/docs/MetadataProps.md
_RANGE_KEY = "Image.NominalPixelRange"
_NOMINAL_RANGES = {"NominalRange_0_255": "raw", "Normalized_0_1": "unit", "Normalized_1_1": "inception"}

METADATA_KEYS = (PREPROCESS_KEY, _RANGE_KEY)
"""The metadata that is read here."""

_MOVING = {"Cast", "Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"}


def from_metadata(metadata: Mapping[str, str]) -> InputScale | None:
    """The scale named in a model's metadata.

    Raises:
        ModelError: the metadata says something that is not a scale.
    """
    declared = metadata.get(PREPROCESS_KEY)
    if declared is not None:
        try:
            values = json.loads(declared) if declared.lstrip().startswith("{") else {"name": declared.strip()}
            return input_scale(**values, source="metadata")
        except (ValueError, TypeError, OnnxgainError) as error:
            reason = error.what if isinstance(error, OnnxgainError) else str(error)
            raise ModelError(
                f"metadata {PREPROCESS_KEY!r} is not an input scale: {reason}",
                remedy="it holds a preset's name or JSON with mean, std and scale; override it with --preprocess",
            ) from error
    preset = _NOMINAL_RANGES.get(metadata.get(_RANGE_KEY, ""))
    return input_scale(preset, source="metadata") if preset else None


def from_graph(image: ir.Value, dtype: str) -> InputScale | None:
    """The scale that shows in a transcribed graph: an integer input, or an affine map of the image by constants.

    A factor of about 1/255 a level (or the subtraction of means far above 1) is only written for 8-bit pixels; a
    larger factor with a bias standardizes 0..1.
    """
    if dtype in ("UINT8", "INT8", "INT32", "INT64", "UINT16", "INT16"):
        return input_scale("raw", source="model")
    with np.errstate(all="ignore"):  # infinite and not a number: no scale that is looked for
        factor, bias = _leading_affine(image)
    slope, offset = float(np.median(np.abs(factor))), float(np.median(np.abs(bias)))
    if slope == 1 and offset == 0:
        return None
    if slope <= 0.05 or (slope <= 2 and offset > 20):
        return input_scale("raw", source="model")
    if 0.5 <= slope <= 20 and 0.2 <= offset <= 10:
        return input_scale("unit", source="model")
    return None


def _leading_affine(value: ir.Value) -> tuple[np.ndarray, np.ndarray]:
    """Factor and bias of the affine map by constants that the graph applies to a value first, elementwise."""
    factor, bias = np.ones(1), np.zeros(1)
    while True:
        readers = [node for node in value.consumers() if node.op_type not in ("Shape", "Size")]
        if len(readers) != 1:
            return factor, bias
        node = readers[0]
        if node.op_type in _MOVING:
            value = node.outputs[0]
            continue
        constant = _constant_operand(node, value)
        if constant is None:
            return factor, bias
        if node.op_type == "Mul":
            factor, bias = factor * constant, bias * constant
        elif node.op_type == "Add":
            bias = bias + constant
        elif node.op_type == "Sub" and node.inputs[0] is value:
            bias = bias - constant
        elif node.op_type == "Div" and node.inputs[0] is value:
            factor, bias = factor / constant, bias / constant
        else:
            return factor, bias
        value = node.outputs[0]


def _constant_operand(node: ir.Node, value: ir.Value) -> np.ndarray | None:
    """The small constant that a binary node combines with ``value``."""
    if node.op_type not in ("Mul", "Add", "Sub", "Div") or len(node.inputs) != 2:
        return None
    other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
    if other is None or other.const_value is None or other.const_value.size > 4:
        return None
    constant: np.ndarray = other.const_value.numpy().astype(np.float64).reshape(-1)
    return constant


def default_scale(channels: int) -> tuple[InputScale, str]:
    """The documented default where nothing declares a scale, and the sentence that says so."""
    name = "imagenet" if channels == 3 else "unit"
    return (
        input_scale(name, source="default"),
        f"input scale '{name}': nothing in the model declares one (default for {channels} channel"
        f"{'s' if channels > 1 else ''}; set it with --preprocess)",
    )
