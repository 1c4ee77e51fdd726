"""The ranking of layers, and the number of layers that carry most of the change."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from onnxgain.analysis.layers import LayerChanges, layer_changes
from onnxgain.measure.layer_errors import LayerError, LayerErrors, TensorError
from onnxgain.report.text.layers import exclusion, layer_rows, layers_document, layers_table


def layer(number: int, effect: float | None, *parts: float, added: float = 0.1) -> LayerError:
    """A layer with one tensor, or with one per effect given."""
    tensors = (
        TensorError(f"t{number}{part}", f"t{number}{part}", f"n{number}{part}", "Conv", "name", size, size, added, 0.1)
        for part, size in zip("abc", parts or (effect,), strict=False)
    )
    return LayerError(tuple(tensors), (f"n{number}a",), effect, effect, None)


def changes(*effects: float, added: float = 0.1) -> LayerChanges:
    layers = (layer(number, effect, added=added) for number, effect in enumerate(effects))
    return layer_changes(LayerErrors(tuple(layers), 12, 0))


def quantized(*excluded: tuple[str, ...] | None) -> LayerChanges:
    """Layers of equal effect, each with the nodes that keep it in float."""
    layers = [replace(layer(number, 0.5), exclude=names) for number, names in enumerate(excluded)]
    return layer_changes(LayerErrors(tuple(layers), 12, 0, newly_quantized=True))


def test_largest_effect_comes_first() -> None:
    found = changes(0.1, 0.9, 0.3)
    assert [layer.name for layer in found.layers] == ["n1a", "n2a", "n0a"]
    assert [layer.share for layer in found.layers] == pytest.approx([0.81 / 0.91, 0.09 / 0.91, 0.01 / 0.91])
    assert [layer.depth for layer in found.layers] == [0.5, 1.0, 0.0]


def test_summary_names_the_fewest_layers_that_carry_most_of_the_change() -> None:
    found = changes(*[0.1] * 10, 0.6, 0.6)
    count, share = found.first
    assert count == 2
    assert share == pytest.approx(0.72 / 0.82)
    assert found.summary == ("2 layers carry 88 % of the change, 12 of 12 add an error: look first at n10a, n11a")


def test_nodes_to_exclude_are_those_of_the_layers_named() -> None:
    found = quantized(("conv", "sigmoid"), ("conv", "fc"))
    assert found.exclude == ("conv", "sigmoid", "fc")
    assert found.summary == "2 layers carry 100 % of the change, 2 of 2 add an error: keep in float first n0a, n1a"
    assert exclusion(found) == (
        "to keep them in float (shares are first-order estimates: compare the new file again), "
        'give onnxruntime\'s quantizer nodes_to_exclude=["conv", "sigmoid", "fc"]'
    )
    assert layers_document(found)["first"]["nodes_to_exclude"] == ["conv", "sigmoid", "fc"]
    assert layers_document(found)["layers"][1]["exclude"] == ["conv", "fc"]
    assert layers_document(found)["layers"][1]["nodes"] == ["n1a"]


def test_nodes_to_exclude_of_one_layer_and_of_many() -> None:
    assert exclusion(quantized(("conv",))) == (
        "to keep it in float (shares are first-order estimates: compare the new file again), "
        'give onnxruntime\'s quantizer nodes_to_exclude=["conv"]'
    )
    many = quantized(*[(f"n{number}",) for number in range(20)])
    assert many.first[0] == 16
    assert many.exclude == tuple(f"n{number}" for number in range(10))
    assert (exclusion(many) or "").startswith("to keep the first 10 in float (")


def test_nodes_without_names_cannot_be_excluded() -> None:
    found = quantized(("conv",), None)
    assert found.exclude is None
    assert "no name" in (exclusion(found) or "")
    assert layers_document(found)["first"]["nodes_to_exclude"] is None
    assert layers_document(found)["layers"][1]["exclude"] is None


def test_nothing_to_exclude_where_nothing_was_quantized() -> None:
    found = changes(0.5, 0.5)
    assert (found.exclude, exclusion(found)) == ((), None)


def test_rounding_does_not_count_as_a_change() -> None:
    assert changes(0.5, 0.5, added=1e-7).layers == ()


def test_overflow_comes_first_and_is_null_in_json() -> None:
    found = changes(1.0, float("nan"))
    assert found.layers[0].name == "n1a"
    document = json.loads(json.dumps(layers_document(found), allow_nan=False))
    assert document["layers"][0]["effect"] is None
    assert document["layers"][0]["share"] is None
    assert "not finite" in layers_table(found).markdown()


def test_layer_has_the_name_of_its_first_node_and_its_worst_tensor() -> None:
    one, other = layer(0, 0.5, 0.3, 0.4), replace(layer(1, 0.6, 0.6, 0.1), name="conv", operator="ConvTranspose")
    found = layer_changes(LayerErrors((one, other), 12, 0))
    assert [layer.name for layer in found.layers] == ["conv", "n0b"]
    assert [row[1] for row in layer_rows(found)] == ["ConvTranspose (at Conv)", "Conv"]
    assert [layer["operator"] for layer in layers_document(found)["layers"]] == ["ConvTranspose", "Conv"]


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
