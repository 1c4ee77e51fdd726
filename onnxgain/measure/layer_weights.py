"""How far the weights of a layer moved, independent of their names and layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.measure.tensor_matching import inner_product, plain_name

Array = NDArray[np.floating]


def weights_of(tensors: Iterable[ir.Value], matched: set[str], constants: Mapping[str, Array]) -> dict[str, Array]:
    """The constants of more than one element between tensors and the nearest matched tensors they are computed from."""
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
    """|after - before| / |before| over all constants that both have.

    Constants are paired by name and shape first, then by shape; a matrix may be transposed. None if there is no pair,
    or if a constant of two or more axes has no partner.
    """
    left = dict(after)
    changes = sizes = 0.0
    paired = False
    for name, array in before.items():
        candidates = [(squares, key) for key, b in left.items() if (squares := _squared_distance(array, b)) is not None]
        if not candidates and array.ndim > 1:
            return None
        if not candidates:
            continue
        same_name = [pair for pair in candidates if plain_name(pair[1]) == plain_name(name)]
        squares, key = min(same_name or candidates)
        del left[key]
        changes, sizes, paired = changes + squares, sizes + inner_product(array, array), True
    if not paired:
        return None
    return float(np.sqrt(changes / sizes)) if sizes > 0 else float(np.sqrt(changes))


def _squared_distance(a: Array, b: Array) -> float | None:
    """The squared distance of two arrays without their axes of length 1; None if their shapes do not fit.

    Also None if only one of them holds integers, as quantized weights do before their scale is applied.
    """
    if bool(np.all(a == np.rint(a))) != bool(np.all(b == np.rint(b))) and a.any() and b.any():
        return None
    a, b = a.squeeze(), b.squeeze()
    forms = [x for x in ([b, b.T] if b.ndim == 2 else [b]) if x.shape == a.shape]
    if not forms:
        return None
    squares = min(inner_product(x - a, x - a) for x in forms)
    return squares if np.isfinite(squares) else float("inf")
