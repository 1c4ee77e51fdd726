"""Attribution maps as text: the classes and the position of the strongest attribution."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.text import Text

from onnxgain.measure.saliency import Saliency, SaliencySettings
from onnxgain.report.text.assumptions import assumed
from onnxgain.report.text.formatting import new_console, printable, printed

SCHEMA = "onnxgain.saliency/1"


@dataclass(frozen=True, eq=False)
class SaliencyReport:
    """The maps of one model.

    Attributes:
        assumptions: what was assumed because the file does not declare it, a sentence each.
    """

    model: str
    settings: SaliencySettings
    maps: Sequence[Saliency]
    assumptions: Sequence[str] = ()


def label(one: Saliency) -> str:
    """An image and its class in one line."""
    name = one.image.parameters.get("file", one.image.name)
    return f"{name}: class {_called(one, one.class_index)}, probability {one.probability:.4f}"


def strongest(one: Saliency) -> tuple[int, int]:
    """(y, x) of the pixel with the largest attribution over the channels."""
    size = np.square(one.attribution).sum(axis=0)
    y, x = np.unravel_index(int(size.argmax()), size.shape)
    return int(y), int(x)


def render_table(report: SaliencyReport, *, colour: bool = True) -> str:
    """The classes of each image."""
    console = new_console(colour)
    for one in report.maps:
        y, x = strongest(one)
        console.print(Text(printable(label(one)), style="bold"))
        others = ", ".join(f"{_called(one, index)} {probability:.4f}" for index, probability in one.top)
        height, width = one.attribution.shape[1:]
        console.print(Text(f"  {report.settings.method}, strongest at y={y}, x={x} of a {height}x{width} map"))
        console.print(Text(f"  top classes: {others}"))
    if any(one.image.name == "photograph" for one in report.maps):
        console.print(Text("a photograph is resized and its centre cropped to the model's input; the map covers that"))
    for line in assumed(((report.model, sentence) for sentence in report.assumptions), models=1):
        console.print(Text(printable(line)))
    return printed(console)


def render_json(report: SaliencyReport) -> str:
    """A JSON document of schema `SCHEMA`, without the maps themselves, which go to an .npz."""
    settings = report.settings
    document = {
        "schema": SCHEMA,
        "model": report.model,
        "method": settings.method,
        "samples": settings.samples if settings.method in ("smoothgrad", "integrated") else None,
        "noise": settings.noise if settings.method == "smoothgrad" else None,
        "images": [_image(one) for one in report.maps],
        "assumptions": list(report.assumptions),
    }
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _called(one: Saliency, index: int) -> str:
    return f"{index} ({one.names[index]})" if index in one.names else str(index)


def _image(one: Saliency) -> dict[str, Any]:
    y, x = strongest(one)
    return {
        "stimulus": one.image.name,
        "parameters": one.image.parameters,
        "class": one.class_index,
        "probability": one.probability,
        "top": [
            {"class": index, "probability": probability, "class_name": one.names.get(index)}
            for index, probability in one.top
        ],
        "sum": float(one.attribution.sum()),
        "strongest": {"y": y, "x": x},
        "class_name": one.names.get(one.class_index),
    }
