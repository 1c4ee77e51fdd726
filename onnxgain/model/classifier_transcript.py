"""Transcribes the graph of a classifier for a batch size, with pixels as floating-point numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxgain.errors import ModelError
from onnxgain.gradient.forward.transcribe import Transcript, transcribe
from onnxgain.gradient.values import check_size, static_shape
from onnxgain.model.declared_scale import is_learned
from onnxgain.model.image_input import ImageInput


def transcribed_for_its_batch(
    model: ir.Model,
    image: ImageInput,
    inputs: Mapping[str, np.ndarray],
    initializers: Mapping[str, np.ndarray],
) -> tuple[ImageInput, Transcript, tuple[str, ...]]:
    """The transcript for the batch that the model declares or, if its graph does not take that, for one image.

    Returns:
        The image input, whose fixed batch is None in the second case; the transcript; and what is to be said of it.

    Raises:
        ModelError: the graph cannot be transcribed.
    """
    batch = image.fixed_batch or 1
    said: tuple[str, ...] = ()
    try:
        transcript = transcribed(model, image, inputs, initializers, batch)
    except ModelError:
        if batch == 1:
            raise
        # In some files the declared batch size was edited, but the graph still works only for 1.
        image, batch = replace(image, fixed_batch=None), 1
        transcript = transcribed(model, image, inputs, initializers, batch)
        said = ("the model declares a batch that its graph does not take: measured one image at a time",)
    _pin_declared_outputs(model.graph, transcript, batch)
    return image, transcript, said


def value_named(transcript: Transcript, name: str) -> ir.Value:
    """The value of a transcribed graph that has this name."""
    return next(value for value in values_of(transcript.graph) if value.name == name)


def values_of(graph: ir.Graph) -> Iterator[ir.Value]:
    """All values of a graph: inputs, initializers and what its nodes compute."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def transcribed(
    model: ir.Model,
    image: ImageInput,
    inputs: Mapping[str, np.ndarray],
    initializers: Mapping[str, np.ndarray],
    batch: int,
) -> Transcript:
    """A model's transcript for a batch of this size.

    Args:
        inputs: values of the inputs other than the image.
        initializers: values that replace default initializers.

    Raises:
        ModelError: the graph cannot be transcribed for it.
    """
    shapes = {image.name: image.shape(batch), **{name: array.shape for name, array in inputs.items()}}
    transcript = _with_float_pixels(model, image, shapes, initializers)
    x = next(value for value in transcript.graph.inputs if value.name == image.name)
    if not all(is_learned(node) for node in x.consumers()):
        from onnxgain.model.front import pass_at_bounds

        pass_at_bounds(x)
    return transcript


def _with_float_pixels(
    model: ir.Model,
    image: ImageInput,
    shapes: Mapping[str, tuple[int, ...]],
    initializers: Mapping[str, np.ndarray],
) -> Transcript:
    if ir.DataType[image.dtype].is_floating_point():
        return transcribe(model, shapes, initializers=initializers)
    try:
        # Most integer inputs are cast to float first. Make the input float, so that pixels may be fractional.
        floating = {image.name: ir.DataType.FLOAT}
        return transcribe(model, shapes, input_types=floating, initializers=initializers)
    except ModelError:
        return transcribe(model, shapes, initializers=initializers)


def _pin_declared_outputs(graph: ir.Graph, transcript: Transcript, batch: int) -> None:
    """Give outputs whose shape could not be inferred the shape that the file declares."""
    for old in graph.outputs:
        new = transcript.outputs[old.name or ""]
        if static_shape(new) is None and old.shape is not None:
            sizes = [
                batch if axis == 0 and (d == 0 or not isinstance(d, int)) else d for axis, d in enumerate(old.shape)
            ]
            new.shape = ir.Shape(sizes)
            if new.producer() is not None:
                check_size(new)
