"""The figure contains the measured values, is complete and reproducible, and is written atomically."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxgain.errors import OnnxgainError
from onnxgain.measure.spectrum import frequency_response
from onnxgain.report.charts import figure
from onnxgain.report.charts import response as plot
from onnxgain.report.charts.response import Panel

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]


def panel(channels: int = 1, size: int = 28, label: str = "lenet.onnx, impulse, mnist scale") -> Panel:
    y, x = np.mgrid[:size, :size] - size // 2
    noise = np.random.default_rng(0).standard_normal((channels, size, size))
    derivative = noise * np.exp(-(y**2 + x**2) / (size / 2))
    names = ["grey"] if channels == 1 else ["red", "green", "blue"]
    return Panel(label, derivative, frequency_response(derivative, window=True), names)


def of(derivative: np.ndarray, *, window: bool = False) -> Panel:
    names = [f"channel {index}" for index in range(len(derivative))]
    return Panel("label", derivative, frequency_response(derivative, window=window), names)


def svg_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, panels: list[Panel], title: str = "title") -> list[str]:
    """The strings of the figure, which are text in an SVG with `svg.fonttype: none`; minus signs become hyphens."""
    monkeypatch.setitem(figure.STYLE, "svg.fonttype", "none")
    plot.plot_response(panels, tmp_path / "text.svg", title=title)
    text = [element for element in ElementTree.parse(tmp_path / "text.svg").iter() if element.tag.endswith("}text")]
    return [(element.text or "").replace("\N{MINUS SIGN}", "-") for element in text]


@pytest.mark.parametrize("name", ["plot.jpg", "plot", "plot.png.txt", ".png"])
def test_other_suffixes_are_refused_before_anything_is_drawn(tmp_path: Path, name: str) -> None:
    with pytest.raises(OnnxgainError, match=r"end the name in .png, .svg, .pdf"):
        figure.plot_format(name)
    with pytest.raises(OnnxgainError):
        plot.plot_response([panel()], tmp_path / name, title="title")
    assert not os.listdir(tmp_path)
    assert figure.plot_format("Plot.PNG") == "png"


def test_figure_contains_the_measured_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured = panel(3)
    text = svg_text(monkeypatch, tmp_path, [measured], title="Spectral response")
    assert text.count("Spectral response") == 1
    assert text.count(measured.label) == 1
    for name, gain in zip(measured.channel_names, measured.spectrum.maximum_gain, strict=True):
        assert f"{name}: derivative per 8-bit level" in text
        assert f"frequency response: Maximum Gain {gain:.2f} dB" in text
    assert text.count("radial profile") == 3
    for label in ("x (pixels)", "fx (cycles/pixel)", "radial frequency (cycles/pixel)"):
        assert text.count(label) == 1
    assert {"-0.50", "0.50"} <= set(text)
    assert any(re.fullmatch(r"-?[\d.]+ dB", string) for string in text)  # the colour bar
    bandwidths = [f"-{drop} dB at {f:.3f}" for drop in (3, 6) for f in measured.spectrum.bandwidth(drop) if f]
    assert bandwidths
    assert sorted(string for string in text if " dB at " in string) == sorted(bandwidths)


def test_zero_channels_are_labelled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    derivative = np.zeros((3, 17, 17))
    derivative[0, 8, 8] = 1
    derivative[1, 0, 3] = 1  # the window is zero there
    text = svg_text(monkeypatch, tmp_path, [of(derivative, window=True), of(derivative[2:])])
    assert text.count("frequency response: Maximum Gain 0.00 dB") == 1
    assert text.count("frequency response: no gain") == 3
    assert text.count("the window leaves nothing") == 1
    assert text.count("is exactly zero") == 2
    assert not any("inf" in string or "nan" in string for string in text)


def test_any_text_and_any_size_can_be_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    labels = {"a $b_c^d$ e": (1, 1), "\\frac{1}{$": (1, 9), "tab\tbell\x07surrogate\udcff": (5, 4), "<&>": (33, 7)}
    panels = [replace(of(rng.standard_normal((1, *size))), label=label) for label, size in labels.items()]
    text = svg_text(monkeypatch, tmp_path, panels, title="name_" * 80)
    for label in labels:
        assert text.count("".join(c if c.isprintable() else "\ufffd" for c in label)) == 1
    images = (tmp_path / "text.svg").read_text().count("<image")
    assert images == 4 * (2 + 2)  # two images and two colour bars per row


def test_bytes_depend_on_the_input_only(tmp_path: Path) -> None:
    """The process, the user's style, the date and hash seeds have no effect, and drawing changes none of them."""
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import matplotlib; matplotlib.rcParams.update({{"font.size": 30, "image.cmap": "jet", "axes.grid": True}})
from tests.report.test_plot import draw_all
draw_all({str(tmp_path / "there")!r})
assert matplotlib.rcParams["font.size"] == 30
assert "matplotlib.pyplot" not in sys.modules
"""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1", "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
    draw_all(tmp_path / "here")
    for suffix, magic in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        content = (tmp_path / "here" / f"plot.{suffix}").read_bytes()
        assert content.startswith(magic)
        assert content == (tmp_path / "there" / f"plot.{suffix}").read_bytes()
    assert sorted(os.listdir(tmp_path / "here")) == ["plot.pdf", "plot.png", "plot.svg"]


def draw_all(folder: str | Path) -> None:
    Path(folder).mkdir()
    for suffix in figure.FORMATS:
        plot.plot_response([panel()], Path(folder) / f"plot.{suffix}", title="title")


def test_hundreds_of_rows_stay_within_the_pixel_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[float] = []
    monkeypatch.setattr(plot, "_draw_panel", lambda *_: None)
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig",
        lambda self, path, dpi, **_: drawn.append(dpi * self.get_size_inches()[1]),
    )
    plot.plot_response([panel()] * 400, tmp_path / "plot.png", title="title")
    assert 0 < drawn[0] < 2**16


def test_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "_draw_panel", lambda *_: None)
    with pytest.raises(OnnxgainError, match="does not exist; create the folder"):
        plot.plot_response([panel()], tmp_path / "no" / "plot.png", title="title")

    def half(self: object, path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("drawing failed")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", half)
    with pytest.raises(RuntimeError, match="drawing failed"):
        plot.plot_response([panel()], tmp_path / "plot.png", title="title")
    assert not os.listdir(tmp_path)


def test_missing_matplotlib_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(OnnxgainError, match="matplotlib is not installed"):
        plot.plot_response([panel()], tmp_path / "plot.png", title="title")
