"""The ranking of layers, and how few carry the change."""

from __future__ import annotations

import json

import pytest

from onnxgain.analysis.layers import LayerChanges, layer_changes
from onnxgain.measure.tensors import LayerError, LayerErrors
from onnxgain.report.text.layers import layers_document, layers_table


def changes(*effects: float, added: float = 0.1) -> LayerChanges:
    layers = (LayerError(f"t{i}", f"t{i}", f"n{i}", "Conv", "name", 0.1, added, x, None) for i, x in enumerate(effects))
    return layer_changes(LayerErrors(tuple(layers), 2.0, 6, 0))


def test_largest_effect_of_either_sign_comes_first() -> None:
    found = changes(0.1, -1.0, 0.5)
    assert [layer.error.tensor for layer in found.layers] == ["t1", "t2", "t0"]
    assert [layer.share for layer in found.layers] == [-0.5, 0.25, 0.05]
    assert [layer.depth for layer in found.layers] == [0.5, 1.0, 0.0]


def test_summary_names_as_few_as_carry_most() -> None:
    found = changes(*[0.01] * 10, 1.0, 1.0)
    count, share = found.first
    assert count == 2
    assert share == pytest.approx(2.0 / 2.1)
    assert found.summary.startswith("these 2 of 12 changed layers carry 95%")


def test_rounding_is_no_change() -> None:
    assert changes(0.5, 0.5, added=1e-7).layers == ()


def test_overflow_comes_first_and_is_null_in_json() -> None:
    found = changes(1.0, float("nan"))
    assert found.layers[0].error.tensor == "t1"
    document = json.loads(json.dumps(layers_document(found), allow_nan=False))
    assert document["layers"][0]["share"] is None
    assert "not finite" in layers_table(found).markdown()
