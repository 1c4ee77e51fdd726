"""Layout operators that are known before the model runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxgain.gradient.registry import rewrite
from onnxgain.gradient.values import positive_axis


@rewrite("Split", 18)
def split_constant(op: Any, x: Any, split: Any = None, *, axis: int = 0, num_outputs: int | None = None) -> Any:
    """The parts of a constant, such as a shape, are constants. The last part is smaller where they are not even."""
    array, sizes = op.known(x), op.known_ints(split)
    if array is None or (split is not None and sizes is None):
        return NotImplemented
    count = op.requested_outputs
    if sizes is None:
        length = array.shape[positive_axis(axis, array.ndim)]
        bounds = [min(-(-length // count) * i, length) for i in range(1, count)]
    else:
        bounds = [int(bound) for bound in np.cumsum(sizes[:-1])]
    return [op.constant(np.ascontiguousarray(part)) for part in np.split(array, bounds, axis)]
