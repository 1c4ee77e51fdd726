"""Options that several commands share, and what they mean."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnxgain.errors import OnnxgainError

if TYPE_CHECKING:
    import numpy as np

    from onnxgain.engine.device import Device
    from onnxgain.model.classifier import Classifier, Reading
    from onnxgain.model.input_scale import InputScale
    from onnxgain.model.stimulus import Stimulus

    ParamType = click.ParamType
else:

    class ParamType(click.ParamType):
        """click's own, which is generic since 8.4 only."""

        def __class_getitem__(cls, kind: object) -> type[ParamType]:
            return cls


F = TypeVar("F", bound=Callable[..., Any])

# Named here so that help needs neither numpy nor onnx; a test keeps them equal to the tables they stand for.
PRESET_NAMES = ("raw", "unit", "imagenet", "inception", "caffe", "clip", "mnist")
HEAD_KINDS = ("logits", "softmax", "log-softmax", "sigmoid", "probabilities")
PROJECTIONS = ("1/score", "score", "one", "logit")


class ImageShape(ParamType[tuple[int, ...]]):
    """CxHxW or HxW."""

    name = "CxHxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The sizes; fails where the text is no shape."""
        if isinstance(value, tuple):
            return value
        try:
            shape = tuple(int(part) for part in str(value).lower().replace(",", "x").strip("[]").split("x"))
        except ValueError:
            shape = ()
        if len(shape) not in (2, 3) or min(shape, default=0) < 1 or max(shape) > 1 << 16:
            self.fail(f"{value!r} is not a shape such as 3x224x224 (channels, height, width) or 224x224", param, ctx)
        if len(shape) == 3 and shape[0] > 4 and shape[2] in (1, 3, 4):
            first = f"{shape[2]}x{shape[0]}x{shape[1]}"
            self.fail(f"{value!r} looks like height x width x channels; write channels first: {first}", param, ctx)
        return shape


class Numbers(ParamType[tuple[float, ...]]):
    """One number, or one a channel, separated by commas."""

    name = "NUMBERS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """The numbers; fails where the text holds anything else."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a number or a list such as 0.485,0.456,0.406", param, ctx)


def apply_options(options: list[Callable[[F], F]]) -> Callable[[F], F]:
    """One decorator of several, listed in the help in this order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def reading_options(function: F) -> F:
    """How the model is to be read, and its input scale."""
    return apply_options(
        [
            click.option(
                "--image-shape",
                type=ImageShape(),
                help="Image size where the model leaves it open: 3x224x224, 224x224; for flattened inputs 1x28x28.",
            ),
            click.option(
                "--image-input", metavar="NAME", help="The input that takes the image, where there are several."
            ),
            click.option(
                "--input",
                "inputs",
                multiple=True,
                metavar="NAME=VALUE",
                help="Value of another input: a number, a list [1,2], or a .npy file. Repeatable.",
            ),
            click.option(
                "--output", metavar="NAME", help="The output that holds the class scores, where there are several."
            ),
            click.option(
                "--head",
                type=click.Choice(HEAD_KINDS),
                help="What that output holds, where the graph does not show it.",
            ),
            click.option(
                "--preprocess",
                type=click.Choice(PRESET_NAMES),
                help="How 8-bit pixels become model input. Default: what the model declares, else imagenet for 3 "
                "channels and unit (0..1) for others, marked as an assumption.",
            ),
            click.option("--mean", type=Numbers(), help="Subtracted after --scale; one number or one a channel."),
            click.option("--std", type=Numbers(), help="Divided by after --mean."),
            click.option("--scale", type=float, help="Multiplies 8-bit pixels first (e.g. 0.00392157)."),
            click.option(
                "--custom-ops",
                multiple=True,
                type=click.Path(),
                metavar="LIBRARY",
                help="Load a library of onnxruntime operators, whose code then runs here. Their derivatives are not "
                "known: they may compute weights, or stand where nothing is differentiated (after ArgMax, Cast to "
                "integers, ...), not between image and class. The file must declare their outputs' types and shapes. "
                "Repeatable.",
            ),
        ]
    )(function)


def stimulus_options(function: F) -> F:
    """What the model is measured at."""
    return apply_options(
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
    )(function)


def device_options(function: F) -> F:
    """What evaluates a model; for `make_device`."""
    return apply_options(
        [
            click.option(
                "--device",
                metavar="DEVICE",
                default="cpu",
                show_default=True,
                help="cpu, cuda, cuda:1, or auto: CUDA where it works, else the CPU, and says which.",
            ),
            click.option(
                "--providers",
                metavar="LIST",
                help="Other execution providers of the runtime instead, in order of preference: openvino, tensorrt, "
                "coreml, ...",
            ),
            click.option("--tf32", is_flag=True, help="Let CUDA round operands to TensorFloat-32: faster, less exact."),
        ]
    )(function)


def gain_options(function: F) -> F:
    """What is differentiated."""
    return apply_options(
        [
            click.option(
                "--projection",
                type=click.Choice(PROJECTIONS),
                default="1/score",
                show_default=True,
                help="Derivative of log z_i (1/score, the paper's), of z_i (one), score times that (score), or of the "
                "logit.",
            ),
            click.option(
                "--class",
                "class_index",
                type=click.IntRange(min=0),
                help="Class to differentiate instead of the winner.",
            ),
            click.option(
                "--threads", type=click.IntRange(min=1), help="Threads for the runtime. Default: all usable cores."
            ),
            device_options,
        ]
    )(function)


@functools.cache
def make_device(device: str, providers: str | None, tf32: bool, elsewhere: bool = False) -> Device:
    """The device that --device, --providers and --tf32 ask for, tried; says on standard error what "auto" took.

    Args:
        elsewhere: other machines have it, so that it cannot be tried.

    Raises:
        DeviceError: it cannot be used.
        OnnxgainError: there is no such device, or options that exclude each other.
    """
    from onnxgain.engine.device import parse_device, parse_providers

    if providers is not None and device != "cpu":
        raise OnnxgainError("exclude each other", where="--device and --providers", remedy="leave one out")
    wanted = parse_device(device, tf32=tf32) if providers is None else parse_providers(providers, tf32=tf32)
    if tf32 and wanted is not None and not wanted.has_cuda:
        raise OnnxgainError(f"means nothing on {wanted.name}", where="--tf32", remedy="add --device cuda")
    if wanted is None and elsewhere:
        raise OnnxgainError("is not known for other machines", where=f"--device {device}", remedy="write cpu or cuda")
    if wanted is not None and (wanted.is_cpu or elsewhere):
        return wanted
    from onnxgain.engine.session import choose_device, require_device

    if wanted is None:
        wanted, reason = choose_device(tf32=tf32)
        click.echo(f"device {wanted.name}{reason}", err=True)
    else:
        require_device(wanted)
    return wanted


def make_reading(
    *,
    image_shape: tuple[int, ...] | None,
    image_input: str | None,
    inputs: tuple[str, ...],
    output: str | None,
    head: Any,
    preprocess: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    scale: float | None,
    custom_ops: tuple[str, ...],
) -> Reading:
    """The `Reading` that the reading options describe."""
    from onnxgain.model.reading import Reading

    return Reading(
        image_shape=image_shape,
        image_input=image_input,
        inputs=dict(input_value(text) for text in inputs),
        output=output,
        head=head,
        scale=make_scale(preprocess, mean, std, scale),
        custom_ops=libraries(custom_ops),
    )


def libraries(paths: tuple[str, ...]) -> tuple[Path, ...]:
    """The libraries of --custom-ops; that they are files is known then, no more: nothing is loaded here.

    Raises:
        OnnxgainError: one is no file.
    """
    for path in paths:
        if not Path(path).is_file():
            raise OnnxgainError("no such file", where=f"--custom-ops {path}", remedy="check the path")
    return tuple(map(Path, paths))


def make_scale(
    preprocess: str | None, mean: tuple[float, ...] | None, std: tuple[float, ...] | None, scale: float | None
) -> InputScale | None:
    """The input scale asked for, None where none was."""
    from onnxgain.model.input_scale import input_scale

    if preprocess is None and mean is None and std is None and scale is None:
        return None
    return input_scale(preprocess, mean=mean, std=std, scale=scale)


def input_value(text: str) -> tuple[str, np.ndarray]:
    """The name and the value in NAME=VALUE."""
    import json

    import numpy as np

    name, equals, value = text.partition("=")
    where = f"--input {text}"
    if not equals or not name:
        raise OnnxgainError("is not NAME=VALUE", where=where, remedy="write e.g. --input training=0")
    if value.endswith(".npy"):
        try:
            return name, np.load(value, allow_pickle=False)
        except OSError as error:
            raise OnnxgainError(f"cannot be read: {error.strerror}", where=where, remedy="check the path") from error
        except ValueError as error:
            raise OnnxgainError("is no array of numbers", where=where, remedy="save one with numpy.save") from error
    try:
        array = np.array(json.loads(value))
    except ValueError as error:
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


def count_stimuli(stimuli: tuple[str, ...], images: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[Path, ...]]:
    """The specifications of synthetic stimuli and the photographs asked for; the impulse where nothing is."""
    from onnxgain.model.photo import photographs

    paths = photographs(images) if images else ()
    return stimuli or (() if paths else ("impulse",)), paths


def make_stimuli(
    classifier: Classifier, specifications: tuple[str, ...], paths: tuple[Path, ...]
) -> Iterator[Stimulus]:
    """Yield the stimuli for a classifier one by one, so that a large folder is never in memory at once."""
    from onnxgain.model.stimulus import parse_stimulus, photograph

    shape = classifier.image.image_shape
    for text in specifications:
        yield parse_stimulus(text, shape, classifier.scale)
    for path in paths:
        yield photograph(path, shape, classifier.scale)


report_option = click.option(
    "--report",
    type=click.Path(),
    metavar="FILE.html",
    help="Write a page to look at, in one file that needs no network.",
)


def check_report(path: str | None, *, needed: bool = False) -> None:
    """Refuse before measuring what cannot be written after it.

    Args:
        needed: a page is made even where none is written to `path`.
    """
    if path is None:
        if needed:
            from onnxgain.report.charts.vega import require_charts

            require_charts("--format html")
        return
    from onnxgain.files import require_writable
    from onnxgain.report.charts.vega import require_charts

    if not path.lower().endswith((".html", ".htm")):
        raise OnnxgainError("the file name must end in .html", where=f"--report {path}", remedy="rename it")
    require_charts(f"--report {path}")
    require_writable(path)


def write_report(page: str, path: str) -> None:
    """Write a page and say so."""
    from onnxgain.files import atomic_write

    atomic_write(path, page)
    click.echo(f"wrote {path}", err=True)


def echo_or_write(text: str, out: str | None) -> None:
    """Print a document, or write it to a file atomically."""
    if out is None:
        click.echo(text, nl=False)
    else:
        from onnxgain.files import atomic_write

        atomic_write(out, text)
