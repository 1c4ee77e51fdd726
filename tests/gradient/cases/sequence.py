"""Rows for `onnxgain/gradient/forward/rewrites/sequence.py`. None of them leaves a sequence operator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.gradient.arrays import normal
from tests.gradient.models import ModelCase


def row(
    op_type: str, body: str, *versions: int, forward: Callable[[np.ndarray], np.ndarray] | None = None, note: str = ""
) -> ModelCase:
    """A graph x (4, 3) -> y; ``forward`` if the reference evaluator cannot compute it."""
    text = f"g (float[4, 3] x) => (float[N, M] y) {{ {body} }}"
    meaning = None if forward is None else lambda fed: {"y": forward(fed["x"])}
    return ModelCase(op_type, text, {"x": normal(4, 3)}, versions or (11,), forward=meaning, note=note)


CASES = [
    row("SequenceConstruct", "a = Sin (x)  s = SequenceConstruct (x, a, x)  y = ConcatFromSequence <axis = 0> (s)"),
    row(
        "ConcatFromSequence",
        "a = Sin (x)  s = SequenceConstruct (x, a)  y = ConcatFromSequence <axis = -1> (s)",
        note="last axis",
    ),
    row(
        "ConcatFromSequence",
        """a = Sin (x)  s = SequenceConstruct (x, a)  t = ConcatFromSequence <axis = -1, new_axis = 1> (s)
        p = Constant <value = int64[2] {4, 6}> ()  y = Reshape (t, p)""",
        note="new axis",
    ),
    row(
        "SequenceInsert",
        """e = SequenceEmpty ()  a = Sin (x)  b = Exp (x)  s = SequenceInsert (e, x)  t = SequenceInsert (s, a)
        i = Constant <value = int64 {-1}> ()  u = SequenceInsert (t, b, i)  y = ConcatFromSequence <axis = 0> (u)""",
    ),
    row(
        "SequenceEmpty",
        "e = SequenceEmpty <dtype = 1> ()  n = SequenceLength (e)  f = Cast <to = 1> (n)  y = Sub (x, f)",
    ),
    row(
        "SequenceErase",
        """a = Sin (x)  b = Exp (x)  s = SequenceConstruct (x, a, b, a)  t = SequenceErase (s)
        i = Constant <value = int64 {0}> ()  u = SequenceErase (t, i)  y = ConcatFromSequence <axis = 0> (u)""",
    ),
    row(
        "SequenceAt",
        "a = Sin (x)  s = SequenceConstruct (x, a)  i = Constant <value = int64 {-1}> ()  y = SequenceAt (s, i)",
    ),
    row(
        "SequenceLength",
        "s = SequenceConstruct (x, x)  n = SequenceLength (s)  f = Cast <to = 1> (n)  y = Mul (x, f)",
    ),
    row(
        "SplitToSequence",
        """s = SplitToSequence <axis = 0, keepdims = 0> (x)  i = Constant <value = int64 {2}> ()  a = SequenceAt (s, i)
        y = Mul (x, a)""",
        *(11, 24),
        note="rows",
    ),
    row(
        "SplitToSequence",
        """n = Constant <value = int64 {3}> ()  s = SplitToSequence (x, n)  i = Constant <value = int64 {1}> ()
        a = SequenceAt (s, i)  j = Constant <value = int64 {0}> ()  b = SequenceAt (s, j)  y = Mul (b, a)""",
        *(11, 24),
        note="chunks, the last one smaller",
    ),
    row(
        "SplitToSequence",
        """n = Constant <value = int64[2] {1, 2}> ()  s = SplitToSequence <axis = -1> (x, n)
        i = Constant <value = int64 {1}> ()  a = SequenceAt (s, i)  y = Sin (a)""",
        *(11, 24),
        note="sizes",
    ),
    row(
        "SplitToSequence",
        """n = Constant <value = int64[1] {3}> ()  s = SplitToSequence <axis = 1> (x, n)
        i = Constant <value = int64 {0}> ()  a = SequenceAt (s, i)  y = Sin (a)""",
        *(11, 24),
        note="one piece",
    ),
    row(
        "SequenceMap",
        """a = Sin (x)  s = SequenceConstruct (x, a)
        t = SequenceMap (s, x) <body = each (float[4, 3] p, float[4, 3] q) => (float[4, 3] r) { r = Mul (p, q) }>
        y = ConcatFromSequence <axis = 0> (t)""",
        17,
        note="with a tensor",
    ),
    row(
        "SequenceMap",
        """a = Sin (x)  b = Exp (x)  s = SequenceConstruct (x, a)  u = SequenceConstruct (b, b)
        t = SequenceMap (s, u) <body = each (float[4, 3] p, float[4, 3] q) => (float[4, 3] r) { r = Mul (p, q) }>
        y = ConcatFromSequence <axis = 0> (t)""",
        17,
        note="with a sequence",
    ),
    row(
        "Loop",
        """n = Constant <value = int64 {3}> ()  e = SequenceEmpty ()
        s = Loop (n, , e) <body = step (int64 i, bool go, seq(float[4, 3]) t) => (bool go_on, seq(float[4, 3]) u) {
            f = Cast <to = 1> (i)  a = Mul (x, f)  b = Sin (a)  u = SequenceInsert (t, b)  go_on = Identity (go) }>
        y = ConcatFromSequence <axis = 0> (s)""",
        *(13, 16),
        note="fills a sequence",
    ),
    row(
        "Identity",
        "s = SequenceConstruct (x, x)  t = Identity (s)  y = ConcatFromSequence <axis = 0> (t)",
        *(14, 16),
        note="of a sequence",
    ),
    # The reference evaluator passes on the elements of optionals as lists, so ``forward`` is given.
    row(
        "Optional",
        """o = Optional (x)  h = OptionalHasElement (o)
        y = If (h) <then_branch = yes () => (float[4, 3] a) { b = OptionalGetElement (o)  a = Sin (b) },
                    else_branch = no () => (float[4, 3] c) { c = Exp (x) }>""",
        *(15, 28),
        forward=np.sin,
        note="with an element",
    ),
    row(
        "Optional",
        """o = Optional <type = float[4, 3]> ()  h = OptionalHasElement (o)
        y = If (h) <then_branch = yes () => (float[4, 3] a) { a = Sin (x) },
                    else_branch = no () => (float[4, 3] c) { c = Exp (x) }>""",
        *(15, 28),
        forward=np.exp,
        note="without",
    ),
    row(
        "OptionalGetElement",
        """s = SequenceConstruct (x, x)  o = Optional (s)  t = OptionalGetElement (o)
        y = ConcatFromSequence <axis = 0> (t)""",
        *(15, 18, 28),
        forward=lambda x: np.concatenate([x, x]),
        note="a sequence",
    ),
    row(
        "OptionalHasElement",
        "o = Optional (x)  h = OptionalHasElement (o)  f = Cast <to = 1> (h)  y = Mul (x, f)",
        *(15, 18, 28),
        forward=lambda x: x,
    ),
    row(
        "OptionalHasElement",
        "h = OptionalHasElement (x)  f = Cast <to = 1> (h)  a = OptionalGetElement (x)  b = Sin (a)  y = Mul (b, f)",
        *(18, 28),
        forward=np.sin,
        note="of a tensor",
    ),
    row(
        "OptionalHasElement",
        "h = OptionalHasElement ()  f = Cast <to = 1> (h)  y = Sub (x, f)",
        *(18, 28),
        forward=lambda x: x,
        note="of nothing",
    ),
]
