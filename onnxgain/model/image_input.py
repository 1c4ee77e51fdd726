"""Finds the image among a graph's inputs, and what its axes mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.errors import ModelError

DEFAULT_SIZE = 224
"""Height and width taken where the model leaves them open and none were given."""

CHANNEL_COUNTS = (1, 3, 4)
_NUMERIC = {
    ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.UINT8,
    ir.DataType.INT8, ir.DataType.UINT16, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64,
}  # fmt: skip


@dataclass(frozen=True)
class ImageInput:
    """The input that takes the image.

    Attributes:
        name: the graph input.
        layout: one letter an axis: N batch, C channels, H height, W width, F all of C, H and W flattened in that order.
        channels, height, width: of the image.
        dtype: the type the model declares, e.g. "FLOAT" or "UINT8".
        fixed_batch: the batch size the file prescribes, None where it is open or there is no batch axis.
    """

    name: str
    layout: str
    channels: int
    height: int
    width: int
    dtype: str
    fixed_batch: int | None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    def shape(self, batch: int) -> tuple[int, ...]:
        """The shape of the graph input for ``batch`` images."""
        sizes = {"N": batch, "C": self.channels, "H": self.height, "W": self.width, "F": math.prod(self.image_shape)}
        return tuple(sizes[axis] for axis in self.layout)

    def to_input(
        self, images: Sequence[NDArray[np.floating]], *, dtype: type[np.floating] | None = None
    ) -> NDArray[np.floating]:
        """Images (C, H, W) as the graph input takes them: float32, float64 for a float64 model, or ``dtype``."""
        stack = np.stack(images).astype(dtype or (np.float64 if self.dtype == "DOUBLE" else np.float32))
        if "F" in self.layout:
            stack = stack.reshape(len(images), -1)
        else:
            axes = [0, *("NCHW".index(axis) for axis in self.layout if axis != "N")]
            missing = [axis for axis in range(4) if axis not in axes]
            stack = stack.transpose(axes + missing).reshape(len(images), *self.shape(1)[self.layout.count("N") :])
        return np.ascontiguousarray(stack if "N" in self.layout else stack[0])

    def to_images(self, derivative: NDArray[np.floating]) -> NDArray[np.floating]:
        """The inverse of `to_input`: a derivative of the graph input as (N, C, H, W)."""
        stack = derivative if "N" in self.layout else derivative[None]
        if "F" in self.layout:
            return stack.reshape(len(stack), *self.image_shape)
        axes = "".join(axis for axis in self.layout if axis != "N")
        if "C" not in axes:
            return stack.reshape(len(stack), *self.image_shape)
        return stack.transpose(0, *(1 + axes.index(axis) for axis in "CHW"))


def find_image_input(
    graph: ir.Graph,
    *,
    image_shape: tuple[int, ...] | None = None,
    name: str | None = None,
    given: Sequence[str] = (),
) -> tuple[ImageInput, tuple[str, ...]]:
    """The image input, and what had to be assumed to read it so.

    Args:
        graph: the model's graph.
        image_shape: (C, H, W) or (H, W), where the model leaves it open or flattens it.
        name: the input to take, where there are several.
        given: inputs that are given a value otherwise.

    Raises:
        ModelError: there is no image input, or several, or the shape does not fit.
    """
    inputs = [v for v in graph.inputs if v.name not in graph.initializers and v.name not in given]
    # Some exporters leave inputs behind that nothing reads; without them it may be clear which is the image.
    inputs = [v for v in inputs if v.uses()] or inputs
    if name is not None:
        inputs = [v for v in inputs if v.name == name]
        if not inputs:
            known = ", ".join(repr(v.name) for v in graph.inputs if v.name not in graph.initializers)
            raise ModelError(f"the model has no input {name!r}", remedy=f"its inputs are {known}")
    candidates = [v for v in inputs if v.dtype in _NUMERIC and v.shape is not None and 1 <= len(v.shape) <= 4]
    images = [v for v in candidates if _axes(v, image_shape)]
    if len(images) > 1:
        images = [v for v in images if len(v.shape or ()) == max(len(i.shape or ()) for i in images)]
    if len(images) == 1:
        return _describe(images[0], image_shape)
    listed = "; ".join(f"{v.name!r} {_shape_text(v)}" for v in inputs) or "none"
    if len(images) > 1:
        raise ModelError(
            f"several inputs could be the image ({listed})",
            remedy="name one with --image-input and give the others with --input",
        )
    flat = [v for v in candidates if len(v.shape or ()) <= 2]
    if flat and image_shape is None:
        raise ModelError(
            f"the image is flattened in {flat[0].name!r} {_shape_text(flat[0])}",
            remedy="say its shape with --image-shape, e.g. --image-shape 1x28x28",
        )
    if flat and image_shape is not None:
        raise ModelError(
            f"--image-shape {'x'.join(map(str, image_shape))} has {math.prod(image_shape)} values, the input "
            f"{flat[0].name!r} is {_shape_text(flat[0])}",
            remedy="give the shape whose product is the input's length",
        )
    if image_shape is None and any(len(v.shape or ()) == 4 and not any(_dims(v)[1:]) for v in candidates):
        raise ModelError(
            f"no input says how many channels an image has (inputs: {listed})",
            remedy="say its shape with --image-shape, e.g. --image-shape 3x224x224",
        )
    raise ModelError(
        f"no input looks like an image (inputs: {listed})",
        remedy="an image has 1, 3 or 4 channels and two spatial axes; onnxgain measures image classifiers only",
    )


def _dims(value: ir.Value) -> list[int | None]:
    return [dim if isinstance(dim, int) else None for dim in value.shape or ()]


def _shape_text(value: ir.Value) -> str:
    kind = value.dtype.name.lower() if value.dtype is not None else "?"
    return f"{kind}[{', '.join('?' if d is None else str(d) for d in _dims(value))}]"


def _axes(value: ir.Value, image_shape: tuple[int, ...] | None) -> str:
    """The layout of a possible image, "" where it is none."""
    dims = _dims(value)
    channels = image_shape[0] if image_shape is not None and len(image_shape) == 3 else None

    def is_channel(dim: int | None) -> bool:
        return dim in CHANNEL_COUNTS if dim is not None else channels is not None

    if len(dims) == 4:
        if is_channel(dims[1]) and not (dims[1] is None and dims[3] in CHANNEL_COUNTS):
            return "NCHW"
        return "NHWC" if is_channel(dims[3]) else ""
    if len(dims) == 3:
        if dims[0] in (3, 4) or (dims[0] == 1 and channels == 1):
            return "CHW"
        if dims[2] in CHANNEL_COUNTS:
            return "HWC"
        return "NHW" if dims[0] in (None, 1) else ""
    if image_shape is not None and _flat_channels(dims[-1], image_shape) is not None:
        return "NF" if len(dims) == 2 else "F"
    return ""


def _flat_channels(length: int | None, image_shape: tuple[int, ...]) -> int | None:
    """The number of channels that a flattened input of that length has, None where the shape does not fit."""
    if len(image_shape) == 3:
        return image_shape[0] if length in (None, math.prod(image_shape)) else None
    channels, rest = divmod(length or math.prod(image_shape), math.prod(image_shape))
    return channels if rest == 0 and channels in CHANNEL_COUNTS else None


def _describe(value: ir.Value, image_shape: tuple[int, ...] | None) -> tuple[ImageInput, tuple[str, ...]]:
    layout = _axes(value, image_shape)
    declared = dict(zip(layout, _dims(value), strict=True))
    assumptions = []
    wanted: dict[str, int] = dict(zip("CHW"[-len(image_shape) :], image_shape, strict=True)) if image_shape else {}
    sizes: dict[str, int] = {}
    for axis in "CHW":
        fixed, asked = declared.get(axis), wanted.get(axis)
        if axis == "C" and "C" not in layout:
            fixed = _flat_channels(_dims(value)[-1], image_shape) if "F" in layout and image_shape else 1
        if fixed is not None and asked is not None and fixed != asked:
            raise ModelError(
                f"--image-shape {'x'.join(map(str, image_shape or ()))} does not fit the input {value.name!r} "
                f"{_shape_text(value)} (layout {layout})",
                remedy="leave --image-shape out, or give the size the model was exported with",
            )
        size = fixed if fixed is not None else asked
        if size is None:
            size = DEFAULT_SIZE
        sizes[axis] = size
    if "F" not in layout and any(declared.get(axis) is None and axis not in wanted for axis in "HW"):
        taken = f"{sizes['H']}x{sizes['W']}"
        assumptions.append(
            f"image size {taken}: the model leaves it open (default {DEFAULT_SIZE}; set it with --image-shape)"
        )
    if "F" in layout:
        assumptions.append("flattened input read in the order channels, rows, columns")
    if layout == "NHW":
        assumptions.append("input of three axes read as grey images (batch, height, width)")
    assert value.name is not None and value.dtype is not None
    image = ImageInput(
        value.name,
        layout,
        sizes["C"],
        sizes["H"],
        sizes["W"],
        value.dtype.name,
        declared.get("N") if "N" in layout else None,
    )
    return image, tuple(assumptions)
