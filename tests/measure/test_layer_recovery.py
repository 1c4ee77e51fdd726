"""Layers that are put back as they were give the mixed model that a quantizer would make without them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.analysis import layer_recovery
from onnxgain.analysis.layer_recovery import helpful, to_put_back, with_helpful, with_recovery
from onnxgain.analysis.layers import LayerChanges, Together, layer_changes
from onnxgain.commands.diff import _layers as layers_of_pair
from onnxgain.measure.layer_errors import LayerErrors, layer_errors
from onnxgain.measure.layer_graphs import LayerGraph
from onnxgain.measure.layer_pair import layer_pair
from onnxgain.measure.layer_recovery import PutBack, put_back
from onnxgain.measure.request import Request
from onnxgain.model.classifier import Classifier, Reading, describe
from onnxgain.model.input_scale import input_scale
from onnxgain.report.text.layers import exclusion, layers_document, layers_table, recovery_words
from tests.analysis.test_layers import changes as changes_of
from tests.commands.test_diff_layers import scale_weights
from tests.support import models, quantized

READING = Reading(scale=input_scale("unit"))


def read(model: onnx.ModelProto) -> Classifier:
    return describe(ir.from_proto(model), READING)


def scaled(**factors: float) -> onnx.ModelProto:
    model = models.conv_net()
    for name, factor in factors.items():
        scale_weights(model, f"/{name}", factor)
    return model


def logits(classifier: Classifier) -> np.ndarray:
    pair = layer_pair(classifier, classifier, threads=1)
    graph = pair.before
    rows = [graph.centred(graph.run(image)[graph.logits])[0] for image in pair.images]
    return np.array(rows)


def measured(one: Classifier, other: Classifier) -> tuple[LayerErrors, LayerChanges, PutBack]:
    pair = layer_pair(one, other, threads=1)
    errors = layer_errors(pair)
    changes = layer_changes(errors)
    sets = [[layer.error for layer in layers] for layers in to_put_back(changes)]
    return errors, changes, put_back(pair, errors, sets)


def names() -> list[str]:
    return [node.name.removeprefix("/") for node in models.conv_net().graph.node if node.op_type == "Conv"]


def test_one_layer_put_back_is_the_model_without_its_change() -> None:
    one, other = names()[:2]
    before, after = read(models.conv_net()), read(scaled(**{one: 1.3, other: 0.8}))
    _, changes, found = measured(before, after)
    assert {layer.name for layer in changes.layers} == {f"/{one}", f"/{other}"}
    for layer, mixed in zip(changes.layers, found.mixed, strict=False):
        left = {f"/{one}": {other: 0.8}, f"/{other}": {one: 1.3}}[layer.name]
        np.testing.assert_allclose(mixed, logits(read(scaled(**left))), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.mixed[-1], found.before, rtol=1e-4, atol=1e-5)  # both


def test_all_layers_of_a_quantized_model_put_back_are_the_float_model(tmp_path: Path) -> None:
    model = quantized.residual_net()
    after = read(onnx.load(quantized.quantize(model, tmp_path / "int8.onnx", quantized.STATIC[0])))
    pair = layer_pair(read(model), after, threads=1)
    errors = layer_errors(pair)
    found = put_back(pair, errors, [errors.layers, errors.layers[-1:]])
    np.testing.assert_allclose(found.mixed[0], found.before, rtol=1e-4, atol=1e-5)
    assert np.abs(found.after - found.before).max() > 1e-3


def test_recovery_is_a_part_of_the_divergence() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(size=(12, 5))
    errors = (rng.normal(size=(12, 5)) * 0.3, rng.normal(size=(12, 5)) * 0.1)
    one, other = names()[:2]
    _, changes, _ = measured(read(models.conv_net()), read(scaled(**{one: 1.3, other: 0.8})))
    after = before + errors[0] + errors[1]
    sets = to_put_back(changes)
    assert [len(layers) for layers in sets] == [1, 1, changes.first[0]]
    mixed = (before + errors[1], before + errors[0], before)
    found = with_recovery(changes, PutBack(before, after, mixed, independent=False))
    first, second = (layer.recovery for layer in found.layers)
    assert first is not None and second is not None
    assert 0.7 < first < 1 and -0.2 < second < 0.4
    assert found.together is not None and found.together.left == 0
    assert found.most_alone is found.layers[0]
    document = layers_document(found)
    assert document["layers"][0]["recovery"] == first
    assert document["together"]["divergence_put_back"] == 0
    assert "put back" in str(layers_table(found).markdown())


@pytest.mark.parametrize(
    ("together", "alone", "words"),
    [
        (0.02, 0.03, "with the first 2 layers as before, 80 % of the difference between the answers is gone; of single "
                     "layers b brings most: 70 % of the difference between the answers is gone"),
        (0.12, 0.11, "with the first 2 layers as before, the answers differ by 20 % more; of single layers a brings "
                     "most: 50 % of the difference between the answers is gone"),
    ],
)  # fmt: skip
def test_words(together: float, alone: float, words: str) -> None:
    found = changes_of(0.5, 0.5)
    one, other = found.layers
    one = replace(one, recovery=0.5, error=replace(one.error, name="a"))
    other = replace(other, recovery=1 - alone / 0.1, error=replace(other.error, name="b"))
    found = replace(found, layers=(one, other), together=Together((0, 1), 0.1, together))
    assert recovery_words(found) == f"measured at 12 images: {words}"


@pytest.mark.parametrize(
    ("left", "places", "words"),
    [
        (0.01, (0,), "with the first layer as before, 90 % of the difference between the answers is gone"),
        (0.03, (0, 1), "with the first 2 layers as before, 80 % of the difference between the answers is gone (b: only "
                       "together with the others); of single layers a brings most: 70 % of the difference between the "
                       "answers is gone"),
    ],
)  # fmt: skip
def test_a_layer_that_brings_nothing_alone_is_kept_only_where_it_helps_the_others(
    monkeypatch: pytest.MonkeyPatch, left: float, places: tuple[int, ...], words: str
) -> None:
    one, other = changes_of(0.5, 0.5).layers
    one = replace(one, recovery=0.7, error=replace(one.error, name="a", exclude=("a",)))
    other = replace(other, recovery=-0.2, error=replace(other.error, name="b", exclude=("b",)))
    changes = replace(changes_of(0.5, 0.5), layers=(one, other), newly_quantized=True)
    changes = replace(changes, together=Together((0, 1), 0.1, 0.02))
    assert helpful(changes) == (0,)
    monkeypatch.setattr(layer_recovery, "_divergences", lambda measured: [0.1, left])
    found = with_helpful(changes, PutBack(np.zeros((1, 2)), np.zeros((1, 2)), (), independent=False))
    assert found.together is not None and found.together.places == places
    assert recovery_words(found) == f"measured at 12 images: {words}"
    assert found.exclude == tuple("ab"[place] for place in places)
    assert found.summary.endswith(f": keep in float first {', '.join('ab'[place] for place in places)}")
    assert layers_document(found)["together"]["names"] == ["ab"[place] for place in places]


def test_layers_that_bring_nothing_together_are_not_kept() -> None:
    found = replace(changes_of(0.5, 0.5), newly_quantized=True, together=Together((0, 1), 0.1, 0.11))
    assert (found.kept, found.exclude) == ((), ())
    assert found.summary.endswith("putting them back as they were brings nothing")
    assert exclusion(found) is None


def test_nothing_is_measured_where_one_layer_changed() -> None:
    one = names()[0]
    errors = layer_errors(layer_pair(read(models.conv_net()), read(scaled(**{one: 1.3})), threads=1))
    assert to_put_back(layer_changes(errors)) == ()
    assert recovery_words(layer_changes(errors)) is None


def test_each_graph_is_loaded_once_for_errors_and_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Classifier] = []
    load = LayerGraph.__post_init__

    def counted(graph: LayerGraph) -> None:
        loaded.append(graph.classifier)
        load(graph)

    monkeypatch.setattr(LayerGraph, "__post_init__", counted)
    one, other = names()[:2]
    before, after = read(models.conv_net()), read(scaled(**{one: 1.3, other: 0.8}))
    changes = layers_of_pair(before, after, Request(), threads=1)
    assert changes.together is not None
    assert loaded == [before, after]
