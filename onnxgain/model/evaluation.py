"""Evaluates values of a transcribed graph for a few test images, to find out what a model's numbers mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.errors import OnnxgainError
from onnxgain.gradient.traced import evaluation
from onnxgain.model.image_input import ImageInput

_SEED = 20180101


def run_at_noise(
    graph: ir.Graph,
    image: ImageInput,
    inputs: Mapping[str, NDArray[np.generic]],
    custom_ops: Sequence[Path],
    values: Sequence[ir.Value],
) -> list[NDArray[np.float64]]:
    """Some values of a graph for two images: noise around 0 and noise on 0..255; see `run_images`."""
    return run_images(graph, values, _pictures(image), image, inputs, custom_ops)


def run_images(
    graph: ir.Graph,
    values: Sequence[ir.Value],
    pictures: Sequence[NDArray[np.floating]],
    image: ImageInput,
    inputs: Mapping[str, NDArray[np.generic]],
    custom_ops: Sequence[Path] = (),
) -> list[NDArray[np.float64]]:
    """Some values of a graph for images (C, H, W), each flattened to (images, elements).

    Raises:
        OnnxgainError: the graph cannot be evaluated.
    """
    batch = image.fixed_batch or 1
    feeds = [{image.name: image.to_input([picture] * batch), **inputs} for picture in pictures]
    rows = run_graph(graph, values, feeds, custom_ops)
    return [np.stack([row[i].astype(np.float64).reshape(batch, -1)[0] for row in rows]) for i in range(len(values))]


def rows_of_batch(
    graph: ir.Graph,
    image: ImageInput,
    inputs: Mapping[str, NDArray[np.generic]],
    custom_ops: Sequence[Path],
    value: ir.Value,
) -> NDArray[np.float64]:
    """The rows (batch, elements) of a value for a full batch of one noise image.

    Raises:
        OnnxgainError: the graph cannot be evaluated.
    """
    batch = image.fixed_batch or 1
    fed = {image.name: image.to_input([_pictures(image)[0]] * batch), **inputs}
    ((found,),) = run_graph(graph, [value], [fed], custom_ops)
    return found.astype(np.float64).reshape(batch, -1)


def _pictures(image: ImageInput) -> list[NDArray[np.floating]]:
    generator = np.random.Generator(np.random.PCG64(_SEED))
    shape = image.image_shape
    return [generator.standard_normal(shape), generator.uniform(0.0, 255.0, shape)]


def run_graph(
    graph: ir.Graph,
    values: Sequence[ir.Value],
    feeds: Sequence[Mapping[str, NDArray[np.generic]]],
    custom_ops: Sequence[Path] = (),
) -> list[list[NDArray[np.generic]]]:
    """Some values of a graph for each feed, from onnxruntime; if that fails, in float64 from our own evaluator.

    Raises:
        OnnxgainError: neither can evaluate the graph.
    """
    outputs = list(graph.outputs)
    graph.outputs.clear()
    graph.outputs.extend(values)
    names = [value.name or "" for value in values]
    model = ir.Model(graph, ir_version=10)
    try:
        with evaluation(graph):
            return _by_runtime(model, names, feeds, custom_ops)
    except OnnxgainError:
        from onnxgain.engine.evaluator import Float64Evaluator

        with evaluation(graph):
            evaluator = Float64Evaluator(model)
            return [list(evaluator.run(as_graph_inputs(graph, fed), names).values()) for fed in feeds]
    finally:
        graph.outputs.clear()
        graph.outputs.extend(outputs)


def _by_runtime(
    model: ir.Model,
    names: Sequence[str],
    feeds: Sequence[Mapping[str, NDArray[np.generic]]],
    custom_ops: Sequence[Path],
) -> list[list[NDArray[np.generic]]]:
    from onnxgain.engine.session import Session

    session = Session(model, brief=True, custom_ops=tuple(custom_ops))
    return [list(session.run(as_graph_inputs(model.graph, fed), names).values()) for fed in feeds]


def as_graph_inputs(graph: ir.Graph, feeds: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """The feeds cast to the declared types of the graph's inputs. Integers are rounded and clipped, not wrapped."""
    declared = {value.name: value.dtype for value in graph.inputs}
    result = {}
    for name, array in feeds.items():
        kind = declared.get(name)
        if kind is None:
            continue
        dtype = kind.numpy() if kind != ir.DataType.STRING else array.dtype
        if array.dtype != dtype and np.dtype(dtype).kind in "iu":
            info = np.iinfo(dtype)
            array = np.clip(np.rint(array.astype(np.float64)), info.min, info.max)
        result[name] = array.astype(dtype) if array.dtype != dtype else array
    return result
