"""If, Loop and Scan that depend on run-time values.

The gradient of an If is an If with the same condition. The gradient of a loop is a loop that runs backward: the forward
loop is extended to also return its state before each iteration; the reverse loop recomputes each iteration from that
state and differentiates it. Captured outer values are treated as inputs; their gradients add up over the iterations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.registry import Wiring, body_rule, zero
from onnxgain.gradient.reverse.backpropagate import Path, backpropagate_all, captured
from onnxgain.gradient.values import partial_shape

Adjoints = Sequence[ir.Value | None]
_HISTORY = "onnxgain.history"
_REMEDY = "export the model with a fixed number of iterations"


def _body(node: ir.Node) -> ir.Graph:
    return node.attributes["body"].as_graph()


def _differentiated(
    op: Emitter,
    body: ir.Graph,
    values: Mapping[ir.Value, ir.Value],
    seeds: Mapping[ir.Value, ir.Value],
    wrt: Sequence[ir.Value],
    path: Path,
) -> Sequence[ir.Value | None]:
    """Emit a copy of the body through ``op``, with ``values`` as its inputs, and backpropagate through it.

    Args:
        op: emitter of the reverse subgraph.
        body: a forward subgraph.
        values: replacements for the body's inputs.
        seeds: upstream gradients of the body's outputs.
        wrt: body inputs and captured values to differentiate with respect to.
        path: the nodes on the path.

    Returns:
        For each of ``wrt`` its gradient, or None if it has none.
    """
    values = dict(values)
    op.copy(body, values)
    wanted = [x for x in wrt if x in path.wanted]
    dxs = backpropagate_all(op, {values[y]: dy for y, dy in seeds.items()}, [values.get(x, x) for x in wanted])
    adjoint_of = dict(zip(wanted, dxs, strict=True))
    return [adjoint_of.get(x) for x in wrt]


class _Sums:
    """Accumulates gradients by value."""

    def __init__(self, op: Emitter) -> None:
        self._op = op
        self._totals: dict[ir.Value, ir.Value] = {}

    def add(self, values: Sequence[ir.Value], gradients: Sequence[ir.Value]) -> None:
        for value, gradient in zip(values, gradients, strict=True):
            total = self._totals.get(value)
            self._totals[value] = gradient if total is None else self._op.Add(total, gradient)

    def of(self, targets: Sequence[ir.Value]) -> Sequence[ir.Value]:
        return [self._totals.get(value) or self._op.full_like(0.0, value) for value in targets]


# -- If ----------------------------------------------------------------------------------------------------------------


def _branches(node: ir.Node) -> list[ir.Graph]:
    return [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]


def _if_wiring(node: ir.Node) -> Wiring:
    branches = _branches(node)
    return Wiring(
        branches, leave=[pair for branch in branches for pair in zip(branch.outputs, node.outputs, strict=True)]
    )


def _if(op: Emitter, node: ir.Node, dys: Adjoints, path: Path) -> Sequence[ir.Value]:
    targets = path.bodies[node]
    graphs = {}
    for name in ("then_branch", "else_branch"):
        branch, inner = node.attributes[name].as_graph(), op.subgraph(f"{name}_adjoint")
        seeds = {y: dy for y, dy in zip(branch.outputs, dys, strict=True) if dy is not None}
        for x, dx in zip(targets, _differentiated(inner, branch, {}, seeds, targets, path), strict=True):
            inner.add_output(dx if dx is not None else inner.full_like(0.0, x))
        graphs[name] = inner.graph
    outputs = op.append("If", [node.inputs[0]], graphs, outputs=len(targets))
    for dx, x in zip(outputs, targets, strict=True):
        _declare_like(dx, op.like(0.0, x), partial_shape(x))
    return outputs


def _declare_like(value: ir.Value, typed: ir.Value, dims: Sequence[int | None] | None) -> None:
    value.type, value.shape = typed.type, None if dims is None else ir.Shape(dims)


body_rule("If", wiring=_if_wiring, obstacle=lambda node: None, formula=_if)
zero("If", "cond")


# -- loops -------------------------------------------------------------------------------------------------------------


def _with_history(op: Emitter, node: ir.Node, inputs: Sequence[ir.Value]) -> Sequence[ir.Value]:
    """Make a loop also return these inputs of its body, stacked over the iterations; return the stacks."""
    if _HISTORY in node.meta:
        return list(node.meta[_HISTORY])
    body = Emitter(_body(node), op.opset, outer=op)
    count = len(node.outputs)
    node.resize_outputs(count + len(inputs))
    for value, stack in zip(inputs, node.outputs[count:], strict=True):
        body.add_output(value)
        stack.name = op.unique(f"{node.name}_{value.name}_history")
        _declare_like(stack, value, [None, *(partial_shape(value) or ())])
    for name in ("scan_output_axes", "scan_output_directions"):
        if name in node.attributes or node.op_type == "Scan":
            present = list(node.attributes[name].as_ints()) if name in node.attributes else []
            node.attributes[name] = ir.AttrInt64s(name, [*present, *[0] * len(inputs)])
    node.meta[_HISTORY] = list(node.outputs[count:])
    return list(node.outputs[count:])


def _loop_obstacle(node: ir.Node) -> str | None:
    for outside, inside in _loop_wiring(node).enter:
        if not inside.uses():
            continue
        if not isinstance(inside.type, ir.TensorType):
            return f"it carries {outside.name!r}, which is not a tensor; {_REMEDY}"
        if partial_shape(inside) is None or partial_shape(inside) != partial_shape(outside):
            return f"the shape of {outside.name!r} changes from iteration to iteration; {_REMEDY}"
    return None


def _loop_wiring(node: ir.Node) -> Wiring:
    body = _body(node)
    count = len(body.inputs) - 2
    states = [pair for pair in zip(node.inputs[2:], body.inputs[2:], strict=True) if pair[0] is not None]
    return Wiring(
        [body],
        enter=states,  # type: ignore[arg-type]
        leave=list(zip(body.outputs[1:], node.outputs, strict=False)),
        carry=list(zip(body.outputs[1 : 1 + count], body.inputs[2:], strict=True)),
    )


def _loop(op: Emitter, node: ir.Node, dys: Adjoints, path: Path) -> Sequence[ir.Value]:
    """Iteration k of the reverse loop differentiates iteration trips - 1 - k of the forward loop."""
    body = _body(node)
    count = len(body.inputs) - 2
    state, results = body.inputs[2:], body.outputs[1 : len(dys) + 1]
    recorded = [body.inputs[0], *(x for x in state if x.uses())]
    history = _with_history(op, node, recorded)
    trips = op.Size(history[0])
    carried = [i for i in range(count) if results[i] in path.wanted]
    emitted = [i for i in range(count, len(dys)) if dys[i] is not None and results[i] in path.wanted]
    outer = [value for value in captured(body) if value in path.bodies[node]]
    initial = [dys[i] or op.full_like(0.0, node.outputs[i]) for i in carried]
    initial += [op.full_like(0.0, value) for value in outer]

    inner = op.subgraph("reverse_body")
    step = inner.add_input("step", op.constant(np.array(0)))
    inner.add_input("running", op.constant(np.array(True)))
    adjoints = [inner.add_input("adjoint", value) for value in initial]
    index = inner.Sub(inner.Sub(trips, 1), step)
    values = {x: inner.Gather(stack, index, axis=0) for x, stack in zip(recorded, history, strict=True)}
    values[body.inputs[1]] = op.constant(np.array(True))
    seeds = {results[i]: adjoint for i, adjoint in zip(carried, adjoints, strict=False)}
    seeds |= {results[i]: inner.Gather(dys[i], index, axis=0) for i in emitted}
    dxs = _differentiated(inner, body, values, seeds, [*(state[i] for i in carried), *outer], path)
    inner.add_output(op.constant(np.array(True)))
    _return_adjoints(inner, len(carried), adjoints, dxs)
    outputs = op.append("Loop", [trips, None, *initial], {"body": inner.graph}, outputs=len(initial))
    for dx, value in zip(outputs, initial, strict=True):
        _declare_like(dx, value, partial_shape(value))

    sums = _Sums(op)
    entering = [(node.inputs[2 + i], dx) for i, dx in zip(carried, outputs, strict=False)]
    sums.add([x for x, _ in entering if x is not None], [dx for x, dx in entering if x is not None])
    sums.add(outer, outputs[len(carried) :])
    return sums.of(path.bodies[node])


def _return_adjoints(inner: Emitter, carried: int, adjoints: Sequence[ir.Value], dxs: Adjoints) -> None:
    """Return the gradients of the state, and add those of captured outer values to the totals so far."""
    for i, (before, dx) in enumerate(zip(adjoints, dxs, strict=False)):
        if dx is None:
            inner.add_output(inner.full_like(0.0, before) if i < carried else before)
        else:
            inner.add_output(dx if i < carried else inner.Add(before, dx))


body_rule("Loop", "v_initial", wiring=_loop_wiring, obstacle=_loop_obstacle, formula=_loop)
zero("Loop", "M", "cond")


def _scan_states(node: ir.Node) -> int:
    return len(node.inputs) - node.attributes["num_scan_inputs"].as_int()


def _scan_wiring(node: ir.Node) -> Wiring:
    body, count = _body(node), _scan_states(node)
    return Wiring(
        [body],
        enter=list(zip(node.inputs, body.inputs, strict=True)),  # type: ignore[arg-type]
        leave=list(zip(body.outputs, node.outputs, strict=False)),
        carry=list(zip(body.outputs[:count], body.inputs[:count], strict=True)),
    )


def _scan(op: Emitter, node: ir.Node, dys: Adjoints, path: Path) -> Sequence[ir.Value]:
    """A Scan in the opposite direction, over the same slices, the recorded states and the upstream gradients."""
    body, count = _body(node), _scan_states(node)
    results = body.outputs[: len(dys)]
    axes, backward, output_axes, output_backward = (
        list(node.attributes[name].as_ints()) if name in node.attributes else [0] * size
        for name, size in (
            ("scan_input_axes", len(node.inputs) - count),
            ("scan_input_directions", len(node.inputs) - count),
            ("scan_output_axes", len(dys) - count),
            ("scan_output_directions", len(dys) - count),
        )
    )
    recorded = [x for x in body.inputs[:count] if x.uses()]
    history = _with_history(op, node, recorded)
    carried = [i for i in range(count) if results[i] in path.wanted]
    emitted = [i for i in range(count, len(dys)) if dys[i] is not None and results[i] in path.wanted]
    scanned = [i for i in range(count, len(node.inputs)) if body.inputs[i] in path.wanted]
    outer = [value for value in captured(body) if value in path.bodies[node]]
    initial = [dys[i] or op.full_like(0.0, node.outputs[i]) for i in carried]
    initial += [op.full_like(0.0, value) for value in outer]

    inner = op.subgraph("reverse_body")
    adjoints = [inner.add_input("adjoint", value) for value in initial]
    values = {x: inner.add_input(x.name or "state", x) for x in [*recorded, *body.inputs[count:]]}
    slices = {results[i]: inner.add_input("adjoint_slice", _slice_like(op, dys[i], results[i])) for i in emitted}
    seeds = {results[i]: adjoint for i, adjoint in zip(carried, adjoints, strict=False)} | slices
    wrt = [*(body.inputs[i] for i in carried), *outer, *(body.inputs[i] for i in scanned)]
    dxs = _differentiated(inner, body, values, seeds, wrt, path)
    _return_adjoints(inner, len(carried), adjoints, dxs)
    for i, dx in zip(scanned, dxs[len(initial) :], strict=True):
        inner.add_output(dx if dx is not None else inner.full_like(0.0, body.inputs[i]))

    reversed_inputs = [1 - d for d in backward]
    outputs = op.append(
        "Scan",
        [*initial, *history, *node.inputs[count:], *(dys[i] for i in emitted)],
        {
            "body": inner.graph,
            "num_scan_inputs": len(history) + len(axes) + len(emitted),
            "scan_input_axes": [*[0] * len(history), *axes, *(output_axes[i - count] for i in emitted)],
            "scan_input_directions": [
                *[1] * len(history), *reversed_inputs, *(1 - output_backward[i - count] for i in emitted)
            ],
            "scan_output_axes": [axes[i - count] for i in scanned] or None,
            "scan_output_directions": [reversed_inputs[i - count] for i in scanned] or None,
        },
        outputs=len(initial) + len(scanned),
    )  # fmt: skip
    sums = _Sums(op)
    entering = [*(node.inputs[i] for i in carried), *outer, *(node.inputs[i] for i in scanned)]
    for dx, x in zip(outputs, entering, strict=True):
        assert x is not None
        _declare_like(dx, op.like(0.0, x), partial_shape(x))
        sums.add([x], [dx])
    return sums.of(path.bodies[node])


def _slice_like(op: Emitter, dy: ir.Value | None, result: ir.Value) -> ir.Value:
    assert dy is not None
    return ir.Value(name="slice", type=dy.type, shape=result.shape)


body_rule("Scan", "initial_state_and_scan_inputs", wiring=_scan_wiring, obstacle=lambda node: None, formula=_scan)
zero("Scan", "sequence_lens")
