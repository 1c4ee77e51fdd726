"""Rows for `onnxgain/gradient/forward/rewrites/loss.py`."""

from __future__ import annotations

import itertools

import numpy as np

from tests.gradient.arrays import normal, uniform
from tests.gradient.checker import Case
from tests.gradient.pytorch import functional

_LABELS = np.array([2, 0, 1, 2])
_IMAGES = np.array([[[0, 1], [2, 2]], [[1, 1], [0, 2]]])
_OPERATORS = (
    ("NegativeLogLikelihoodLoss", "nll_loss", (12, 13, 22)),
    ("SoftmaxCrossEntropyLoss", "cross_entropy", (12, 13)),
)


def _rows(op_type: str, function: str, versions: tuple[int, ...]) -> list[Case]:
    rows = []
    for reduction, ignored in itertools.product(("none", "mean", "sum"), (None, 2, -5)):
        # An ignored label need not be a class.
        labels = np.where(_LABELS == 1, -5, _LABELS) if ignored == -5 else _LABELS
        attributes = {"reduction": reduction} | ({} if ignored is None else {"ignore_index": ignored})
        loss = functional(function, reduction=reduction, ignore_index=-100 if ignored is None else ignored)

        rows += [
            Case(op_type, [normal(4, 3), labels], attributes, versions=versions, torch=loss),
            Case(op_type, [normal(4, 3), labels], attributes, versions=versions, constants=(), note="[dynamic labels]"),
            Case(op_type, [normal(4, 3), labels, uniform(0.5, 2, 3)], attributes, versions=versions),
            # PyTorch has no gradient for the weights.
            Case(op_type, [normal(4, 3), labels, uniform(0.5, 2, 3)], attributes, versions=versions, constants=(2,),
                 torch=loss),
        ]  # fmt: skip
    return rows


CASES = [
    *(row for operator in _OPERATORS for row in _rows(*operator)),
    *(
        Case(op_type, [normal(2, 3, 2, 2), _IMAGES, uniform(0.5, 2, 3)], {"ignore_index": 1}, versions=versions,
             constants=(2,), torch=lambda x, t, w, f=function: functional(f, ignore_index=1)(x, t, w))
        for op_type, function, versions in _OPERATORS
    ),
    *(
        Case(op_type, [normal(4, 3), _LABELS.astype(np.int32)], {"ignore_index": 0}, versions=versions)
        for op_type, _, versions in _OPERATORS
    ),
    Case("SoftmaxCrossEntropyLoss", [normal(4, 3), _LABELS], versions=(12, 13), outputs=2),
    Case("SoftmaxCrossEntropyLoss", [normal(2, 3, 2, 2), _IMAGES, uniform(0.5, 2, 3)], {"reduction": "none"},
         versions=(13,), outputs=2),
]  # fmt: skip
