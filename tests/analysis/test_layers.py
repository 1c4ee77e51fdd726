"""The ranking of layers, and how few carry the change."""

from __future__ import annotations

import json

import pytest

from onnxgain.analysis.layers import LayerChanges, layer_changes
from onnxgain.measure.layer_errors import LayerError, LayerErrors, TensorError
from onnxgain.report.text.layers import layers_document, layers_table


def layer(number: int, effect: float | None, *parts: float, added: float = 0.1) -> LayerError:
    """A layer of a tensor, or of one for each effect of its parts."""
    tensors = (
        TensorError(f"t{number}{part}", f"t{number}{part}", f"n{number}{part}", "Conv", "name", size, size, added, 0.1)
        for part, size in zip("abc", parts or (effect,), strict=False)
    )
    return LayerError(tuple(tensors), (f"n{number}a",), effect, effect, None)


def changes(*effects: float, added: float = 0.1) -> LayerChanges:
    layers = (layer(number, effect, added=added) for number, effect in enumerate(effects))
    return layer_changes(LayerErrors(tuple(layers), 12, 0))


def test_largest_effect_comes_first() -> None:
    found = changes(0.1, 0.9, 0.3)
    assert [layer.name for layer in found.layers] == ["n1a", "n2a", "n0a"]
    assert [layer.share for layer in found.layers] == pytest.approx([0.81 / 0.91, 0.09 / 0.91, 0.01 / 0.91])
    assert [layer.depth for layer in found.layers] == [0.5, 1.0, 0.0]


def test_summary_names_as_few_as_carry_most() -> None:
    found = changes(*[0.1] * 10, 0.6, 0.6)
    count, share = found.first
    assert count == 2
    assert share == pytest.approx(0.72 / 0.82)
    assert found.summary == ("2 layers carry 88% of the change, 12 of 12 add an error: keep in float first n10a, n11a")


def test_rounding_is_no_change() -> None:
    assert changes(0.5, 0.5, added=1e-7).layers == ()


def test_overflow_comes_first_and_is_null_in_json() -> None:
    found = changes(1.0, float("nan"))
    assert found.layers[0].name == "n1a"
    document = json.loads(json.dumps(layers_document(found), allow_nan=False))
    assert document["layers"][0]["effect"] is None
    assert document["layers"][0]["share"] is None
    assert "not finite" in layers_table(found).markdown()


def test_layer_is_named_by_its_worst_tensor() -> None:
    found = layer_changes(LayerErrors((layer(0, 0.5, 0.3, 0.4), layer(1, 0.6, 0.6, 0.1)), 12, 0))
    assert [layer.name for layer in found.layers] == ["n1a", "n0b"]


def test_without_effects_the_largest_own_error_comes_first() -> None:
    errors = (layer(0, None, added=0.1), layer(1, None, added=0.3), layer(2, None, added=0.2))
    found = layer_changes(LayerErrors(errors, 12, 0, "operator Det has no gradient"))
    assert [layer.name for layer in found.layers] == ["n1a", "n2a", "n0a"]
    assert found.first == (0, 0.0)
    assert found.summary == (
        "3 of 3 layers add an error; ranked by their own error, n1a (Conv) first, since their effect on the logits "
        "is not known: operator Det has no gradient"
    )
    assert layers_document(found)["layers"][0]["share"] is None
    assert "not finite" not in layers_table(found).markdown()
