"""Rows for `onnxgain/gradient/reverse/rules/shape.py`."""

from __future__ import annotations

import numpy as np

from tests.gradient.arrays import distinct, ints, normal
from tests.gradient.checker import Case

LAYOUT = (13, 21, 23, 24, 25)


def _reflected(x: np.ndarray) -> np.ndarray:
    return np.pad(x, [(0, 0), (2, 1), (1, 2)], mode="reflect")


CASES = [
    # Reshape, Flatten, Squeeze, Unsqueeze
    Case("Reshape", [normal(2, 6)], {"shape": [3, -1]}, versions=(1,), forward=lambda x: x.reshape(3, -1)),
    Case("Reshape", [normal(2, 3, 4), ints(0, -1)], versions=(5, 13, 14, 19, 21, 23, 24, 25)),
    Case("Reshape", [normal(2, 3, 4), ints(4, 6)], constants=(), versions=(13,), note="computed shape"),
    Case("Reshape", [normal(2, 0, 3), ints(3, 0)], {"allowzero": 1}, versions=(14,), note="empty"),
    Case("Flatten", [normal(2, 3, 4)], versions=(1, 9, 11, *LAYOUT)),
    Case("Flatten", [normal(2, 3, 4)], {"axis": 0}, versions=(13,)),
    Case("Flatten", [normal(2, 3, 4)], {"axis": -1}, versions=(13,)),
    Case("Squeeze", [normal(1, 3, 1)], {"axes": [0, 2]}, versions=(1, 11)),
    Case("Squeeze", [normal(1, 3, 1), ints(0, -1)], versions=LAYOUT),
    Case("Squeeze", [normal(1, 3, 1)], versions=(13,)),
    Case("Unsqueeze", [normal(3, 2)], {"axes": [0, 2]}, versions=(1, 11)),
    Case("Unsqueeze", [normal(3, 2), ints(0, -1)], versions=LAYOUT),
    # Transpose
    Case("Transpose", [normal(2, 3, 4)], {"perm": [1, 2, 0]}, versions=(1, *LAYOUT)),
    Case("Transpose", [normal(2, 3, 4)], {"perm": [2, 0, 1]}, versions=(13,), torch=lambda x: x.permute(2, 0, 1)),
    Case("Transpose", [normal(2, 3, 4)], versions=(13,), torch=lambda x: x.permute(2, 1, 0)),
    Case("Transpose", [np.array(0.5)], versions=(13,), note="scalar"),
    # Expand, Tile
    Case("Expand", [normal(3, 1), ints(2, 1, 4)], versions=(8, 13), torch=lambda x, _: x.expand(2, 3, 4)),
    Case("Expand", [normal(3, 1), ints(3, 4)], constants=(), versions=(13,), note="computed shape"),
    Case(
        "Tile", [normal(2, 3), np.array(3.0), np.array(1.0)], versions=(1,), wrt=(0,), constants=(1, 2),
        forward=lambda x, *_: np.tile(x, (1, 3)),
    ),
    Case("Tile", [normal(2, 3), ints(3, 2)], versions=(6, 13), torch=lambda x, _: x.repeat(3, 2)),
    Case("Tile", [normal(2, 3), ints(1, 2)], constants=(), versions=(13,), note="computed repeats"),
    # Concat, Split
    Case("Concat", [normal(2, 1), normal(2, 3)], versions=(1,), forward=lambda a, b: np.concatenate([a, b], 1)),
    Case("Concat", [normal(2, 1), normal(2, 3), normal(2, 2)], {"axis": 1}, versions=(4, 11, 13)),
    Case("Concat", [normal(2, 3), normal(1, 3)], {"axis": -2}, versions=(11, 13)),
    Case("Concat", [normal(2, 3)], {"axis": 0}, versions=(13,)),
    Case(
        "Split", [normal(5, 2), ints(3, 2).astype(np.float64)], {"axis": 0}, versions=(1,), outputs=2, constants=(1,),
        forward=lambda x, _: (x[:3], x[3:]),
    ),
    Case("Split", [normal(5, 2)], {"split": [2, 3]}, versions=(1, 2, 11), outputs=2, forward=lambda x: (x[:2], x[2:])),
    Case("Split", [normal(2, 6)], {"axis": 1}, versions=(2, 11, 13), outputs=3),
    Case("Split", [normal(2, 7)], {"axis": -1, "num_outputs": 4}, versions=(18,), outputs=4, note="last is smaller"),
    Case("Split", [normal(2, 6), ints(1, 3, 2)], {"axis": 1}, versions=(13, 18), outputs=3),
    Case("Split", [normal(2, 6)], {"axis": 1, "num_outputs": 1}, versions=(18,)),
    Case("Split", [normal(2, 7)], {"axis": -1, "num_outputs": 3}, versions=(18,), outputs=3, wrt=(), constants=(0,)),
    Case("Split", [normal(2, 6), ints(1, 5)], {"axis": 1}, versions=(18,), outputs=2, wrt=(), constants=(0, 1)),
    # Slice
    Case("Slice", [normal(4, 5)], {"starts": [1, 0], "ends": [3, -1]}, versions=(1,), torch=lambda x: x[1:3, :-1]),
    Case("Slice", [normal(4, 5)], {"starts": [1], "ends": [99], "axes": [1]}, versions=(1,), torch=lambda x: x[:, 1:]),
    Case("Slice", [normal(4, 5), ints(1, 1), ints(3, 5)], versions=(10, 11, 13), torch=lambda x, *_: x[1:3, 1:]),
    Case("Slice", [normal(4, 5), ints(-4), ints(-1), ints(-1)], versions=(11, 13), torch=lambda x, *_: x[:, 1:4]),
    Case("Slice", [normal(4, 7), ints(1, 0), ints(9, 9), ints(1, 0), ints(2, 3)], versions=(10, 13)),
    Case("Slice", [normal(4, 7), ints(-1), ints(-99), ints(1), ints(-2)], versions=(11, 13), note="backwards"),
    Case("Slice", [normal(4, 7), ints(99, 2), ints(1, -99), ints(1, 0), ints(-1, -1)], versions=(13,)),
    Case("Slice", [normal(4, 3), ints(0), ints(4)], versions=(13,), note="everything"),
    Case("Slice", [normal(4, 3), ints(2), ints(2)], versions=(13,), note="nothing"),
    Case("Slice", [normal(4, 7), ints(1, 6), ints(3, 1), ints(0, 1), ints(1, -2)], constants=(), versions=(13,)),
    # Pad
    Case("Pad", [normal(3, 4)], {"paddings": [1, 0, 0, 2], "value": 0.5}, versions=(1,),
         forward=lambda x: np.pad(x, [(1, 0), (0, 2)], constant_values=0.5)),
    Case("Pad", [normal(3, 4)], {"pads": [1, -1, -1, 2], "value": 0.5}, versions=(2,)),
    Case("Pad", [normal(2, 4, 5)], {"pads": [0, 2, 1, 0, 1, 2], "mode": "reflect"}, versions=(2,), forward=_reflected),
    Case("Pad", [normal(3, 4), ints(1, 0, 2, 1), np.array(0.5)], versions=(11, 13, 18, 19, 21, 23, 24, 25)),
    Case("Pad", [normal(3, 4), ints(-1, 2, 1, -1), np.array(0.5)], versions=(11, 13, 25)),
    Case("Pad", [normal(3, 4), ints(1, 1, 1, 2)], versions=(13,)),
    Case("Pad", [normal(3, 4), ints(1, 2), np.array(0.5), ints(-1)], versions=(18,), note="axes"),
    Case("Pad", [normal(3, 4), ints(1, 0, 2, 1), np.array(0.5)], constants=(), versions=(13,), note="computed pads"),
    Case("Pad", [normal(2, 4, 5), ints(0, 2, 1, 0, 1, 2)], {"mode": "reflect"}, versions=(11, 13, 18, 25)),
    Case("Pad", [normal(1, 4, 5), ints(3, 0, 0, 2), None, ints(1, 2)], {"mode": "edge"}, versions=(18, 25)),
    Case("Pad", [normal(4, 5), ints(2, 1, 3, 5)], {"mode": "wrap"}, versions=(19, 21, 23, 24, 25)),
    Case("Pad", [normal(4, 5), ints(2, 0, 3, 1)], {"mode": "reflect"}, constants=(), versions=(13,), note="computed"),
    Case("Pad", [normal(4, 5), ints(2, -1, 0, 1)], {"mode": "edge"}, versions=(13,), note="negative pads"),
    Case("Pad", [normal(4, 5), ints(2, 1, 0, 0), np.array(0.5)], {"mode": "edge"}, versions=(13,), note="value unused"),
    # Identity, Cast
    Case("Identity", [normal(2, 3)], versions=(1, 13, 14, 16, 19, 21, 23, 24, 25)),
    Case("Cast", [normal(2, 3)], {"to": "DOUBLE"}, versions=(1,), forward=lambda x: x),
    Case("Cast", [normal(2, 3)], {"to": 11}, versions=(6, 9, 13, 19, 21, 23, 24, 25, 28)),
    Case("Cast", [distinct(2, 3)], {"to": 7}, versions=(13,), note="to integers"),
    Case("CastLike", [normal(2, 3), np.array([1.0])], versions=(15, 19, 21, 23, 24, 25)),
    # Trilu, ReverseSequence
    Case("Trilu", [normal(2, 3, 4)], versions=(14,), torch=lambda x: x.triu()),
    Case("Trilu", [normal(3, 4), np.array(-1)], {"upper": 0}, versions=(14,), torch=lambda x, _: x.tril(-1)),
    Case("Trilu", [normal(3, 4), np.array(1)], constants=(), versions=(14,), note="computed diagonal"),
    Case("ReverseSequence", [normal(4, 3, 2), ints(1, 4, 3)], versions=(10, 28)),
    Case("ReverseSequence", [normal(3, 4), ints(1, 4, 3)], {"time_axis": 1, "batch_axis": 0}, versions=(10,)),
    # Dropout
    Case("Dropout", [normal(2, 3)], {"is_test": 1}, versions=(1, 6), forward=lambda x: x),
    Case("Dropout", [normal(2, 3)], {"ratio": 0.3}, versions=(7, 10)),
    Case("Dropout", [normal(2, 3)], versions=(12, 13, 22), outputs=2),
    Case("Dropout", [normal(2, 3), np.array(0.3), np.array(False)], versions=(12,), wrt=(0,), constants=(1, 2)),
    # With a nonzero ratio it is random, see `tests/gradient/test_dropout.py`.
    Case("Dropout", [normal(5, 6), np.array(0.0), np.array(True)], versions=(12, 13, 22), wrt=(0,), constants=(1, 2)),
    Case("Dropout", [normal(5, 6), np.array(0.0), np.array(True)], versions=(13,), wrt=(0,), constants=(), outputs=2),
]  # fmt: skip
