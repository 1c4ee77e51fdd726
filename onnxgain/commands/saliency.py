"""`onnxgain saliency`: how much each pixel of an image contributes to the logit of a class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from onnxgain.commands.options import (
    DeviceOptions,
    ReadingOptions,
    StimulusOptions,
    add_device_options,
    class_option,
    reading_options,
)
from onnxgain.commands.output import OutputOptions, announce, files_read, output_options
from onnxgain.commands.parameters import option_group
from onnxgain.commands.threads import threads_option
from onnxgain.commands.time_limit import limited, timeout_option
from onnxgain.errors import OnnxgainError

if TYPE_CHECKING:
    from onnxgain.report.text.saliency import SaliencyReport

# Repeated here so that help needs no numpy; a test compares them.
METHODS = ("gradient", "input-x-gradient", "smoothgrad", "integrated")
PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class MapOptions:
    """The kind of map, and its destination."""

    method: Any
    class_index: int | None
    samples: int
    noise: float
    seed: int
    map_file: str | None
    threads: int | None


@click.command(
    short_help="Map what each pixel contributes to a class.",
    epilog="""\b
Examples:
  onnxgain saliency model.onnx photo.jpg --map map.png
  onnxgain saliency model.onnx photos/ --method integrated --map maps.npz
  onnxgain saliency model.onnx photo.jpg --method smoothgrad --samples 25 --class 285 --map map.svg
""",
)
@click.argument("model", type=click.Path())
@click.argument("images", nargs=-1, required=True, type=click.Path())
@option_group(
    "maps",
    MapOptions,
    click.option(
        "--method",
        type=click.Choice(METHODS),
        default="gradient",
        show_default=True,
        help="gradient of the logit; that times the image; its mean over noisy copies (smoothgrad); integrated "
        "gradients from a black image.",
    ),
    class_option,
    click.option(
        "--samples",
        type=click.IntRange(1, 10_000),
        default=50,
        show_default=True,
        help="Noisy copies of smoothgrad, points of integrated.",
    ),
    click.option(
        "--noise",
        type=click.FloatRange(0, 10, min_open=True),
        default=0.15,
        show_default=True,
        help="Standard deviation of smoothgrad's noise, as a part of the image's range.",
    ),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of that noise."),
    click.option(
        "--map",
        "map_file",
        type=click.Path(),
        help="Draw the maps (.png, .svg, .pdf) or write them as arrays (.npz: map_0 of (C, H, W), ...).",
    ),
    threads_option,
)
@reading_options
@option_group("device", DeviceOptions, add_device_options)
@timeout_option
@output_options("saliency")
def saliency(
    model: str,
    images: tuple[str, ...],
    maps: MapOptions,
    reading: ReadingOptions,
    device: DeviceOptions,
    timeout: float | None,
    delivery: OutputOptions,
) -> None:
    """Map what each pixel of IMAGES contributes to the logit of a class, from the exported model alone.

    IMAGES are files or folders of files. The class is each image's winner, or --class. Maps are in model-input units.
    """
    from onnxgain.files import require_writable
    from onnxgain.measure.request import Request
    from onnxgain.measure.saliency import SaliencySettings
    from onnxgain.measure.saliency import saliency as compute
    from onnxgain.model.classifier import load_classifier
    from onnxgain.report.text.progress import progress
    from onnxgain.report.text.saliency import SaliencyReport

    if maps.map_file is None and delivery.out is not None and delivery.out.lower().endswith((*PICTURES, ".npz")):
        maps, delivery = replace(maps, map_file=delivery.out), replace(delivery, out=None)
    delivery.check()
    if maps.map_file is not None:
        if not maps.map_file.lower().endswith((*PICTURES, ".npz")):
            raise OnnxgainError(
                "is neither a picture nor an .npz", where=f"--map {maps.map_file}", remedy="end it in .png or .npz"
            )
        require_writable(maps.map_file, files_read())
    stimuli, photos = StimulusOptions((), images).chosen()
    request = Request(stimuli=stimuli, photos=photos, device=device.chosen())
    settings = SaliencySettings(maps.method, maps.class_index, maps.samples, maps.noise, maps.seed)
    found = []
    with limited(model, timeout) as step:
        classifier = load_classifier(model, reading.reading())
        step()
        with progress("images", request.count) as advance:
            for one in compute(classifier, request, settings, maps.threads):
                found.append(one)
                advance(1)
                step()
    report = SaliencyReport(model, settings, found, classifier.assumptions)
    if maps.map_file is not None:
        _write(report, maps.map_file)
    delivery.deliver("saliency", report, lambda path: _draw(report, path))


def _write(report: SaliencyReport, path: str) -> None:
    if path.lower().endswith(".npz"):
        import numpy as np

        from onnxgain.files import atomic_path

        with atomic_path(path) as temporary:
            arrays: dict[str, Any] = {f"map_{i}": one.attribution for i, one in enumerate(report.maps)}
            np.savez_compressed(temporary, **arrays)
    else:
        _draw(report, path)
    announce(path)


def _draw(report: SaliencyReport, path: str) -> None:
    from onnxgain.report.charts.saliency import draw_saliency
    from onnxgain.report.text.saliency import label

    draw_saliency(report.maps, [label(one) for one in report.maps], path)
