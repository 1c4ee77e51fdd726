"""The figure of `diff --plot`: every label lies inside it, and the maps take most of the room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxgain.measure.spectrum import frequency_response
from onnxgain.report.charts.diff import DiffPanel, plot_difference


@pytest.mark.parametrize(("names", "scale"), [(("R", "G", "B"), 1e-4), (("grey",), 1.0)])
def test_labels_are_not_cut_off(
    names: tuple[str, ...], scale: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: Any, **options: Any) -> None:
        save(figure, *arguments, **options)
        FigureCanvasAgg(figure).draw()  # at the figure's own resolution, in which the extents are
        drawn.append(figure)

    monkeypatch.setattr(Figure, "savefig", keep)
    slopes = [scale * np.random.default_rng(seed).normal(size=(len(names), 32, 32)) for seed in (0, 1)]
    levels = [20 * np.log10(frequency_response(slope, window=False).magnitude) for slope in slopes]
    panel = DiffPanel("impulse", (slopes[0], slopes[1]), (levels[0], levels[1]), names)
    plot_difference([panel], tmp_path / "diff.png", title="a.onnx -> b.onnx")
    (figure,) = drawn
    whole = figure.bbox
    axes = [one for one in figure.findobj() if type(one).__name__ == "Axes"]
    texts = [text for one in axes for text in (one.xaxis.label, one.yaxis.label, one.title) if text.get_text()]
    assert len(texts) >= 6 * 3 * len(names)
    for text in texts:
        box = text.get_window_extent()
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1, text.get_text()
        assert whole.y0 <= box.y0 and box.y1 <= whole.y1, text.get_text()
    maps = [one.get_window_extent() for one in axes if one.images]
    assert len(maps) == 6 * len(names)
    assert min(box.width for box in maps) > 0.145 * whole.width
    assert sum(box.width * box.height for box in maps) > (0.25 if len(names) > 1 else 0.23) * whole.width * whole.height
