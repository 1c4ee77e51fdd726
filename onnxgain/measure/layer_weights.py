"""How far the weights of a layer moved, whatever they are called and however they are laid out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.measure.tensor_matching import inner_product, plain_name

Array = NDArray[np.floating]


def weights_of(tensors: Iterable[ir.Value], matched: set[str], constants: Mapping[str, Array]) -> dict[str, Array]:
    """Constants of more than one value between tensors and the nearest matched tensors they are computed from."""
    found: dict[str, Array] = {}
    starts = list(tensors)
    seen, queue = set(), list(starts)
    while queue:
        value = queue.pop()
        name = value.name or ""
        if value in seen or (name in matched and value not in starts):
            continue
        seen.add(value)
        if name in constants:
            if constants[name].size > 1:
                found[name] = constants[name]
            continue
        producer = value.producer()
        if producer is not None:
            queue += [x for x in producer.inputs if x is not None]
    return found


def weight_change(before: Mapping[str, Array], after: Mapping[str, Array]) -> float | None:
    """|after - before| / |before| over all constants found in both.

    None where there are none, or where one of several axes is not among them.

    Those of one name and shape belong together, then those of one shape; a matrix may be transposed.
    """
    left = dict(after)
    changes = sizes = 0.0
    paired = False
    for name, array in before.items():
        near = [(squares, key) for key, other in left.items() if (squares := _apart(array, other)) is not None]
        if not near and array.ndim > 1:
            return None
        if not near:
            continue
        same = [pair for pair in near if plain_name(pair[1]) == plain_name(name)]
        squares, key = min(same or near)
        del left[key]
        changes, sizes, paired = changes + squares, sizes + inner_product(array, array), True
    if not paired:
        return None
    return float(np.sqrt(changes / sizes)) if sizes > 0 else float(np.sqrt(changes))


def _apart(one: Array, other: Array) -> float | None:
    """The squared distance of two arrays without their axes of length 1; None where they do not fit.

    Integers, as quantized weights before their scale is applied, do not fit others.
    """
    if bool(np.all(one == np.rint(one))) != bool(np.all(other == np.rint(other))) and one.any() and other.any():
        return None
    one, other = one.squeeze(), other.squeeze()
    forms = [x for x in ([other, other.T] if other.ndim == 2 else [other]) if x.shape == one.shape]
    if not forms:
        return None
    found = min(inner_product(x - one, x - one) for x in forms)
    return found if np.isfinite(found) else float("inf")
