"""Layout operators with constant results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.registry import Declined, rewrite
from onnxgain.gradient.values import Value, positive_axis


@rewrite("Split", 18, may_decline=True, counts_outputs=True)
def split_constant(
    op: Emitter,
    x: Value,
    split: Value | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
    output_count: int,
) -> Sequence[Value] | Declined:
    """Split a constant, such as a shape, into constants. The last part is smaller if the parts are not even."""
    array, sizes = op.known(x), op.known_ints(split)
    if array is None or (split is not None and sizes is None):
        return Declined()
    count = output_count
    if sizes is None:
        length = array.shape[positive_axis(axis, array.ndim)]
        bounds = [min(-(-length // count) * i, length) for i in range(1, count)]
    else:
        bounds = [int(bound) for bound in np.cumsum(sizes[:-1])]
    return [op.constant(np.ascontiguousarray(part)) for part in np.split(array, bounds, axis)]
