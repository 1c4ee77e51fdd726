"""If, Loop and Scan in the forward graph.

An If with a constant condition is replaced by its branch, and a loop with a small constant trip count is unrolled. The
others stay as they are; this module infers the types of their outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnxgain.errors import ModelError, UnsupportedOperatorError
from onnxgain.gradient.emitter import Emitter, Packed, discard
from onnxgain.gradient.operator_calls import Attribute, Body
from onnxgain.gradient.registry import rewrite
from onnxgain.gradient.values import Value, partial_shape, positive_axis, rank, static_shape

_UNROLLED_TRIPS = 64
_UNROLLED_NODES = 1 << 14

MOST_TRIPS = 100_000
"""The largest trip count that is accepted, nested loops multiplied. A trip takes at least a few microseconds, and a
file of a hundred bytes can ask for 2^62 of them."""

_TRIPS = "onnxgain.trips"
"""Metadata key of a loop that is kept: its trip count, multiplied by that of the longest loop nested in it."""


class Step:
    """A loop body written in Python instead of a subgraph, see `operator_calls.Body`.

    Args:
        function: called with an emitter and the inputs of the body; returns its outputs.
        size: the approximate number of nodes it emits.
    """

    def __init__(self, function: Callable[..., Sequence[Value]], size: int) -> None:
        self._function = function
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __call__(self, op: Emitter, *inputs: ir.Value | None) -> list[Value]:
        return list(self._function(op, *inputs))

    def emit(self, op: Emitter, like: Sequence[ir.Value] = ()) -> ir.Graph:
        inner = op.subgraph("step")
        inputs = [inner.add_input(value.name or "input", value) for value in like]
        with inner.scoped(op.scope):
            for value in self(inner, *inputs):
                inner.add_output(value)
        return inner.graph


@rewrite("If", counts_outputs=True)
def if_(op: Emitter, cond: ir.Value, *, then_branch: Body, else_branch: Body, output_count: int) -> Sequence[ir.Value]:
    known = op.known(cond)
    if known is not None:
        return (then_branch if known.reshape(-1)[0] else else_branch)(op)
    branches = {"then_branch": then_branch.emit(op), "else_branch": else_branch.emit(op)}
    outputs = op.append("If", [cond], branches, outputs=output_count)
    for y, *sources in zip(outputs, *(branch.outputs for branch in branches.values()), strict=False):
        _declare(y, sources)
    return outputs


@rewrite("Loop", counts_outputs=True)
def loop(
    op: Emitter,
    M: ir.Value | None = None,
    cond: ir.Value | None = None,
    *state: ir.Value,
    body: Body,
    output_count: int,
) -> Sequence[ir.Value]:
    before = len(op.graph)
    outputs = _unrolled_loop(op, M, cond, state, body, output_count)
    if outputs is None:
        discard(op.graph, list(op.graph)[before:])
        outputs = kept_loop(op, M, cond, state, body, output_count)
    return outputs


def _unrolled_loop(
    op: Emitter, M: ir.Value | None, cond: ir.Value | None, state: Sequence[ir.Value], body: Body, output_count: int
) -> Sequence[ir.Value] | None:
    """The outputs of the unrolled loop, or None if its trip count is unknown or too large."""
    count = len(state)
    trips = None if M is None else op.known(M)
    if M is not None and trips is None:
        return None
    limit = None if trips is None else int(trips.reshape(-1)[0])
    emitted: list[list[ir.Value]] = [[] for _ in range(output_count - count)]
    iteration, earlier = 0, state
    while limit is None or iteration < limit:
        running = np.array(True) if cond is None else op.known(cond)
        if running is None or iteration > _UNROLLED_TRIPS or iteration * len(body) > _UNROLLED_NODES:
            long = running is not None and (limit is None or limit > MOST_TRIPS)
            if long and _goes_on(op, body, iteration, earlier, state):
                often = f"more than {MOST_TRIPS}" if limit is None else str(limit)
                raise _too_long(op, f"its body runs {often} times for every image")
            return None
        if not running.reshape(-1)[0]:
            break
        cond, *values = body(op, op.constant(np.array(iteration)), op.constant(np.array(True)), *state)
        earlier, state = state, values[:count]
        for column, value in zip(emitted, values[count:], strict=False):
            column.append(value)
        iteration += 1
    if emitted and not iteration:
        return None
    return [*state, *(_stacked(op, column, 0) for column in emitted)]


def kept_loop(
    op: Emitter, M: ir.Value | None, cond: ir.Value | None, state: Sequence[ir.Value], body: Body, output_count: int
) -> Sequence[ir.Value]:
    initial = [op.computed(value) if isinstance(value, Packed) else value for value in state]
    counter = ir.Value(name="iteration", shape=ir.Shape([]), type=ir.TensorType(ir.DataType.INT64))
    running = ir.Value(name="running", shape=ir.Shape([]), type=ir.TensorType(ir.DataType.BOOL))
    graph, states = _body_graph(op, body, [counter, running], initial, [], skipped=1)
    outputs = op.append("Loop", [M, cond, *initial], {"body": graph}, outputs=output_count)
    trips = op.known_ints(M) if _always_true(op, cond) and _always_true(op, graph.outputs[0], graph.inputs[1]) else None
    _note_trips(op, outputs[0], graph, trips[0] if trips else None)
    for y, source in zip(outputs, states, strict=False):
        _declare(y, [source])
    for y, source in zip(outputs[len(states) :], graph.outputs[1 + len(states) :], strict=False):
        _declare(y, [source], length=trips[0] if trips else None, axis=0)
    return outputs


def _goes_on(op: Emitter, body: Body, iteration: int, earlier: Sequence[ir.Value], state: Sequence[ir.Value]) -> bool:
    """Whether a condition that does not depend on the image still holds after `MOST_TRIPS`.

    Counters in the state are extrapolated by the step of the last unrolled trip. The caller discards the nodes emitted
    here together with the unrolled ones.
    """
    later = []
    for before, now in zip(earlier, state, strict=True):
        old, new = op.known(before), op.known(now)
        if old is None or new is None or old.shape != new.shape or new.dtype.kind not in "iuf":
            later.append(now)
            continue
        step = new.astype(np.float64) - old.astype(np.float64)
        reached = new + step * (MOST_TRIPS - iteration)
        later.append(op.constant(np.asarray(reached, new.dtype)))
    known = op.known(body(op, op.constant(np.array(MOST_TRIPS)), op.constant(np.array(True)), *later)[0])
    return known is not None and bool(known.reshape(-1)[0])


def _note_trips(op: Emitter, output: ir.Value, graph: ir.Graph, trips: int | None) -> None:
    """Record on a kept loop how often its innermost body runs.

    Raises:
        ModelError: it runs more than `MOST_TRIPS` times.
    """
    inside = max((int(node.meta.get(_TRIPS, 1)) for node in graph.all_nodes()), default=1)
    total = max(trips if trips is not None else 1, 1) * inside
    if total > MOST_TRIPS:
        nested = f", counting the {inside} trips of the loop nested in it" if inside > 1 else ""
        raise _too_long(op, f"its body runs {total} times for every image{nested}")
    node = output.producer()
    assert node is not None
    node.meta[_TRIPS] = total


def _too_long(op: Emitter, reason: str) -> ModelError:
    return ModelError(
        f"a loop is too long: {reason}",
        where=op.node_name,
        remedy=f"at most {MOST_TRIPS} trips are supported; export the model with fewer or without the loop",
    )


def _always_true(op: Emitter, cond: ir.Value | None, previous: ir.Value | None = None) -> bool:
    """Whether a loop condition is absent, constantly true, or passes on the previous iteration's."""
    while cond is not None and cond is not previous:
        known = op.known(cond)
        producer = cond.producer()
        if known is not None:
            return bool(known.reshape(-1)[0])
        if producer is None or producer.op_type != "Identity":
            return False
        cond = producer.inputs[0]
    return True


def _body_graph(
    op: Emitter,
    body: Body,
    lead: Sequence[ir.Value],
    state: Sequence[ir.Value],
    tail: Sequence[ir.Value],
    *,
    skipped: int,
) -> tuple[ir.Graph, list[ir.Value]]:
    """The body as a graph, and values like its state inputs, without the dimensions that an iteration changes.

    Args:
        op: emitter of the graph that will hold the loop.
        body: the body.
        lead, state, tail: values with the types and shapes of the body's inputs.
        skipped: number of body outputs before the new state.
    """
    states = list(state)
    while True:
        graph = body.emit(op, [*lead, *states, *tail])
        results = graph.outputs[skipped : skipped + len(states)]
        if all(_fits(y, s) for s, y in zip(states, results, strict=True)):
            return graph, states
        joined = [ir.Value(name=s.name, type=s.type) for s in states]
        for value, *sources in zip(joined, states, results, strict=True):
            _declare(value, sources)
        states = joined
        graph.outputs.clear()
        discard(graph, list(graph))


def _fits(y: ir.Value, like: ir.Value) -> bool:
    """Whether the shape of ``y`` is an instance of the possibly less specific shape of ``like``."""
    shape, declared = partial_shape(y), partial_shape(like)
    if declared is None:
        return True
    return (
        shape is not None
        and len(shape) == len(declared)
        and all(d is None or d == n for n, d in zip(shape, declared, strict=True))
    )


def _declare(
    value: ir.Value, sources: Sequence[ir.Value], *, length: int | None = None, axis: int | None = None
) -> None:
    """Give ``value`` the type and common dimensions of ``sources``, with a dimension inserted at ``axis``."""
    value.type = sources[0].type
    shapes = [partial_shape(source) for source in sources]
    known = [shape for shape in shapes if shape is not None]
    if len(known) != len(shapes) or len({len(shape) for shape in known}) != 1:
        return
    dims = [column[0] if len(set(column)) == 1 else None for column in zip(*known, strict=True)]
    if axis is not None:
        dims.insert(positive_axis(axis, len(dims) + 1), length)
    value.shape = ir.Shape(dims)


def _stacked(op: Emitter, values: Sequence[ir.Value], axis: int) -> ir.Value:
    return op.Concat(*(op.Unsqueeze(value, [axis]) for value in values), axis=axis)


class _Scan(NamedTuple):
    """The operator's attributes; axes and directions have one number per scanned input or output."""

    body: Body
    num_scan_inputs: int
    scan_input_axes: Sequence[int] = ()
    scan_input_directions: Sequence[int] = ()
    scan_output_axes: Sequence[int] = ()
    scan_output_directions: Sequence[int] = ()


@rewrite("Scan", counts_outputs=True, attributes=_Scan)
def scan(
    op: Emitter,
    *inputs: ir.Value,
    given: _Scan,
    output_count: int,
) -> Sequence[ir.Value]:
    body, num_scan_inputs = given.body, given.num_scan_inputs
    count = len(inputs) - num_scan_inputs
    state: Sequence[ir.Value] = inputs[:count]
    scanned = inputs[count:]
    stacks_count = output_count - count
    axes = [
        positive_axis(a, rank(x)) for a, x in zip(given.scan_input_axes or [0] * len(scanned), scanned, strict=True)
    ]
    backward = list(given.scan_input_directions or [0] * len(scanned))
    output_axes = list(given.scan_output_axes or [0] * stacks_count)
    output_backward = list(given.scan_output_directions or [0] * stacks_count)
    dims = [(partial_shape(x) or ())[axis] for x, axis in zip(scanned, axes, strict=True)]
    length = next((dim for dim in dims if dim is not None), None)
    if length is not None and length <= _UNROLLED_TRIPS and 0 < length * len(body) <= _UNROLLED_NODES:
        columns = [
            _slices(op, x, a, length)[:: -1 if b else 1] for x, a, b in zip(scanned, axes, backward, strict=True)
        ]
        emitted: list[list[ir.Value]] = [[] for _ in range(stacks_count)]
        for slices in zip(*columns, strict=True):
            values = body(op, *state, *slices)
            state = values[:count]
            for column, value in zip(emitted, values[count:], strict=False):
                column.append(value)
        stacks = zip(emitted, output_axes, output_backward, strict=True)
        return [*state, *(_stacked(op, column[:: -1 if back else 1], axis) for column, axis, back in stacks)]
    tail = [_slice_type(x, axis) for x, axis in zip(scanned, axes, strict=True)]
    graph, states = _body_graph(op, body, [], state, tail, skipped=0)
    attributes: dict[str, Attribute] = {
        "body": graph, "num_scan_inputs": num_scan_inputs, "scan_input_axes": axes, "scan_input_directions": backward,
    }  # fmt: skip
    if stacks_count:
        attributes |= {"scan_output_axes": output_axes, "scan_output_directions": output_backward}
    outputs = op.append("Scan", inputs, attributes, outputs=output_count)
    _note_trips(op, outputs[0], graph, length)
    for y, source in zip(outputs, states, strict=False):
        _declare(y, [source])
    for y, source, axis in zip(outputs[count:], graph.outputs[count:], output_axes, strict=True):
        _declare(y, [source], length=length, axis=axis)
    return outputs


def _slices(op: Emitter, x: ir.Value, axis: int, length: int) -> list[ir.Value]:
    parts = [x] if length == 1 else op.emit("Split", [x], {"axis": axis, "num_outputs": length}, outputs=length)
    return [op.Squeeze(part, [axis]) for part in parts]


def _slice_type(x: ir.Value, axis: int) -> ir.Value:
    dims = list(partial_shape(x) or ())
    del dims[axis]
    return ir.Value(name="slice", shape=ir.Shape(dims), type=x.type)


@rewrite("Scan", 8, counts_outputs=True)
def batched_scan(
    op: Emitter,
    lengths: ir.Value | None,
    *inputs: ir.Value,
    body: Body,
    num_scan_inputs: int,
    directions: Sequence[int] | None = None,
    output_count: int,
) -> Sequence[ir.Value]:
    """In opset 8, Scan has a batch axis: each item is scanned separately, over axis 1, up to its own length."""
    batch, longest = (static_shape(inputs[-1]) or (None, None))[:2]
    known = op.known_ints(lengths) if lengths is not None else [longest or 0] * (batch or 0)
    if batch is None or longest is None or known is None:
        raise UnsupportedOperatorError(
            "Scan of opset 8 needs a known batch size and known sequence lengths",
            where=op.node_name,
            remedy="export the model with fixed shapes, at opset 9 or later",
        )
    count = len(inputs) - num_scan_inputs
    columns = []
    for item, length in enumerate(known):
        state = [op.Gather(x, np.array(item), axis=0) for x in inputs[:count]]
        scanned = [op.Slice(op.Gather(x, np.array(item), axis=0), [0], [length], [0]) for x in inputs[count:]]
        values = op.emit(
            "Scan", [*state, *scanned], outputs=output_count,
            attributes={"body": body, "num_scan_inputs": num_scan_inputs, "scan_input_directions": directions},
        )  # fmt: skip
        stacks = [op.Pad(y, [0] * rank(y) + [longest - length] + [0] * (rank(y) - 1)) for y in values[count:]]
        columns.append([*values[:count], *stacks])
    return [_stacked(op, column, 0) for column in zip(*columns, strict=True)]
