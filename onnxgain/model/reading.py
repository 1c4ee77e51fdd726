"""Options for reading a model, for what its file leaves open. Imports nothing heavy, because requests contain them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxgain.model.quick_dataclass import dataclass

if TYPE_CHECKING:
    from onnxgain.model.head import HeadKind
    from onnxgain.model.input_scale import InputScale


@dataclass(frozen=True)
class Reading:
    """Options for reading a model, for what its file leaves open. All fields are optional.

    Attributes:
        image_shape: (C, H, W) or (H, W) of the image.
        image_input: name of the image input.
        inputs: values of the other inputs.
        output: name of the output that holds the class scores.
        head: what that output holds.
        scale: the input scale.
        custom_ops: operator libraries that evaluating the model needs.
    """

    image_shape: tuple[int, ...] | None = None
    image_input: str | None = None
    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    output: str | None = None
    head: HeadKind | None = None
    scale: InputScale | None = None
    custom_ops: tuple[Path, ...] = ()
