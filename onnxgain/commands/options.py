"""Option groups that several commands share: how to read a model, the stimuli to measure it at, and the device.

Each is a frozen dataclass filled by a decorator (`onnxgain.commands.parameters.option_group`).
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxgain.commands.parameters import GROUP, Draws, F, Factor, ImageShape, Numbers, apply_options, option_group
from onnxgain.commands.threads import threads_option
from onnxgain.errors import OnnxgainError
from onnxgain.files import read_bytes
from onnxgain.model.quick_dataclass import dataclass

LARGEST_INPUT = 1 << 30
"""The largest .npy file that is read, bytes."""

if TYPE_CHECKING:
    import numpy as np

    from onnxgain.engine.device import Device
    from onnxgain.engine.work import Work
    from onnxgain.gradient.reverse.seed import Projection
    from onnxgain.measure.request import Request
    from onnxgain.model.input_scale import InputScale
    from onnxgain.model.reading import Reading

# Repeated here so that help needs neither numpy nor onnx; a test compares them with the original tables.
PRESET_NAMES = ("raw", "unit", "imagenet", "inception", "caffe", "clip", "mnist")
HEAD_KINDS = ("logits", "softmax", "log-softmax", "sigmoid", "probabilities")
PROJECTIONS = ("1/score", "score", "one", "logit")


# -------------------------------------------------------------------------------------------------- reading
_add_reading_options: Callable[[F], F] = apply_options(
    [
        click.option(
            "--image-shape",
            type=ImageShape(),
            help="Image size if the model leaves it open: 3x224x224, 224x224; for flattened inputs 1x28x28.",
        ),
        click.option("--image-input", metavar="NAME", help="The input that takes the image, if there are several."),
        click.option(
            "--input",
            "inputs",
            multiple=True,
            metavar="NAME=VALUE",
            help="Value of another input: a number, a list [1,2], or a .npy file. Repeatable.",
        ),
        click.option("--output", metavar="NAME", help="The output that holds the class scores, if there are several."),
        click.option(
            "--head",
            type=click.Choice(HEAD_KINDS),
            help="What that output holds, if the graph does not show it.",
        ),
        click.option(
            "--preprocess",
            type=click.Choice(PRESET_NAMES),
            help="How 8-bit pixels become model input. Default: what the model declares, else imagenet for 3 "
            "channels and unit (0..1) for others, marked as an assumption.",
        ),
        click.option("--mean", type=Numbers(), help="Subtracted after --scale; one number or one a channel."),
        click.option("--std", type=Numbers(), help="Divided by after --mean."),
        click.option(
            "--scale",
            type=Factor(),
            help="Multiplies 8-bit pixels first: 1/255 where --mean and --std are those of torchvision's Normalize.",
        ),
        click.option(
            "--custom-ops",
            multiple=True,
            type=click.Path(),
            metavar="LIBRARY",
            help="Load a library of onnxruntime operators, whose code then runs here. Their derivatives are not "
            "known: they may compute weights, or be in places that are not differentiated (after ArgMax, Cast to "
            "integers, ...), not between image and class. The file must declare their outputs' types and shapes. "
            "Repeatable.",
        ),
    ]
)


@dataclass(frozen=True)
class ReadingOptions:
    """How to read a model, as given on the command line."""

    image_shape: tuple[int, ...] | None
    image_input: str | None
    inputs: tuple[str, ...]
    output: str | None
    head: Any
    preprocess: str | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    scale: float | None
    custom_ops: tuple[str, ...]

    def reading(self) -> Reading:
        """The options as an `onnxgain.model.classifier.Reading`.

        Raises:
            OnnxgainError: a value is invalid for any model.
        """
        from onnxgain.model.reading import Reading

        return Reading(
            image_shape=self.image_shape,
            image_input=self.image_input,
            inputs=dict(input_value(text) for text in self.inputs),
            output=self.output,
            head=self.head,
            scale=self.input_scale(),
            custom_ops=libraries(self.custom_ops),
        )

    def input_scale(self) -> InputScale | None:
        """The given input scale; None if none was given."""
        from onnxgain.model.input_scale import input_scale

        if self.preprocess is None and self.mean is None and self.std is None and self.scale is None:
            return None
        return input_scale(self.preprocess, mean=self.mean, std=self.std, scale=self.scale)


reading_options = option_group("reading", ReadingOptions, _add_reading_options)


def libraries(paths: tuple[str, ...]) -> tuple[Path, ...]:
    """The libraries of --custom-ops. Only checks that they are files, without loading them.

    Raises:
        OnnxgainError: one is not a file.
    """
    for path in paths:
        if not Path(path).is_file():
            raise OnnxgainError("no such file", where=f"--custom-ops {path}", remedy="check the path")
    return tuple(map(Path, paths))


_LONGEST_TEXT = 1000


def input_value(text: str) -> tuple[str, np.ndarray]:
    """Split NAME=VALUE into the name and the value."""
    import json

    import numpy as np

    name, equals, value = text.partition("=")
    where = f"--input {text}"
    if not equals or not name:
        raise OnnxgainError("is not NAME=VALUE", where=where, remedy="write e.g. --input training=0")
    if value.endswith(".npy"):
        try:
            return name, np.load(io.BytesIO(read_bytes(value, LARGEST_INPUT)), allow_pickle=False)
        except OnnxgainError as error:
            raise OnnxgainError(error.what, where=where, remedy=error.remedy) from error
        except (ValueError, EOFError, OSError) as error:
            raise OnnxgainError("is not an array of numbers", where=where, remedy="save one with numpy.save") from error
    try:
        array = np.array(json.loads(value))
    except (ValueError, RecursionError) as error:
        if value and value[0].isalpha() and len(value) <= _LONGEST_TEXT:
            return name, np.array(value)  # for inputs that take texts
        raise OnnxgainError(
            "the value is not a number or a list", where=where, remedy="write 0.5, true, [1,2] or a .npy file"
        ) from error
    if array.dtype.kind not in "bif":
        raise OnnxgainError(
            "the value is not a number or a list of numbers",
            where=where,
            remedy="write 0.5, true, [1,2] or a .npy file",
        )
    return name, array.astype(np.float32) if array.dtype.kind == "f" else array


# -------------------------------------------------------------------------------------------------- stimuli
_add_stimulus_options: Callable[[F], F] = apply_options(
    [
        click.option(
            "--stimulus",
            "stimuli",
            multiple=True,
            metavar="SPEC",
            help="impulse (default), impulse:amplitude=128,y=3,x=5, noise:seed=3, "
            "grating:frequency=0.125,angle=45. Repeatable.",
        ),
        click.option(
            "--image",
            "images",
            multiple=True,
            type=click.Path(),
            help="A photograph, or a folder of them. Repeatable.",
        ),
    ]
)


@dataclass(frozen=True)
class StimulusOptions:
    """The stimuli to measure models at."""

    stimuli: tuple[str, ...]
    images: tuple[str, ...]

    @property
    def given(self) -> bool:
        """Whether any stimulus was given."""
        return bool(self.stimuli or self.images)

    def chosen(self, default: tuple[str, ...] = ("impulse",)) -> tuple[tuple[str, ...], tuple[Path, ...]]:
        """The specifications of synthetic stimuli, and the photographs; the default if none was given.

        Raises:
            OnnxgainError: a specification is invalid, or a path holds no photograph.
        """
        from onnxgain.model.stimulus import check_stimulus

        paths: tuple[Path, ...] = ()
        if self.images:
            from onnxgain.model.photo import photographs

            paths = photographs(self.images)
        specifications = self.stimuli or (() if paths else default)
        for text in specifications:
            check_stimulus(text)
        return specifications, paths


# ----------------------------------------------------------------------------------------- gain and device
add_device_options: Callable[[F], F] = apply_options(
    [
        click.option(
            "--device",
            metavar="DEVICE",
            default="cpu",
            show_default=True,
            help="cpu, cuda, cuda:1, or auto: CUDA if it works and is faster, else the CPU; says which and why.",
        ),
        click.option(
            "--providers",
            metavar="LIST",
            help="Other execution providers of the runtime instead, in order of preference: openvino, tensorrt, "
            "coreml, ...",
        ),
        click.option("--tf32", is_flag=True, help="Let CUDA round operands to TensorFloat-32: faster, less exact."),
    ]
)


@dataclass(frozen=True)
class DeviceOptions:
    """The device that evaluates a model."""

    device: str
    providers: str | None
    tf32: bool

    def chosen(self, *, remote: bool = False, models: Iterable[str | Path] = (), images: int = 0) -> Device:
        """Check that the device works and return it; print the choice of "auto" on standard error.

        Args:
            remote: whether the device is on other machines, so that it cannot be checked here.
            models: the files to measure, if known: "auto" decides by the amount of work.
            images: the number of images that each is measured at.

        Raises:
            DeviceError: the device cannot be used.
            OnnxgainError: there is no such device, or the options exclude each other.
        """
        work = None
        if self.device.strip().lower() == "auto":
            from onnxgain.engine.work import Work

            work = Work.of_files(models, images)
        return _device(self, remote, work)


@functools.cache
def _device(options: DeviceOptions, remote: bool, work: Work | None) -> Device:
    from onnxgain.engine.device import parse_device, parse_providers

    device, tf32 = options.device, options.tf32
    if options.providers is not None and device != "cpu":
        raise OnnxgainError(
            "cannot be given together", where="--device and --providers", remedy="leave one of them out"
        )
    providers = options.providers
    wanted = parse_device(device, tf32=tf32) if providers is None else parse_providers(providers, tf32=tf32)
    if tf32 and wanted is not None and not wanted.has_cuda:
        raise OnnxgainError(f"has no effect on {wanted.name}", where="--tf32", remedy="add --device cuda")
    if wanted is None and remote:
        raise OnnxgainError(
            "cannot be decided for other machines", where=f"--device {device}", remedy="write cpu or cuda"
        )
    if wanted is not None and (wanted.is_cpu or remote):
        return wanted
    from onnxgain.engine.session import choose_device, require_device

    if wanted is None:
        wanted, reason = choose_device(work, tf32=tf32)
        click.echo(f"device {wanted.name}{reason}", err=True)
    else:
        require_device(wanted)
    return wanted


projection_option = click.option(
    "--projection",
    type=click.Choice(PROJECTIONS),
    default="1/score",
    show_default=True,
    help="Derivative of log z_i (1/score, the paper's), of z_i (one), score times that (score), or of the logit.",
)

class_option = click.option(
    "--class",
    "class_index",
    type=click.IntRange(min=0),
    help="Class to differentiate instead of the winner.",
)

_add_measure_options: Callable[[F], F] = apply_options(
    [
        projection_option,
        class_option,
        threads_option,
    ]
)


# ------------------------------------------------------------------------------------------------- requests
@dataclass(frozen=True)
class MeasureOptions:
    """The request for each model: how to read it, where to measure it, what to differentiate, and on which device."""

    projection: Projection
    class_index: int | None
    threads: int | None = None
    reading: ReadingOptions = field(metadata={GROUP: ReadingOptions}, kw_only=True)
    stimulus: StimulusOptions = field(metadata={GROUP: StimulusOptions}, kw_only=True)
    device: DeviceOptions = field(metadata={GROUP: DeviceOptions}, kw_only=True)

    def request(
        self, *, default: tuple[str, ...] = ("impulse",), remote: bool = False, models: Iterable[str | Path] = ()
    ) -> Request:
        """The options as an `onnxgain.measure.request.Request`.

        Args:
            default: the stimuli if none is given.
            remote: whether other machines measure, so that the device cannot be checked here.
            models: the files to measure, if known.

        Raises:
            OnnxgainError: an option is invalid for any model.
        """
        from onnxgain.measure.request import Request

        if self.reading.custom_ops and remote:
            raise OnnxgainError(
                "libraries are not sent to other machines", where="--custom-ops", remedy="measure here, without --ray"
            )
        reading = self.reading.reading()
        stimuli, photos = self.stimulus.chosen(default)
        return Request(
            reading,
            stimuli=stimuli,
            photos=photos,
            projection=self.projection,
            class_index=self.class_index,
            device=self.device.chosen(remote=remote, models=models, images=len(stimuli) + len(photos)),
        )


add_measure_options: Callable[[F], F] = apply_options(
    [_add_reading_options, _add_stimulus_options, _add_measure_options, add_device_options]
)
"""Only the options, for a command that fills the group itself."""

measure_options = option_group("measure", MeasureOptions, add_measure_options)

steadiness_option = click.option(
    "--steadiness",
    type=Draws(),
    is_flag=False,
    flag_value=str(Draws.usual),
    default=0,
    metavar="[N]",
    help="Also measure at N copies of each image (default: 8) with noise of one 8-bit level, which is invisible, and "
    "show how far the gain moves.",
)
