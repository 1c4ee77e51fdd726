"""Finds the image among a graph's inputs, and the meaning of its axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, NoReturn

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.errors import ModelError
from onnxgain.model.image_layout import Convolved, first_convolution
from onnxgain.model.quick_dataclass import dataclass

DEFAULT_SIZE = 224
"""Height and width to assume if the model leaves them open and none were given."""

CHANNEL_COUNTS = (1, 3, 4)
MOST_CHANNELS = 32
"""An axis with more values than this holds features, not the channels of an image."""
FlattenOrder = Literal["chw", "hwc"]
"""Order of a flattened image: channels, rows, columns; or rows, columns, channels."""

_DECODERS = {"ImageDecoder", "ImageReader", "DecodeImage", "DecodeJpeg", "DecodePng", "DecodeBase64", "BlobToImage"}
"""Operators of ONNX and of extensions that decode an image file."""
_TOKENS = {ir.DataType.INT32, ir.DataType.INT64}
_NUMERIC = {
    ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.UINT8,
    ir.DataType.INT8, ir.DataType.UINT16, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64,
}  # fmt: skip


@dataclass(frozen=True)
class ImageInput:
    """The input that takes the image.

    Attributes:
        name: the graph input.
        layout: one letter per axis: N batch, C channels, H height, W width, F for C, H and W flattened in that order,
            R for H, W and C flattened in that order.
        channels, height, width: size of the image.
        dtype: the type that the model declares, e.g. "FLOAT" or "UINT8".
        fixed_batch: the batch size that the file prescribes; None if it is open or there is no batch axis.
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
        whole = math.prod(self.image_shape)
        sizes = {"N": batch, "C": self.channels, "H": self.height, "W": self.width, "F": whole, "R": whole}
        return tuple(sizes[axis] for axis in self.layout)

    def to_input(
        self, images: Sequence[NDArray[np.floating]], *, dtype: type[np.floating] | None = None
    ) -> NDArray[np.floating]:
        """Images (C, H, W) in the form of the graph input: float32, float64 for a float64 model, or ``dtype``."""
        stack = np.stack(images).astype(dtype or (np.float64 if self.dtype == "DOUBLE" else np.float32))
        if "R" in self.layout:
            stack = stack.transpose(0, 2, 3, 1)
        if "F" in self.layout or "R" in self.layout:
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
        if "R" in self.layout:
            return stack.reshape(len(stack), self.height, self.width, self.channels).transpose(0, 3, 1, 2)
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
    usual_size: tuple[int, int] | None = None,
) -> tuple[ImageInput, tuple[str, ...]]:
    """The image input, and the assumptions made about it.

    Args:
        graph: the model's graph.
        image_shape: (C, H, W) or (H, W), if the model leaves it open or flattens it; (H, W, C) for an input that is
            flattened in that order.
        name: the input to take, if there are several.
        given: inputs whose values are given separately.
        usual_size: (H, W) from the metadata or the files beside the model, if the graph leaves it open.

    Raises:
        ModelError: there is no image input, there are several, or the shape does not fit.
    """
    flattened: FlattenOrder | None = None
    if image_shape is not None and len(image_shape) == 3 and image_shape[2] in CHANNEL_COUNTS and image_shape[0] > 4:
        image_shape, flattened = (image_shape[2], *image_shape[:2]), "hwc"
    inputs = [v for v in graph.inputs if v.name not in graph.initializers and v.name not in given]
    # Some exporters leave unused inputs behind. Without them, the choice of the image may be clear.
    inputs = [v for v in inputs if v.uses()] or inputs
    if name is not None:
        inputs = [v for v in inputs if v.name == name]
        if not inputs:
            known = ", ".join(repr(v.name) for v in graph.inputs if v.name not in graph.initializers)
            raise ModelError(f"the model has no input {name!r}", remedy=f"its inputs are {known}")
    numeric = [v for v in inputs if v.dtype in _NUMERIC and v.shape is not None and 1 <= len(v.shape) <= 4]
    found = {v: candidate for v in numeric if (candidate := _candidate(v, image_shape, flattened)) is not None}
    images = [v for v in found if not _is_one_pixel(v)] or list(found)
    if len(images) > 1:
        images = [v for v in images if len(v.shape or ()) == max(len(i.shape or ()) for i in images)]
    if len(images) > 1:
        images = [v for v in images if found[v].convolved] or images
    if len(images) == 1:
        return _describe(images[0], found[images[0]], image_shape, usual_size)
    taken = next(
        (v for v in graph.inputs if v.name in given and _candidate(v, image_shape, flattened) is not None), None
    )
    if not images and taken is not None:
        raise ModelError(
            f"{taken.name!r} is the image input, which takes the stimulus",
            where=f"--input {taken.name}",
            remedy="choose its value with --stimulus or --image; --input is for the other inputs",
        )
    _refuse(inputs, numeric, images, image_shape)


def _refuse(
    inputs: Sequence[ir.Value],
    numeric: Sequence[ir.Value],
    images: Sequence[ir.Value],
    image_shape: tuple[int, ...] | None,
) -> NoReturn:
    listed = "; ".join(f"{v.name!r} {_shape_text(v)}" for v in inputs) or "none"
    decoder = next((n for v in inputs for n in v.consumers() if n.op_type in _DECODERS), None)
    if decoder is not None and not images:
        raise ModelError(
            f"it takes a JPEG or PNG file, which {decoder.op_type} decodes: there are no pixels to differentiate",
            where=f"node {decoder.name!r}",
            remedy="cut the model behind it with onnx.utils.extract_model, or export it without",
        )
    if len(images) > 1:
        raise ModelError(
            f"several inputs could be the image ({listed})",
            remedy="name one with --image-input and give the others with --input",
        )
    texts = [v for v in inputs if v.dtype == ir.DataType.STRING]
    if texts and not numeric:
        raise ModelError(
            f"the input {texts[0].name!r} takes texts, not pixels: there is nothing to differentiate by",
            remedy="cut the model behind the node that makes numbers of them, with onnx.utils.extract_model",
        )
    flat = [v for v in numeric if len(v.shape or ()) <= 2 and v.dtype is not None and v.dtype not in _TOKENS]
    if flat and image_shape is None and not any(len(v.shape or ()) == 4 for v in numeric):
        raise ModelError(
            f"the image is flattened in {flat[0].name!r} {_shape_text(flat[0])}",
            remedy=f"say its shape with --image-shape, e.g. --image-shape {_square_of(_dims(flat[0])[-1])}",
        )
    if flat and image_shape is not None:
        raise ModelError(
            f"--image-shape {'x'.join(map(str, image_shape))} has {math.prod(image_shape)} values, the input "
            f"{flat[0].name!r} is {_shape_text(flat[0])}",
            remedy="give the shape whose product is the input's length",
        )
    if image_shape is None and any(len(v.shape or ()) == 4 and None in _dims(v)[1:] for v in numeric):
        raise ModelError(
            f"no input says how many channels an image has (inputs: {listed})",
            remedy="say its shape with --image-shape, e.g. --image-shape 3x224x224",
        )
    if any(v.shape is None and v.dtype in _NUMERIC for v in inputs):
        raise ModelError(
            f"no input looks like an image (inputs: {listed})",
            remedy="declare the shape of the image, at least its number of axes (type.tensor_type.shape of the input)",
        )
    raise ModelError(
        f"no input looks like an image (inputs: {listed})",
        remedy=f"an image has up to {MOST_CHANNELS} channels and two spatial axes; onnxgain measures image classifiers",
    )


def _dims(value: ir.Value) -> list[int | None]:
    """The sizes of the axes; None for an open one. 0 and -1 also count as open."""
    return [dim if isinstance(dim, int) and dim > 0 else None for dim in value.shape or ()]


def _shape_text(value: ir.Value) -> str:
    kind = value.dtype.name.lower() if value.dtype is not None else "?"
    if value.shape is None:
        return f"{kind} of unknown shape"
    return f"{kind}[{', '.join('?' if d is None else str(d) for d in _dims(value))}]"


class _Candidate(NamedTuple):
    """A possible reading of an input: layout, known sizes of C, H and W, and whether a convolution confirms it."""

    layout: str
    sizes: Mapping[str, int]
    convolved: bool


def _candidate(
    value: ir.Value, image_shape: tuple[int, ...] | None, flattened: FlattenOrder | None
) -> _Candidate | None:
    """The reading of an input as an image; None if it cannot be one."""
    dims, convolved = _dims(value), first_convolution(value)
    if convolved is not None and convolved.spatial_axes != 2:
        # A 3-D convolution of one image takes the channels as depth; of sound, text or video, there is no image.
        as_depth = convolved.spatial_axes == 3 and convolved.channel_axis is None and convolved.channels == 1
        if not (as_depth and len(dims) == 4 and dims[0] in (None, 1) and dims[1] in CHANNEL_COUNTS):
            return None
        return _Candidate("NCHW", {}, True)
    plane = convolved is not None and convolved.channel_axis is None and convolved.reshaped is None
    if len(dims) == 2 and plane and convolved is not None and convolved.channels == 1:
        return _Candidate("HW", {}, True)
    if len(dims) <= 2:
        return _flat_candidate(value, image_shape, flattened, convolved)
    if len(dims) == 4 and convolved is not None and convolved.reshaped is None and convolved.channel_axis in (1, 3):
        layout = "NCHW" if convolved.channel_axis == 1 else "NHWC"
        if dims[convolved.channel_axis] in (None, convolved.channels):
            return _Candidate(layout, {"C": convolved.channels}, True) if convolved.channels <= MOST_CHANNELS else None
    layout = _axes(dims, image_shape)
    return _Candidate(layout, {}, False) if layout else None


def _is_one_pixel(value: ir.Value) -> bool:
    """Whether an input has a number for each channel and no more, such as a mean that an exporter left open."""
    dims = _dims(value)
    return len(dims) == 4 and None not in dims and sum(dim != 1 for dim in dims) <= 1


def _square_of(length: int | None) -> str:
    """The shape of a square image of this many values, as text; that of MNIST where there is none."""
    for channels in (1, 3):
        side = math.isqrt((length or 0) // channels)
        if side > 1 and channels * side * side == length:
            return f"{channels}x{side}x{side}"
    return "1x28x28"


def _flat_candidate(
    value: ir.Value, image_shape: tuple[int, ...] | None, flattened: FlattenOrder | None, convolved: Convolved | None
) -> _Candidate | None:
    dims = _dims(value)
    lead = "N" if len(dims) == 2 else ""
    sizes = _reshaped_sizes(dims[-1], convolved)
    if sizes is not None and image_shape in (None, sizes[1], sizes[1][1:]):
        order = {"chw": "F", "hwc": "R", None: sizes[0]}[flattened]
        return _Candidate(lead + order, dict(zip("CHW", sizes[1], strict=True)), True)
    if image_shape is None or _flat_channels(dims[-1], image_shape) is None:
        return None
    return _Candidate(lead + ("R" if flattened == "hwc" else "F"), {}, False)


def _reshaped_sizes(length: int | None, convolved: Convolved | None) -> tuple[str, tuple[int, int, int]] | None:
    """F or R, and (C, H, W), derived from the Reshape before the first convolution."""
    if convolved is None or convolved.reshaped is None or len(convolved.reshaped) != 4:
        return None
    rest = list(convolved.reshaped[1:])
    if rest.count(-1) == 1 and length is not None and convolved.reshaped[0] >= 0:
        rest[rest.index(-1)] = length // max(1, math.prod(n for n in rest if n > 0))
    if min(rest) < 1 or (length is not None and math.prod(rest) != length):
        return None
    if convolved.channel_axis == 1:
        return "F", (rest[0], rest[1], rest[2])
    return ("R", (rest[2], rest[0], rest[1])) if convolved.channel_axis == 3 else None


def _axes(dims: Sequence[int | None], image_shape: tuple[int, ...] | None) -> str:
    """The layout of an input of three or four axes, derived from their sizes; "" if it is not an image."""
    channels = image_shape[0] if image_shape is not None and len(image_shape) == 3 else None

    def is_channel(dim: int | None) -> bool:
        return dim in CHANNEL_COUNTS if dim is not None else channels is not None

    def may_be_channel(axis: int) -> bool:
        dim, others = dims[axis], [d for i, d in enumerate(dims[1:], 1) if i != axis]
        if dim is None or dim > MOST_CHANNELS:
            return False
        return channels == dim or all(other is None or other > dim for other in others)

    if len(dims) == 4:
        if is_channel(dims[1]) and not (dims[1] is None and dims[3] in CHANNEL_COUNTS):
            return "NCHW"
        if is_channel(dims[3]) and not (dims[3] is not None and dims[1] != dims[2] == dims[3]):
            return "NHWC"
        return "NCHW" if may_be_channel(1) else "NHWC" if may_be_channel(3) else ""
    # An axis of one row or column, or an open one before a fixed one, belongs to pixels or tokens in a list.
    if dims[0] in (3, 4) or (dims[0] == 1 and channels == 1):
        return "" if 1 in dims[1:] else "CHW"
    if dims[2] in CHANNEL_COUNTS:
        return "" if 1 in dims[:2] or (dims[0] is None and dims[1] is not None) else "HWC"
    return "NHW" if dims[0] in (None, 1) and not {1, 3, 4} & set(dims[1:]) else ""


def _flat_channels(length: int | None, image_shape: tuple[int, ...]) -> int | None:
    """The number of channels of a flattened input of this length; None if the shape does not fit."""
    if len(image_shape) == 3:
        return image_shape[0] if length in (None, math.prod(image_shape)) else None
    channels, rest = divmod(length or math.prod(image_shape), math.prod(image_shape))
    return channels if rest == 0 and 1 <= channels <= MOST_CHANNELS else None


def _describe(
    value: ir.Value,
    candidate: _Candidate,
    image_shape: tuple[int, ...] | None,
    usual_size: tuple[int, int] | None,
) -> tuple[ImageInput, tuple[str, ...]]:
    layout = candidate.layout
    flat = "F" in layout or "R" in layout
    declared = dict(zip(layout, _dims(value), strict=True)) | dict(candidate.sizes)
    wanted: dict[str, int] = dict(zip("CHW"[-len(image_shape) :], image_shape, strict=True)) if image_shape else {}
    usual = dict(zip("HW", usual_size or (DEFAULT_SIZE, DEFAULT_SIZE), strict=True))
    sizes: dict[str, int] = {}
    for axis in "CHW":
        fixed, asked = declared.get(axis), wanted.get(axis)
        if axis == "C" and "C" not in layout and fixed is None:
            fixed = _flat_channels(_dims(value)[-1], image_shape) if flat and image_shape else 1
        if fixed is not None and asked is not None and fixed != asked:
            raise ModelError(
                f"--image-shape {'x'.join(map(str, image_shape or ()))} does not fit the input {value.name!r} "
                f"{_shape_text(value)} (layout {layout})",
                remedy="leave --image-shape out, or give the size the model was exported with",
            )
        size = fixed if fixed is not None else asked
        sizes[axis] = size if size is not None else usual.get(axis, 3)
    assert value.name is not None and value.dtype is not None
    batch = declared.get("N") if "N" in layout else None
    image = ImageInput(value.name, layout, sizes["C"], sizes["H"], sizes["W"], value.dtype.name, batch)
    open_size = not flat and any(declared.get(axis) is None and axis not in wanted for axis in "HW")
    return image, tuple(_assumed(image, candidate, open_size=open_size, known_size=usual_size is not None))


def _assumed(image: ImageInput, candidate: _Candidate, *, open_size: bool, known_size: bool) -> Iterator[str]:
    if open_size:
        taken = f"{image.height}x{image.width}"
        source = "as its metadata or the files beside it say" if known_size else f"default {DEFAULT_SIZE}"
        yield f"image size {taken}: the model leaves it open ({source}; set it with --image-shape)"
    if "F" in image.layout and not candidate.convolved:
        yield "flattened input read in the order channels, rows, columns"
    if "R" in image.layout and not candidate.convolved:
        yield "flattened input read in the order rows, columns, channels"
    if image.layout == "NHW":
        yield "input of three axes read as grey images (batch, height, width)"
