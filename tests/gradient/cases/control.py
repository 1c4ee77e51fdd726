"""Rows for control flow (`rules/control.py`, `rewrites/control.py`); see also test_control.py."""

from __future__ import annotations

import numpy as np

from tests.gradient.arrays import normal
from tests.gradient.models import ModelCase

VERSIONS = (1, 11, 13, 16, 19, 21, 23, 24, 25)
BRANCHES = """If (c) <
    then_branch = yes () => (float[3] a) { a1 = Mul (x, w)  a = Tanh (a1) },
    else_branch = no () => (float[3] b) { b1 = Mul (w, w)  b2 = Exp (x)  b = Mul (b1, b2) }>"""
STEP = """<body = step (int64 i, bool go, float[3] s) => (bool go_on, float[3] s_out, float[3] e) {
    g = Mul (s, x)  t = Tanh (g)  s_out = Add (t, x)  e = Mul (s, t)  go_on = Identity (go) }>"""
CELL = """body = cell (float[2] s, float[2] p, float[2] q) => (float[2] s_out, float[2] e, float[2] f) {
    a = Mul (s, p)  b = Add (a, q)  s_out = Tanh (b)  e = Mul (b, w)  f = Mul (p, q) }"""

Arrays = dict[str, np.ndarray]


def chosen(fed: Arrays) -> Arrays:
    x, w = fed["x"], fed["w"]
    return {"y": np.tanh(x * w) if fed["c"] else w * w * np.exp(x)}


def looped(fed: Arrays) -> Arrays:
    s, x, rows = fed["s0"], fed["x"], []
    for _ in range(int(fed.get("n", 4))):
        t = np.tanh(s * x)
        rows.append(s * t)
        s = t + x
    return {"y": s, "all": np.array(rows)}


def scanned(fed: Arrays, lengths: tuple[int, ...] = (3, 3)) -> Arrays:
    """Scan of opset 8: each item of a batch separately, Q backwards, zeros after the end of an item."""
    s, E, F = fed["s0"].copy(), np.zeros((2, 3, 2)), np.zeros((2, 3, 2))
    for item, length in enumerate(lengths):
        for t in range(length):
            p, q = fed["P"][item, t], fed["Q"][item, length - 1 - t]
            b = s[item] * p + q
            s[item], E[item, t], F[item, t] = np.tanh(b), b * fed["w"], p * q
    return {"s": s, "E": E, "F": F}


def if_row(taken: bool) -> ModelCase:
    text = f"g (float[3] x, float[3] w, bool c) => (float[3] y) {{ y = {BRANCHES} }}"
    feeds = {"x": normal(3), "w": normal(3), "c": np.array(taken)}
    return ModelCase("If", text, feeds, VERSIONS, forward=chosen, note=f"{taken} at run time")


def inlined_if_row(taken: int) -> ModelCase:
    text = f"""g (float[3] x, float[3] w) => (float[3] y) {{
        c = Constant <value = bool {{{taken}}}> ()  y = {BRANCHES} }}"""
    feeds = {"x": normal(3), "w": normal(3)}
    return ModelCase(
        "If", text, feeds, VERSIONS, forward=lambda fed: chosen({**fed, "c": np.array(taken)}), note=f"{taken} known"
    )


def scan_row(length: int, versions: tuple[int, ...] = VERSIONS[2:]) -> ModelCase:
    text = f"""g (float[2] s0, float[{length}, 2] P, float[2, {length}] Q, float[2] w)
        => (float[2] s, float[{length}, 2] E, float[2, {length}] F) {{
        s, E, F = Scan <num_scan_inputs = 2, scan_input_axes = [0, 1], scan_input_directions = [0, 1],
                        scan_output_axes = [0, -1], scan_output_directions = [1, 0], {CELL}> (s0, P, Q)
    }}"""
    feeds = {"s0": normal(2), "P": normal(length, 2), "Q": normal(2, length), "w": normal(2)}
    return ModelCase("Scan", text, feeds, versions, note=f"{length} steps")


def batched_scan_row(lengths: tuple[int, int] | None) -> ModelCase:
    given = "" if lengths is None else f"lengths = Constant <value = int64[2] {{{lengths[0]}, {lengths[1]}}}> ()"
    text = f"""g (float[2, 2] s0, float[2, 3, 2] P, float[2, 3, 2] Q, float[2] w)
        => (float[2, 2] s, float[2, 3, 2] E, float[2, 3, 2] F) {{
        {given}
        s, E, F = Scan <num_scan_inputs = 2, directions = [0, 1], {CELL}> ({"lengths" if lengths else ""}, s0, P, Q)
    }}"""
    feeds = {"s0": normal(2, 2), "P": normal(2, 3, 2), "Q": normal(2, 3, 2), "w": normal(2)}
    return ModelCase("Scan", text, feeds, (8,), forward=lambda fed: scanned(fed, lengths or (3, 3)), note=str(lengths))


CASES = [
    if_row(True),
    if_row(False),
    inlined_if_row(1),
    inlined_if_row(0),
    *(
        ModelCase(
            "Loop",
            f"""g (float[3] x, float[3] s0, int64 n) => (float[3] y, float[N, 3] all) {{
                y, all = Loop (n, , s0) {STEP} }}""",
            {"x": normal(3), "s0": normal(3), "n": np.array(trips)},
            VERSIONS,
            forward=looped,
            note=f"{trips} trips at run time",
        )
        for trips in (1, 4)
    ),
    ModelCase(
        "Loop",
        f"""g (float[3] x, float[3] s0) => (float[3] y, float[4, 3] all) {{
            n = Constant <value = int64 {{4}}> ()  go = Constant <value = bool {{1}}> ()
            y, all = Loop (n, go, s0) {STEP}
        }}""",
        {"x": normal(3), "s0": normal(3)},
        VERSIONS,
        forward=looped,
        note="4 trips, known",
    ),
    scan_row(4, (9, 11, *VERSIONS[3:])),
    scan_row(66, (9, VERSIONS[-1])),  # slow; the other versions have no code of their own for long ones
    batched_scan_row(None),
    batched_scan_row((3, 1)),
]
