"""Inputs other than the image: their values, and removal of those that only a loss or a copy of a label needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir

from onnxgain.errors import ModelError
from onnxgain.gradient.forward.transcribe import is_idle
from onnxgain.model.image_input import ImageInput
from onnxgain.model.sums import through


def without_inputs(model: ir.Model, missing: Collection[str]) -> ir.Model | None:
    """A copy of a model without some inputs and all nodes and outputs that need them; None if no output is left.

    Args:
        model: the model, which is not modified.
        missing: names of the inputs to remove.
    """
    copy = model.clone()
    graph = copy.graph
    gone: set[ir.Value] = {value for value in graph.inputs if value.name in missing}
    dead = []
    for node in graph:
        if any(value in gone for value in _read(node)):
            gone.update(node.outputs)
            dead.append(node)
    kept = [value for value in graph.outputs if value not in gone]
    if not kept:
        return None
    graph.outputs.clear()
    graph.outputs.extend(kept)
    graph.remove(dead, safe=False)
    left = [value for value in graph.inputs if value.name not in missing]
    graph.inputs.clear()
    graph.inputs.extend(left)
    return copy


def leave_out(
    model: ir.Model, image: ImageInput, given: Mapping[str, np.ndarray]
) -> tuple[ir.Model, dict[str, np.ndarray], tuple[str, ...]]:
    """A model without the inputs that no class score needs: texts, and labels that only a loss or a copy depends on.

    Returns:
        The model (the same one if nothing is left out), the values of its remaining inputs, and sentences for the user.
    """
    texts = {value.name or "" for value in model.graph.inputs if value.dtype == ir.DataType.STRING}
    missing = texts | set(without_value(model.graph, image, given))
    if not missing:
        return model, dict(given), ()
    reduced = without_inputs(model, missing)
    kept = {value.name for value in reduced.graph.outputs} if reduced is not None else set()
    removed = [value for value in model.graph.outputs if value.name not in kept]
    if reduced is None or not all(_is_no_score(value) for value in removed):
        return model, dict(given), ()
    listed = ", ".join(repr(name) for name in sorted(missing))
    said = f"inputs left out, as no class score needs them: {listed}"
    return reduced, {name: array for name, array in given.items() if name not in missing}, (said,)


def _is_no_score(output: ir.Value) -> bool:
    """Whether an output is a copy of an input, a single number such as a loss, or not of a floating-point type."""
    output = through(output, {"Identity"})
    if output.producer() is None or output.dtype is None or not output.dtype.is_floating_point():
        return True
    return output.shape is not None and all(dim == 1 for dim in output.shape)


def _read(node: ir.Node) -> list[ir.Value]:
    """The values that a node and its subgraphs read."""
    found = [value for value in node.inputs if value is not None]
    for attribute in node.attributes.values():
        graphs = []
        if attribute.type == ir.AttributeType.GRAPH:
            graphs = [attribute.as_graph()]
        elif attribute.type == ir.AttributeType.GRAPHS:
            graphs = list(attribute.as_graphs())
        found += [value for graph in graphs for inner in graph for value in _read(inner)]
    return found


def side_inputs(
    model: ir.Model, image: ImageInput, given: Mapping[str, np.ndarray]
) -> tuple[ir.Model, dict[str, np.ndarray], dict[str, np.ndarray], tuple[str, ...]]:
    """The inputs of a model other than the image.

    Returns:
        The model without inputs that no class score needs; the values of its other inputs; values that replace
        initializers, which are defaults of inputs; and sentences for the user.

    Raises:
        ModelError: an input has no value, or a given value does not fit.
    """
    model, given, said = leave_out(model, image, given)
    values = other_inputs(model.graph, image, given)
    inputs = {name: array for name, array in values.items() if name not in model.graph.initializers}
    initializers = {name: array for name, array in values.items() if name in model.graph.initializers}
    return model, inputs, initializers, said


def other_inputs(graph: ir.Graph, image: ImageInput, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The values of the other inputs, converted to the types and shapes that the graph declares."""
    declared = {value.name: value for value in graph.inputs}
    for name in given:
        if name not in declared:
            known = ", ".join(repr(known) for known in declared if known not in graph.initializers)
            raise ModelError(f"the model has no input {name!r}", remedy=f"its inputs are {known}")
    missing = without_value(graph, image, given)
    if missing:
        listed = ", ".join(repr(name) for name in missing)
        # A mask of 0 hides the image.
        number = 1 if "mask" in missing[0].lower() else 0
        raise ModelError(
            f"inputs beside the image have no value: {listed}",
            remedy=f"give them, e.g. --input {missing[0]}={number}",
        )
    return {name: _fitted(array, declared[name]) for name, array in given.items()}


def without_value(graph: ir.Graph, image: ImageInput, given: Collection[str]) -> list[str]:
    """The names of inputs without a value that a node reads or an output copies."""
    return [
        value.name or "" for value in graph.inputs
        if value.name not in graph.initializers and value.name != image.name and value.name not in given
        and not is_idle(value)
    ]  # fmt: skip


def _fitted(array: np.ndarray, value: ir.Value) -> np.ndarray:
    """``array`` converted to the type and shape of an input. A single number fills any shape."""
    if value.shape is not None:
        shape = [dim if isinstance(dim, int) else None for dim in value.shape]
        if array.ndim == 0:
            array = np.full([dim or 1 for dim in shape], array)
        elif array.ndim == len(shape) - 1 and shape[0] in (None, 1):
            array = array[None]
        if len(shape) != array.ndim or any(
            want not in (None, have) for want, have in zip(shape, array.shape, strict=True)
        ):
            listed = ", ".join("?" if dim is None else str(dim) for dim in shape)
            raise ModelError(
                f"the input {value.name!r} is of shape [{listed}], the value given for it of {list(array.shape)}",
                remedy="give --input a value of that shape, or a single number",
            )
    if array.dtype.kind not in "biuf":
        raise ModelError(
            f"the input {value.name!r} takes numbers, the value given for it is a text",
            remedy="give --input a number, a list of numbers or a .npy file",
        )
    if value.dtype is None:
        return array
    converted = array.astype(value.dtype.numpy())
    if converted.dtype.kind in "biu" and (converted.astype(np.float64) != array.astype(np.float64)).any():
        raise ModelError(
            f"the input {value.name!r} is {value.dtype.name.lower()}, which {array.reshape(-1)[0]} is not",
            remedy="give --input a value of that type",
        )
    return converted
