"""Figures 1 to 4: the toy CNN, a 7x7 Gaussian of sigma 1 followed by ReLU, on the red channel of a picture.

    python -m scripts.reproduce.figures_1_4 [--image photo.png] --out DIR

Writes figure_1.webp to figure_4.webp, and the comparison with theory to figures_1_4.md. Derivatives are those of the
ONNX gradient graph. Needs: onnxruntime.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from onnxgain.engine.session import Session
from onnxgain.gradient.graphs import vector_jacobian
from onnxgain.measure.spectrum import Spectrum, frequency_response
from onnxgain.model.input_scale import PRESETS
from onnxgain.model.stimulus import impulse
from onnxgain.report.charts.figure import drawing
from scripts.reproduce.pictures import compact

REACH = np.arange(-3, 4)
PROFILE = np.exp(-(REACH**2) / 2.0)
GAUSSIAN = np.outer(PROFILE, PROFILE) / PROFILE.sum() ** 2
SIZE = 256
UNIT = (150, 100)
NEAR = 12


def toy_cnn() -> ir.Model:
    shape = [1, 1, SIZE, SIZE]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["filtered"], pads=[3, 3, 3, 3]),
            helper.make_node("Relu", ["filtered"], ["z"]),
        ],
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info("z", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("filtered", TensorProto.FLOAT, shape),
        ],
        [numpy_helper.from_array(GAUSSIAN.astype(np.float32)[None, None], "w")],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def backward(x: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The filtered image, z, and d<p, z>/dx, all (H, W)."""
    session = Session(vector_jacobian(toy_cnn(), ["x"], outputs=["z"]), threads=1)
    found = session.run({"x": x.astype(np.float32)[None, None], "adjoint_z": p.astype(np.float32)[None, None]})
    return found["filtered"][0, 0], found["z"][0, 0], found["gradient_x"][0, 0]


def dead_leaves() -> np.ndarray:
    """Overlapping discs of all sizes on 0..255, with edges and a spectrum like those of photographs."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE]
    image = np.zeros((SIZE, SIZE, 3))
    for _ in range(4000):
        radius = 3 / np.sqrt(rng.uniform(3**2 / 80**2, 1))
        cy, cx = rng.uniform(-radius, SIZE + radius, 2)
        image[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = rng.integers(0, 256, 3)
    return image


def photograph(path: Path) -> np.ndarray:
    """The photograph, (SIZE, SIZE, 3) on 0..255."""
    image = Image.open(path).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE)), float)


def theory(spectrum: Spectrum) -> np.ndarray:
    """|H| of the Gaussian in closed form: a product of two cosine sums."""
    along = [
        sum(w * np.cos(2 * np.pi * f * n) for w, n in zip(PROFILE, REACH, strict=True)) / PROFILE.sum()
        for f in spectrum.frequencies
    ]
    return np.abs(np.outer(*along))


def panel(figure: Any, place: tuple[int, int, int], image: np.ndarray, title: str, **options: Any) -> None:
    axes = figure.add_subplot(*place)
    shown = axes.imshow(image, interpolation="nearest", **options)
    axes.set_title(title)
    if image.ndim == 2:
        figure.colorbar(shown, ax=axes, shrink=0.8)


def spot(figure: Any, place: tuple[int, int, int], image: np.ndarray, centre: tuple[int, int], title: str) -> None:
    """Draw only the neighbourhood of a pixel."""
    y, x = centre
    part = image[y - NEAR : y + NEAR + 1, x - NEAR : x + NEAR + 1]
    panel(figure, place, part, title, extent=(x - NEAR - 0.5, x + NEAR + 0.5, y + NEAR + 0.5, y - NEAR - 0.5))


def response(figure: Any, place: tuple[int, int, int], spectrum: Spectrum, title: str) -> None:
    decibels = np.maximum(spectrum.db[0], spectrum.db[0].max() - 80)
    panel(figure, place, decibels, title, extent=(-0.5, 0.5, 0.5, -0.5), cmap="viridis")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, help="a colour photograph (default: dead leaves, a picture like one)")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder to write to (default: %(default)s)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    colour = photograph(arguments.image) if arguments.image else dead_leaves()
    x = colour[..., 0] - colour[..., 0].mean()
    ones = np.ones((SIZE, SIZE))
    filtered, z, everywhere = backward(x, ones)
    row, column = UNIT if z[UNIT] > 0 else tuple(np.argwhere(z[8:-8, 8:-8] > 0)[0] + 8)
    single = np.zeros((SIZE, SIZE))
    single[row, column] = 1
    derivative = backward(x, single)[2]
    spectrum = frequency_response(derivative[None], window=False)
    pulse = impulse((1, SIZE, SIZE), PRESETS["raw"])
    _, z_pulse, derivative_pulse = backward(pulse.image[0], ones)
    spectrum_pulse = frequency_response(derivative_pulse[None], window=True)

    with drawing(arguments.out / "figure_1.png", (7, 3)) as figure:
        panel(figure, (1, 2, 1), colour.astype(np.uint8), "(a) image")
        panel(figure, (1, 2, 2), GAUSSIAN, "(b) filter w, 7x7, sigma 1")
    with drawing(arguments.out / "figure_2.png", (10, 3)) as figure:
        for place, (image, title) in enumerate(
            ((x, "(a) red channel less its mean"), (filtered, "(b) after conv"), (z, "(c) after relu")), 1
        ):
            panel(figure, (1, 3, place), image, title, cmap="gray")
    with drawing(arguments.out / "figure_3.png", (8, 6)) as figure:
        spot(figure, (2, 2, 1), derivative, (row, column), f"(a) dz/dx around the unit, p = 1 at ({row}, {column})")
        response(figure, (2, 2, 2), spectrum, "its response (dB)")
        panel(figure, (2, 2, 3), everywhere, "(b) dz/dx, p = 1 everywhere")
        response(figure, (2, 2, 4), frequency_response(everywhere[None], window=False), "its response (dB)")
    with drawing(arguments.out / "figure_4.png", (8, 6)) as figure:
        centre = (SIZE // 2, SIZE // 2)
        spot(figure, (2, 2, 1), pulse.image[0], centre, "(a) impulse image, its centre")
        spot(figure, (2, 2, 2), z_pulse, centre, "(b) forward pass")
        spot(figure, (2, 2, 3), derivative_pulse, centre, "(c) dz/dx, p = 1 everywhere")
        response(figure, (2, 2, 4), spectrum_pulse, "(d) its response with a Hann window (dB)")

    for number in range(1, 5):
        compact(arguments.out / f"figure_{number}.png")
    text = findings(x, filtered, z, derivative, spectrum, everywhere, derivative_pulse, spectrum_pulse, (row, column))
    (arguments.out / "figures_1_4.md").write_text(text)
    print(text)


def findings(
    x: np.ndarray, filtered: np.ndarray, z: np.ndarray, derivative: np.ndarray, spectrum: Spectrum,
    everywhere: np.ndarray, derivative_pulse: np.ndarray, spectrum_pulse: Spectrum, unit: tuple[int, int],
) -> str:  # fmt: skip
    """The paper's claims about these figures, and the largest differences from theory."""
    row, column = unit
    placed = np.zeros((SIZE, SIZE))
    placed[row - 3 : row + 4, column - 3 : column + 4] = GAUSSIAN
    live = np.pad((filtered > 0).astype(float), 3)
    summed = sum(
        GAUSSIAN[3 + dy, 3 + dx] * live[3 - dy : 3 - dy + SIZE, 3 - dx : 3 - dx + SIZE] for dy in REACH for dx in REACH
    )
    once = np.convolve(PROFILE / PROFILE.sum(), np.ones(7))
    expected = np.zeros((SIZE, SIZE))
    centre = SIZE // 2
    expected[centre - 6 : centre + 7, centre - 6 : centre + 7] = np.outer(once, once)
    windowed = frequency_response(expected[None], window=True)
    dead = np.zeros((SIZE, SIZE))
    dead[tuple(np.argwhere(z[8:-8, 8:-8] == 0)[0] + 8)] = 1
    rows = [
        ("3a", "dz/dx is the flipped filter at the unit", np.abs(derivative - placed).max()),
        ("3a", "its response is the Gaussian's own transform", np.abs(spectrum.magnitude[0] - theory(spectrum)).max()),
        ("3a", "at a unit that is off dz/dx is 0", np.abs(backward(x, dead)[2]).max()),
        ("3b", "p = 1 everywhere sums the filters of the live units", np.abs(everywhere - summed).max()),
        ("4c", "the impulse: the filter summed over the 7x7 live units", np.abs(derivative_pulse - expected).max()),
        ("4d", "its response, relative to the maximum",
         np.abs(spectrum_pulse.magnitude - windowed.magnitude).max() / windowed.magnitude.max()),
    ]  # fmt: skip
    lines = [
        "# Figures 1 to 4: the toy CNN",
        "",
        "| figure | the paper | largest difference from theory |",
        "|:---|:---|---:|",
    ]
    lines += [f"| {figure} | {claim} | {error:.1e} |" for figure, claim, error in rows]
    agree = all(error < 1e-6 for _, _, error in rows)
    lines += [
        "",
        f"All within 1e-6: {'yes' if agree else 'NO'}. The low-pass of Figure 3a and 4 is seen as the paper says.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
