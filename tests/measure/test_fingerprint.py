"""Fingerprints: a classifier's outputs on the synthetic images, stored with a known precision."""

from __future__ import annotations

import base64
import dataclasses
import threading
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.errors import NonFiniteError, OnnxgainError
from onnxgain.measure.fingerprint import LEVELS, packed, require_intact, stored_classes, unpacked
from onnxgain.measure.fingerprint_record import FingerprintRecord
from onnxgain.measure.forward import fingerprint, forward
from onnxgain.measure.measure import measure, score
from onnxgain.measure.own_file import OwnFile
from onnxgain.measure.request import Request
from onnxgain.measure.synthetic_images import COUNT, synthetic_images
from onnxgain.model.classifier import Classifier, Reading, describe
from onnxgain.model.input_scale import PRESETS
from onnxgain.model.stimulus import Stimulus
from tests.support.models import conv_net


def classifier(model: onnx.ModelProto, **reading: object) -> Classifier:
    return describe(ir.from_proto(model), Reading(scale=PRESETS["unit"], **reading))


def images(of: Classifier) -> Iterator[np.ndarray]:
    return (of.scale.apply(pixels.astype(np.float64)) for _, pixels in synthetic_images(of.image.image_shape))


@pytest.mark.parametrize("classes", [2, 3, 10, 1000, 1001, 1024])
def test_every_logit_is_stored_to_half_a_level(classes: int) -> None:
    logits = np.random.default_rng(classes).normal(size=(COUNT, classes)) * 3
    found = packed(logits, "logits")
    winners, stored = unpacked(found)
    assert np.array_equal(winners, logits.argmax(axis=1))
    centred = logits - np.median(logits, axis=1, keepdims=True)
    assert np.abs(stored - centred).max() <= np.abs(centred).max() / LEVELS / 2 * 1.001


def test_a_thousand_classes_leave_room_for_the_rest_of_a_record_of_100_kb() -> None:
    for classes in (1000, 21841):
        logits = np.random.default_rng(classes).normal(size=(COUNT, classes))
        assert len(packed(logits, "logits").answers) < 86_000


@pytest.mark.parametrize("classes", [2, 3, 10, 1001])
def test_older_records_are_read(classes: int) -> None:
    new = packed(np.random.default_rng(classes).normal(size=(COUNT, classes)), "logits")
    found = unpacked(as_plain(new))
    for ours, theirs in zip(unpacked(new), found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def as_plain(record: FingerprintRecord) -> FingerprintRecord:
    """The record as older versions packed it: levels of 12 bits, two in three bytes, after the head of each image."""
    logits = unpacked(record)[1]
    heads = base64.b85decode(record.answers)[: 8 * record.count]
    data = b""
    for image, row in enumerate(logits):
        head = heads[8 * image : 8 * image + 8]
        largest = np.frombuffer(head[4:], "<f4").astype(float)[0]
        levels = [int(level) & 0xFFF for level in np.rint(row / largest * LEVELS)] + [0] * (len(row) % 2)
        pairs = [low | high << 12 for low, high in zip(levels[::2], levels[1::2], strict=True)]
        data += head + b"".join(pair.to_bytes(3, "little") for pair in pairs)
    return dataclasses.replace(record, answers=base64.b85encode(data).decode(), packing="plain")


def test_answers_that_are_longer_than_they_should_be_are_refused() -> None:
    good = packed(np.random.default_rng(0).normal(size=(COUNT, 10)), "logits")
    start = base64.b85decode(good.answers)[: 8 * COUNT + 5 * COUNT]
    for more in (zlib.compress(bytes(10**7)), zlib.compress(bytes(10 * COUNT)) + b"more", b"no stream"):
        bad = dataclasses.replace(good, answers=base64.b85encode(start + more).decode())
        with pytest.raises(OnnxgainError, match="is damaged"):
            unpacked(bad)


def test_another_packing_is_refused() -> None:
    good = packed(np.zeros((COUNT, 3)), "logits")
    with pytest.raises(ValueError, match="by another version of onnxgain"):
        dataclasses.replace(good, packing="later")


def test_many_classes_are_subsampled_evenly_with_all_winners() -> None:
    logits = np.random.default_rng(0).normal(size=(COUNT, 5000))
    winners, stored = unpacked(packed(logits, "logits"))
    assert np.array_equal(winners, logits.argmax(axis=1))
    assert stored.shape == (COUNT, len(stored_classes(5000))) and len(stored_classes(5000)) == 1000


def test_masked_class_does_not_reduce_the_precision_of_the_others() -> None:
    logits = np.random.default_rng(0).normal(size=(COUNT, 100))
    logits[:, 7] = -1e6
    _, stored = unpacked(packed(logits, "logits"))
    rest = np.delete(np.arange(100), 7)
    assert np.abs(stored[:, rest] - (logits - np.median(logits, axis=1, keepdims=True))[:, rest]).max() < 0.05


def test_only_independent_classes_keep_their_level() -> None:
    logits = np.random.default_rng(0).normal(size=(COUNT, 6)) + 5
    assert unpacked(packed(logits, "independent"))[1].mean() == pytest.approx(logits.mean(), abs=0.01)
    assert abs(unpacked(packed(logits, "softmax"))[1].mean()) < 1


def test_constant_logits_are_stored() -> None:
    winners, stored = unpacked(packed(np.zeros((COUNT, 4)), "logits"))
    assert not winners.any() and not stored.any()


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "CHW"])
@pytest.mark.parametrize("head", ["logits", "softmax", "sigmoid"])
def test_forward_pass_equals_the_logits_of_the_gradient_graph(layout: str, head: str) -> None:
    of = classifier(conv_net(layout=layout, head=head))
    first = [image for image, _ in zip(images(of), range(3), strict=False)]
    stimuli = [Stimulus("noise", {"seed": i, "sigma": 64.0}, image, False) for i, image in enumerate(first)]
    expected = np.stack([m.logits for m in score(of, stimuli, threads=1)])
    found = np.stack(list(forward(of, iter(first), threads=1)))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_a_fixed_or_chosen_batch_changes_nothing(batch: int) -> None:
    alone = unpacked(fingerprint(classifier(conv_net()), threads=1))[1]
    fixed = unpacked(fingerprint(classifier(conv_net(batch=batch)), threads=1))[1]
    chosen = unpacked(fingerprint(classifier(conv_net()), threads=1, batch=batch))[1]
    np.testing.assert_allclose(fixed, alone, atol=2 * np.abs(alone).max() / LEVELS)
    np.testing.assert_allclose(chosen, alone, atol=2 * np.abs(alone).max() / LEVELS)


def test_first_record_holds_the_requested_fingerprint() -> None:
    of = classifier(conv_net())
    asked = Request(stimuli=("impulse", "noise"), fingerprint=True)
    records = [measurement.record for measurement in measure(of, asked, threads=1)]
    assert [record.fingerprint for record in records] == [fingerprint(of, threads=1), None]
    (plain,) = measure(of, Request(), threads=1)
    assert plain.record.fingerprint is None


def test_a_two_class_sigmoid_has_both_classes() -> None:
    found = fingerprint(classifier(conv_net(classes=1, head="sigmoid")), threads=1)
    assert found.classes == 2
    assert unpacked(found)[1].shape == (COUNT, 2)


def test_nan_logits_are_refused() -> None:
    model = conv_net()
    weight = next(t for t in model.graph.initializer if len(t.dims) == 2)
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full(tuple(weight.dims), np.nan, np.float32), weight.name))
    with pytest.raises(NonFiniteError, match="not finite"):
        fingerprint(classifier(model), threads=1)


@pytest.mark.parametrize(
    "damage",
    [
        {"answers": "not base85 \x00"},
        {"answers": ""},
        {"classes": 7},
        {"classes": 1},
        {"classes": 10**12},
        {"count": 10**9},
        {"count": 0},
        {"count": -1},
    ],
    ids=str,
)
def test_a_damaged_fingerprint_is_refused(damage: dict[str, Any]) -> None:
    good = packed(np.random.default_rng(0).normal(size=(COUNT, 10)), "logits")
    assert isinstance(good, FingerprintRecord)
    with pytest.raises(OnnxgainError) as raised:
        require_intact(dataclasses.replace(good, **damage), "baseline net.onnx")
    assert str(raised.value) == (
        "baseline net.onnx: the fingerprint in its record is damaged; measure it again (a baseline with "
        "`onnxgain gate --update-baseline`)"
    )


@pytest.mark.parametrize("mask", [-1e4, -65504.0, -1e9])
@pytest.mark.parametrize("classes", [5, 20])
def test_masked_classes_leave_the_precision_to_the_others(mask: float, classes: int) -> None:
    logits = np.random.default_rng(0).normal(size=(48, classes))
    logits[:, 2] = mask
    found = unpacked(packed(logits, "logits"))[1]
    others = [i for i in range(classes) if i != 2]
    differences = np.diff(logits[:, others], axis=1)
    np.testing.assert_allclose(np.diff(found[:, others], axis=1), differences, atol=0.01)
    assert (found.argmin(axis=1) == 2).all()


def test_large_logits_of_both_signs_are_no_masks() -> None:
    logits = 2e4 * np.random.default_rng(0).normal(size=(48, 5))
    found = unpacked(packed(logits, "logits"))[1]
    np.testing.assert_allclose(np.diff(found, axis=1), np.diff(logits, axis=1), atol=60.0)


def test_whole_levels_are_converted_as_any_others() -> None:
    for channels in (1, 3, 4):
        levels = np.random.default_rng(channels).integers(0, 256, (channels, 9, 7)).astype(np.uint8)
        for scale in PRESETS.values():
            if len(scale.mean) in (1, channels):
                np.testing.assert_array_equal(scale.apply_levels(levels), scale.apply(levels.astype(np.float64)))


def test_images_are_drawn_while_the_file_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    last = threading.Event()

    def images(shape: tuple[int, int, int]) -> Iterator[tuple[str, np.ndarray]]:
        for number, image in enumerate(synthetic_images(shape), start=1):
            if number == COUNT:
                last.set()
            yield image

    class Loading(OwnFile):
        def __init__(self, *given: Any) -> None:
            assert last.wait(10)
            super().__init__(*given)

    monkeypatch.setattr("onnxgain.measure.forward.synthetic_images", images)
    monkeypatch.setattr("onnxgain.measure.forward.OwnFile", Loading)
    fingerprint(classifier(conv_net()), threads=1)
