"""RNN, GRU and LSTM as a Scan over the time steps, which is unrolled if there are few.

A single matrix product before the Scan multiplies the inputs of all steps by the input weights. Shapes below: S steps,
B batch, I inputs, H hidden, D directions, G gates (1, 3 or 4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.forward.rewrites.control import Step
from onnxgain.gradient.registry import rewrite
from onnxgain.gradient.values import Value, padded, require_static

_Activation = Callable[[Emitter, Value], Value]
# The parameters of each activation with their defaults, and its function.
_ACTIVATIONS: dict[str, tuple[dict[str, float], Callable[..., Value]]] = {
    "relu": ({}, lambda op, x: op.Relu(x)),
    "tanh": ({}, lambda op, x: op.Tanh(x)),
    "sigmoid": ({}, lambda op, x: op.Sigmoid(x)),
    "softsign": ({}, lambda op, x: op.Softsign(x)),
    "softplus": ({}, lambda op, x: op.Softplus(x)),
    "leakyrelu": ({"alpha": 0.01}, lambda op, x, alpha: op.LeakyRelu(x, alpha=alpha)),
    "thresholdedrelu": ({"alpha": 1.0}, lambda op, x, alpha: op.ThresholdedRelu(x, alpha=alpha)),
    "elu": ({"alpha": 1.0}, lambda op, x, alpha: op.Elu(x, alpha=alpha)),
    "affine": ({"alpha": 1.0, "beta": 0.0}, lambda op, x, alpha, beta: op.Add(op.Mul(x, alpha), beta)),
    "scaledtanh": ({"alpha": 1.0, "beta": 1.0}, lambda op, x, alpha, beta: op.Mul(op.Tanh(op.Mul(x, beta)), alpha)),
    "hardsigmoid": ({"alpha": 0.2, "beta": 0.5}, lambda op, x, alpha, beta: op.HardSigmoid(x, alpha=alpha, beta=beta)),
}


def activations(names: Sequence[str], alpha: Sequence[float] | None, beta: Sequence[float] | None) -> list[_Activation]:
    """The activations by name; each takes the next alpha and beta if it has such a parameter."""
    remaining = {"alpha": iter(alpha or ()), "beta": iter(beta or ())}

    def make(name: str) -> _Activation:
        defaults, function = _ACTIVATIONS[name.lower()]
        chosen = {key: next(remaining[key], value) for key, value in defaults.items()}

        def activate(op: Emitter, x: Value) -> Value:
            return function(op, x, **chosen)

        return activate

    return [make(name) for name in names]


def clipped(activation: _Activation, clip: float | None) -> _Activation:
    """The activation of its input clipped to [-clip, clip]."""
    if not clip:
        return activation
    return lambda op, x: activation(op, op.Clip(x, op.like(-clip, x), op.like(clip, x)))


class Weights(NamedTuple):
    """The parameters of one direction.

    Attributes:
        W: (I, G H).
        R: (H, G H).
        Wb, Rb: biases (G H), None if absent.
        P: peepholes (3 H), None if absent.
        H: hidden size.
    """

    W: Value
    R: Value
    Wb: Value | None
    Rb: Value | None
    P: Value | None
    H: int


def _columns(op: Emitter, x: Value, hidden: int, gates: Sequence[int]) -> Value:
    """The part of the last axis that belongs to consecutive gates."""
    return op.Slice(x, [gates[0] * hidden], [(gates[-1] + 1) * hidden], [-1])


def _plus(op: Emitter, x: Value, bias: Value | None) -> Value:
    return x if bias is None else op.Add(x, bias)


_CELL_OUTPUT = 2
_NODES_OF_A_STEP = 20

# One step: (op, the step's input times W, states) -> new states, hidden state first.
_Cell = Callable[[Emitter, Value, Sequence[Value]], list[Value]]
# (op, weights, activations) -> the cell of one direction; it emits once what all steps share.
_CellMaker = Callable[[Emitter, Weights, Sequence[_Activation]], _Cell]


def _rnn_cell(op: Emitter, w: Weights, f: Sequence[_Activation]) -> _Cell:
    def cell(op: Emitter, x: Value, state: Sequence[Value]) -> list[Value]:
        return [f[0](op, op.Add(x, _plus(op, op.MatMul(state[0], w.R), w.Rb)))]

    return cell


def _gru_cell(linear_before_reset: int) -> _CellMaker:
    def make(op: Emitter, w: Weights, f: Sequence[_Activation]) -> _Cell:
        """Gates z (update), r (reset), h (candidate)."""
        gates, candidate = (0, 1), (2,)
        R, Rh = (_columns(op, w.R, w.H, part) for part in (gates, candidate))
        Rb, Rbh = (None if w.Rb is None else _columns(op, w.Rb, w.H, part) for part in (gates, candidate))

        def cell(op: Emitter, x: Value, state: Sequence[Value]) -> list[Value]:
            (h,) = state
            zr = f[0](op, op.Add(_columns(op, x, w.H, gates), _plus(op, op.MatMul(h, R), Rb)))
            z, r = (_columns(op, zr, w.H, (index,)) for index in gates)
            if linear_before_reset:
                reset = op.Mul(r, _plus(op, op.MatMul(h, Rh), Rbh))
            else:
                reset = _plus(op, op.MatMul(op.Mul(r, h), Rh), Rbh)
            new = f[1](op, op.Add(_columns(op, x, w.H, candidate), reset))
            return [op.Add(op.Mul(op.Sub(1.0, z), new), op.Mul(z, h))]

        return cell

    return make


def _lstm_cell(input_forget: int) -> _CellMaker:
    def make(op: Emitter, w: Weights, f: Sequence[_Activation]) -> _Cell:
        """Gates i (input), o (output), f (forget), c (candidate); peepholes i, o, f."""
        peepholes = None if w.P is None else [_columns(op, w.P, w.H, (index,)) for index in range(3)]

        def cell(op: Emitter, x: Value, state: Sequence[Value]) -> list[Value]:
            h, c = state
            total = op.Add(x, _plus(op, op.MatMul(h, w.R), w.Rb))

            def gate(index: int, cell_state: Value) -> Value:
                part = _columns(op, total, w.H, (index,))
                return f[0](op, part if peepholes is None else op.Add(part, op.Mul(peepholes[index], cell_state)))

            i = gate(0, c)
            forget = op.Sub(1.0, i) if input_forget else gate(2, c)
            candidate = f[1](op, _columns(op, total, w.H, (3,)))
            after = op.Add(op.Mul(forget, c), op.Mul(i, candidate))
            return [op.Mul(gate(1, after), f[2](op, after)), after]

        return cell

    return make


@dataclass(frozen=True)
class _Layer:
    """The common attributes of recurrent layers."""

    direction: str = "forward"
    layout: int = 0
    hidden_size: int | None = None
    clip: float | None = None
    activations: Sequence[str] = ()
    activation_alpha: Sequence[float] = ()
    activation_beta: Sequence[float] = ()


def _recurrent(
    op: Emitter,
    make_cell: _CellMaker,
    functions: Sequence[str],
    tensors: Sequence[Value | None],
    initial: Sequence[Value | None],
    layer: _Layer,
) -> list[Value]:
    """The operator's outputs: Y (S, D, B, H), then each final state (D, B, H); batch first if ``layout`` is 1.

    Args:
        op: the emitter.
        make_cell: makes the cell of one direction.
        functions: default activations of one direction.
        tensors: X (S, B, I), W (D, G H, I), R (D, G H, H), B (D, 2 G H), sequence_lens (B), peepholes (D, 3 H); None
            for an absent one.
        initial: initial states (D, B, H), None for zeros.
        layer: the operator's attributes.
    """
    X, W, R, B, lengths, P = tensors
    assert X is not None and W is not None and R is not None
    if layer.layout:
        X = op.Transpose(X, perm=[1, 0, 2])
        initial = [None if s is None else op.Transpose(s, perm=[1, 0, 2]) for s in initial]
    directions, _, hidden = require_static(R, "a recurrent layer")
    names = list(layer.activations or [*functions] * directions)
    # As in onnxruntime, gates and candidates are clipped, but the cell state that an LSTM outputs is not.
    count = len(functions)
    chosen = [
        f if index % count == _CELL_OUTPUT else clipped(f, layer.clip)
        for index, f in enumerate(activations(names, layer.activation_alpha, layer.activation_beta))
    ]
    steps, batch = op.Shape(X, end=1), op.Shape(X, start=1, end=2)
    zeros = op.Expand(op.like(0.0, X), op.Concat(batch, [hidden], axis=0))
    valid = []
    if lengths is not None:
        # (S, B, 1): whether the step is inside the sequence of the batch item.
        counter = op.Unsqueeze(op.Range(np.array(0), op.Squeeze(steps, [0]), np.array(1)), [1, 2])
        valid = [op.Less(counter, op.Unsqueeze(op.Cast(lengths, to=ir.DataType.INT64.value), [0, 2]))]
    results = []
    for d in range(directions):
        row = np.array(d)
        Wb, Rb = _halves(op, op.Gather(B, row)) if B is not None else (None, None)
        w = Weights(
            op.Transpose(op.Gather(W, row), perm=[1, 0]),
            op.Transpose(op.Gather(R, row), perm=[1, 0]),
            Wb,
            Rb,
            None if P is None else op.Gather(P, row),
            hidden,
        )
        f = chosen[d * count : (d + 1) * count]
        state = [zeros if s is None else op.Gather(s, row) for s in initial]
        backward = int(layer.direction == "reverse" or d == 1)
        product = _plus(op, op.MatMul(X, w.W), w.Wb)
        results.append(_scanned(op, make_cell(op, w, f), product, state, valid, backward))
    *last, sequence = (
        op.Concat(*(op.Unsqueeze(value, [axis]) for value in column), axis=axis)
        for column, axis in zip(zip(*results, strict=True), [*[0] * len(initial), 1], strict=True)
    )
    if layer.layout:
        sequence = op.Transpose(sequence, perm=[2, 0, 1, 3])
        last = [op.Transpose(value, perm=[1, 0, 2]) for value in last]
    return [sequence, *last]


def _scanned(
    op: Emitter,
    cell: _Cell,
    x: Value,
    state: Sequence[Value],
    valid: Sequence[Value],
    backward: int,
) -> list[Value]:
    """The final states, each (B, H), and the hidden states (S, B, H). Invalid steps keep the states and output 0."""

    def step(inner: Emitter, *inputs: Value) -> list[Value]:
        before, now, mask = inputs[: len(state)], inputs[len(state)], inputs[len(state) + 1 :]
        after = cell(inner, now, before)
        if not mask:
            return [*after, after[0]]
        kept = [inner.Where(mask[0], new, old) for new, old in zip(after, before, strict=True)]
        return [*kept, inner.Where(mask[0], after[0], inner.like(0.0, after[0]))]

    return op.emit(
        "Scan",
        [*state, x, *valid],
        {
            "body": Step(step, _NODES_OF_A_STEP),
            "num_scan_inputs": 1 + len(valid),
            "scan_input_directions": [backward] * (1 + len(valid)),
            "scan_output_directions": [backward],
        },
        outputs=len(state) + 1,
    )


def _halves(op: Emitter, x: Value) -> tuple[Value, Value]:
    first, second = op.emit("Split", [x], {"axis": 0, "num_outputs": 2}, outputs=2)
    return first, second


@dataclass(frozen=True)
class _RNN(_Layer):
    activations: Sequence[str] = ("Tanh", "Tanh")


@rewrite("RNN", counts_outputs=True, attributes=_RNN)
def rnn(
    op: Emitter, X: Value, W: Value, R: Value, *optional: Value | None, given: _RNN, output_count: int
) -> list[Value]:
    B, lengths, initial_h = padded(optional, 3)
    tensors = (X, W, R, B, lengths, None)
    return _recurrent(op, _rnn_cell, ["Tanh"], tensors, [initial_h], given)[:output_count]


@dataclass(frozen=True)
class _GRU(_Layer):
    linear_before_reset: int = 0


@rewrite("GRU", counts_outputs=True, attributes=_GRU)
def gru(
    op: Emitter, X: Value, W: Value, R: Value, *optional: Value | None, given: _GRU, output_count: int
) -> list[Value]:
    B, lengths, initial_h = padded(optional, 3)
    tensors = (X, W, R, B, lengths, None)
    cell = _gru_cell(given.linear_before_reset)
    return _recurrent(op, cell, ["Sigmoid", "Tanh"], tensors, [initial_h], given)[:output_count]


@dataclass(frozen=True)
class _LSTM(_Layer):
    input_forget: int = 0


@rewrite("LSTM", counts_outputs=True, attributes=_LSTM)
def lstm(
    op: Emitter, X: Value, W: Value, R: Value, *optional: Value | None, given: _LSTM, output_count: int
) -> list[Value]:
    B, lengths, initial_h, initial_c, P = padded(optional, 5)
    tensors = (X, W, R, B, lengths, P)
    names = ["Sigmoid", "Tanh", "Tanh"]
    return _recurrent(op, _lstm_cell(given.input_forget), names, tensors, [initial_h, initial_c], given)[:output_count]
