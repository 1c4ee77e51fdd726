"""The ranking of layers, and how few carry the change."""

from __future__ import annotations

import json

import pytest

from onnxgain.analysis.layers import LayerChanges, layer_changes
from onnxgain.measure.layer_errors import LayerError, LayerErrors, TensorError
from onnxgain.report.text.layers import layers_document, layers_table


def layer(number: int, *effects: float | None, added: float = 0.1) -> LayerError:
    """A layer of one tensor an effect."""
    tensors = (
        TensorError(f"t{number}{part}", f"t{number}{part}", f"n{number}{part}", "Conv", "name", effect, added, 0.1)
        for part, effect in zip("abc", effects, strict=False)
    )
    return LayerError(tuple(tensors), (f"n{number}a",), None)


def changes(*effects: float, added: float = 0.1) -> LayerChanges:
    layers = (layer(number, effect, added=added) for number, effect in enumerate(effects))
    return layer_changes(LayerErrors(tuple(layers), 2.0, 6, 0))


def test_largest_effect_of_either_sign_comes_first() -> None:
    found = changes(0.1, -1.0, 0.5)
    assert [layer.name for layer in found.layers] == ["n1a", "n2a", "n0a"]
    assert [layer.share for layer in found.layers] == [-0.5, 0.25, 0.05]
    assert [layer.depth for layer in found.layers] == [0.5, 1.0, 0.0]


def test_summary_names_as_few_as_carry_most() -> None:
    found = changes(*[0.01] * 10, 1.0, 1.0)
    count, share = found.first
    assert count == 2
    assert share == pytest.approx(2.0 / 2.1)
    assert found.summary == ("2 layers carry 95% of the effects of 12 changed layers: keep in float first n10a, n11a")


def test_rounding_is_no_change() -> None:
    assert changes(0.5, 0.5, added=1e-7).layers == ()


def test_overflow_comes_first_and_is_null_in_json() -> None:
    found = changes(1.0, float("nan"))
    assert found.layers[0].name == "n1a"
    document = json.loads(json.dumps(layers_document(found), allow_nan=False))
    assert document["layers"][0]["share"] is None
    assert "not finite" in layers_table(found).markdown()


def test_effects_of_a_layers_tensors_are_summed() -> None:
    """Errors of a convolution and of its activation that cancel leave no effect; the layer is named by the larger."""
    errors = (layer(0, 0.5, -0.4), layer(1, 0.3, 0.2, 0.1))
    found = layer_changes(LayerErrors(errors, 1.0, 6, 0))
    assert [layer.name for layer in found.layers] == ["n1a", "n0a"]
    assert [layer.share for layer in found.layers] == pytest.approx([0.6, 0.1])


def test_without_effects_the_largest_own_error_comes_first() -> None:
    errors = (layer(0, None, added=0.1), layer(1, None, added=0.3), layer(2, None, added=0.2))
    found = layer_changes(LayerErrors(errors, 1.0, 6, 0, "operator Det has no gradient"))
    assert [layer.name for layer in found.layers] == ["n1a", "n2a", "n0a"]
    assert found.first == (0, 0.0)
    assert found.summary == (
        "3 of 3 layers add an error; ranked by their own error, n1a (Conv) first, since their effect on the logits "
        "is not known: operator Det has no gradient"
    )
    assert layers_document(found)["layers"][0]["share"] is None
    assert "not finite" not in layers_table(found).markdown()
