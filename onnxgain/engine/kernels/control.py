"""Control flow. A graph attribute is a callable that takes the graph's inputs and returns a list of its outputs."""

# ruff: noqa: D103 - a kernel without a docstring implements the operator of its name as specified.
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from onnxgain.engine.kernels._registry import kernel
from onnxgain.engine.kernels._window import Array

Body = Callable[..., list[Any]]


@kernel("If")
def if_(condition: Array, *, then_branch: Body, else_branch: Body) -> tuple[Any, ...]:
    return tuple(then_branch() if condition.item() else else_branch())


@kernel("Loop")
def loop(
    trip_count: Array | None = None, condition: Array | None = None, *state: Any, body: Body, n_outputs: int
) -> tuple[Any, ...]:
    """Loop-carried values, then the scan outputs of all iterations, stacked along a new first axis."""
    carried = list(state)
    emitted: list[list[Array]] = [[] for _ in range(n_outputs - len(carried))]
    limit = None if trip_count is None else int(trip_count.item())
    running = True if condition is None else bool(condition.item())
    iteration = 0
    while running and (limit is None or iteration < limit):
        result = body(np.array(iteration, dtype=np.int64), np.array(running), *carried)
        running, carried = bool(result[0].item()), result[1 : 1 + len(carried)]
        for values, value in zip(emitted, result[1 + len(carried) :], strict=False):
            values.append(value)
        iteration += 1
    return (*carried, *(np.stack(values) if values else np.zeros(0) for values in emitted))


@kernel("Scan", since=9)
def scan(
    *inputs: Any,
    body: Body,
    num_scan_inputs: int,
    scan_input_axes: Sequence[int] | None = None,
    scan_input_directions: Sequence[int] | None = None,
    scan_output_axes: Sequence[int] | None = None,
    scan_output_directions: Sequence[int] | None = None,
) -> tuple[Any, ...]:
    """State variables, then the scan outputs; a direction of 1 reverses an axis."""
    n_state = len(inputs) - num_scan_inputs
    state, scanned = list(inputs[:n_state]), inputs[n_state:]
    axes = scan_input_axes or (0,) * num_scan_inputs
    directions = scan_input_directions or (0,) * num_scan_inputs
    sequences = [
        np.moveaxis(x, axis, 0)[:: -1 if back else 1] for x, axis, back in zip(scanned, axes, directions, strict=True)
    ]
    emitted: list[list[Array]] = []
    for slices in zip(*sequences, strict=True):
        result = body(*state, *slices)
        state, values = result[:n_state], result[n_state:]
        emitted.append(values)
    outputs = [np.stack(values) for values in zip(*emitted, strict=True)]
    back = scan_output_directions or (0,) * len(outputs)
    out_axes = scan_output_axes or (0,) * len(outputs)
    placed = [np.moveaxis(y[:: -1 if b else 1], 0, axis) for y, b, axis in zip(outputs, back, out_axes, strict=True)]
    return (*state, *placed)


@kernel("SequenceMap")
def sequence_map(sequence: list[Any], *additional: Any, body: Body) -> tuple[list[Any], ...]:
    """Apply `body` to every element; additional sequences are iterated too, tensors are passed unchanged."""
    results = [
        body(element, *(extra[i] if isinstance(extra, list) else extra for extra in additional))
        for i, element in enumerate(sequence)
    ]
    return tuple(list(column) for column in zip(*results, strict=True))
