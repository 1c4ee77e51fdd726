"""Rows for `onnxgain/gradient/forward/rewrites/recurrent.py`, against the operators' equations written out in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tests.gradient.arrays import uniform
from tests.gradient.checker import Case

Array = np.ndarray
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
S, B, F, H = 3, 2, 2, 2
# The activations with their default alpha and beta.
FUNCTIONS: dict[str, tuple[Callable[..., Array], tuple[float, ...]]] = {
    "Relu": (lambda x: np.maximum(x, 0), ()),
    "Tanh": (np.tanh, ()),
    "Sigmoid": (lambda x: 1 / (1 + np.exp(-x)), ()),
    "Softsign": (lambda x: x / (1 + abs(x)), ()),
    "Softplus": (lambda x: np.log1p(np.exp(x)), ()),
    "LeakyRelu": (lambda x, a: np.where(x < 0, a * x, x), (0.01,)),
    "ThresholdedRelu": (lambda x, a: np.where(x > a, x, 0), (1.0,)),
    "Elu": (lambda x, a: np.where(x < 0, a * np.expm1(x), x), (1.0,)),
    "Affine": (lambda x, a, b: a * x + b, (1.0, 0.0)),
    "ScaledTanh": (lambda x, a, b: a * np.tanh(b * x), (1.0, 1.0)),
    "HardSigmoid": (lambda x, a, b: np.clip(a * x + b, 0, 1), (0.2, 0.5)),
}


def float32(number: float) -> float:
    """An attribute's value as a model holds it."""
    return float(np.float32(number))


def reference(op_type: str, attributes: dict[str, Any], *inputs: Array | None) -> tuple[Array, ...]:
    """The outputs of an RNN, GRU or LSTM, one step and one item of the batch at a time."""
    X, W, R, bias, lengths, h0, c0, P = (*inputs, *[None] * (8 - len(inputs)))
    assert X is not None and W is not None and R is not None
    hidden, gates, directions = R.shape[2], GATES[op_type], R.shape[0]
    names = attributes.get("activations") or DEFAULTS[op_type] * directions
    alphas, betas = iter(attributes.get("activation_alpha", ())), iter(attributes.get("activation_beta", ()))
    functions = []
    for name in names:
        function, defaults = FUNCTIONS[name]
        given = [float32(next(source, default)) for source, default in zip((alphas, betas), defaults, strict=False)]
        functions.append(lambda x, function=function, given=given: function(x, *given))
    batch_first = attributes.get("layout", 0)
    if batch_first:
        X = X.swapaxes(0, 1)
        h0, c0 = (None if s is None else s.swapaxes(0, 1) for s in (h0, c0))
    steps, batch = X.shape[:2]
    clip = float32(attributes.get("clip", np.inf))
    Y = np.zeros((steps, directions, batch, hidden))
    last = np.zeros((2, directions, batch, hidden))
    for d in range(directions):
        both = np.zeros(2 * gates * hidden) if bias is None else bias[d]
        wb, rb = both[: gates * hidden], both[gates * hidden :]
        f = functions[d * len(DEFAULTS[op_type]) :]
        for n in range(batch):
            h = np.zeros(hidden) if h0 is None else h0[d, n]
            c = np.zeros(hidden) if c0 is None else c0[d, n]
            order = range(steps if lengths is None else lengths[n])
            for t in reversed(order) if d == 1 or attributes.get("direction") == "reverse" else order:
                x = np.split(W[d] @ X[t, n] + wb, gates)
                Rs, rbs = np.split(R[d], gates), np.split(rb, gates)
                if op_type == "RNN":
                    h = f[0](np.clip(x[0] + Rs[0] @ h + rbs[0], -clip, clip))
                elif op_type == "GRU":
                    z, r = (f[0](np.clip(x[k] + Rs[k] @ h + rbs[k], -clip, clip)) for k in (0, 1))
                    after = attributes.get("linear_before_reset", 0)
                    m = r * (Rs[2] @ h + rbs[2]) if after else Rs[2] @ (r * h) + rbs[2]
                    h = (1 - z) * f[1](np.clip(x[2] + m, -clip, clip)) + z * h
                else:
                    pi, po, pf = (0, 0, 0) if P is None else np.split(P[d], 3)
                    i, o, g, new = (x[k] + Rs[k] @ h + rbs[k] for k in range(4))
                    i = f[0](np.clip(i + pi * c, -clip, clip))
                    g = 1 - i if attributes.get("input_forget") else f[0](np.clip(g + pf * c, -clip, clip))
                    c = g * c + i * f[1](np.clip(new, -clip, clip))
                    h = f[0](np.clip(o + po * c, -clip, clip)) * f[2](c)
                Y[t, d, n] = h
            last[0, d, n], last[1, d, n] = h, c
    if batch_first:
        Y, last = Y.transpose(2, 0, 1, 3), last.swapaxes(1, 2)
    return (Y, *last[: 2 if op_type == "LSTM" else 1])


def row(
    op_type: str,
    given: str = "",
    versions: Sequence[int] = (22,),
    *,
    scale: float = 1.0,
    steps: int = S,
    wrt: Sequence[int] | None = None,
    **attributes: Any,
) -> Case:
    """A row with the optional inputs whose letters are in ``given``: Bias, Lengths, h (states), Peepholes."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    gates, batch_first = GATES[op_type], attributes.get("layout", 0)
    state = (B, directions, H) if batch_first else (directions, B, H)

    def draw(*shape: int) -> Array:
        return uniform(-scale, scale, *shape)

    inputs = [
        draw(*((B, steps, F) if batch_first else (steps, B, F))),
        draw(directions, gates * H, F),
        draw(directions, gates * H, H),
        draw(directions, 2 * gates * H) if "B" in given else None,
        np.array([steps, steps - 2], np.int32) if "L" in given else None,
        draw(*state) if "h" in given else None,
    ]
    if op_type == "LSTM":
        inputs += [draw(*state) if "h" in given else None, draw(directions, 3 * H) if "P" in given else None]
    attributes["hidden_size"] = H
    forward = partial(reference, op_type, attributes)
    outputs = 3 if op_type == "LSTM" else 2
    return Case(op_type, inputs, attributes, versions, wrt, outputs=outputs, forward=forward, note=f"[{given}]")


CASES = [
    row("RNN", "Bh", (1, 7, 14, 22)),
    row("GRU", "Bh", (1, 3, 7, 14, 22)),
    row("LSTM", "BhP", (1, 7, 14, 22)),
    *(row(op_type) for op_type in GATES),
    *(row(op_type, "BLh", direction="reverse") for op_type in GATES),
    *(row(op_type, "BLhP", direction="bidirectional") for op_type in GATES),
    *(row(op_type, "Bh", (14, 22), direction="bidirectional", layout=1) for op_type in GATES),
    *(row(op_type, "BhP", clip=0.4) for op_type in GATES),
    # Too long to unroll.
    row("LSTM", "BLhP", steps=65, wrt=(1, 5), direction="bidirectional"),
    row("GRU", "BLh", linear_before_reset=1),
    row("GRU", "", linear_before_reset=1),
    row("LSTM", "Bh", input_forget=1),
    row("LSTM", "BhP", input_forget=1, activations=["Relu", "Softsign", "Elu"], activation_alpha=[0.7]),
    *(row("RNN", "B", activations=[name], scale=0.9) for name in FUNCTIONS if name != "ThresholdedRelu"),
    row("RNN", "B", activations=["ThresholdedRelu"], activation_alpha=[0.2]),
    row("RNN", "B", activations=["Affine"], activation_alpha=[0.5], activation_beta=[0.1]),
    row("GRU", "B", activations=["HardSigmoid", "ScaledTanh"], activation_alpha=[0.3, 1.2], activation_beta=[0.4, 0.8]),
    row("GRU", "B", activations=["LeakyRelu", "Tanh"] * 2, activation_alpha=[0.3, 0.1], direction="bidirectional"),
]
