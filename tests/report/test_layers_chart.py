"""The chart of layers along the depth."""

from __future__ import annotations

import math

from onnxgain.analysis.layers import LayerChanges, layer_changes
from onnxgain.measure.layer_errors import LayerError, LayerErrors, TensorError
from onnxgain.report.charts.layers import layers_along_depth, points


def changes(*effects: float | None, reason: str | None = None) -> LayerChanges:
    layers = []
    for number, effect in enumerate(effects):
        tensor = TensorError(f"t{number}", f"t{number}", f"n{number}", "Conv", "name", effect, effect, 0.25, 0.5)
        layers.append(LayerError((tensor,), (tensor.node,), effect, effect, None))
    return layer_changes(LayerErrors(tuple(layers), 12, 0, reason))


def test_one_point_per_layer_worst_first() -> None:
    found = points(changes(*[0.01] * 12, 0.5))
    assert [point["layer"] for point in found][:2] == ["n12", "n0"]
    assert (found[0]["rank"], found[0]["size"], found[0]["depth"]) == (1, 50.0, 1.0)
    assert [point["worst"] for point in found] == [True] * 10 + [False] * 3


def test_values_that_are_not_finite_are_not_drawn() -> None:
    assert [point["layer"] for point in points(changes(0.1, math.nan))] == ["n0"]


def test_without_effects_the_own_error_is_drawn() -> None:
    found = changes(None, None, reason="no derivative")
    assert [point["size"] for point in points(found)] == [25.0, 25.0]
    spec = layers_along_depth(found)
    assert spec["concat"][0]["layer"][0]["encoding"]["y"]["title"] == "the layer's own error (%)"


def test_no_chart_without_changed_layers() -> None:
    assert layers_along_depth(changes()) == {}
