"""The difference of two models whose changes are known in closed form, in numbers and in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.analysis.difference import (
    BANDS,
    NOTICEABLE_DB,
    measured_difference,
    reading,
    recorded_difference,
    summary,
)
from onnxgain.analysis.pairing import Change
from onnxgain.measure.measure import score
from onnxgain.measure.measurement import KnownArrays, Measurement
from onnxgain.measure.spectrum import frequency_response
from onnxgain.model.classifier import Reading, describe
from onnxgain.model.input_scale import input_scale
from onnxgain.model.stimulus import impulse, noise
from tests.support import models

SIZE = 32


def measured(model: onnx.ModelProto, *, preprocess: str = "unit", **options: Any) -> list[Measurement]:
    classifier = describe(ir.from_proto(model), Reading(scale=input_scale(preprocess), **options))
    shape, scale = classifier.image.image_shape, classifier.scale
    return score(classifier, [impulse(shape, scale), noise(shape, scale)], threads=1)


def linear(kernels: np.ndarray, **options: Any) -> onnx.ModelProto:
    """A linear classifier: logits = <kernels (classes, C, H, W), image>."""
    return models.linear(kernels, np.zeros(len(kernels)), **options)


def filtered(gain: Callable[[np.ndarray], np.ndarray]) -> Measurement:
    """A measurement whose response is white noise times a function of radial frequency."""
    (original,) = measured(linear(white()))[1:]
    plane = np.fft.fft2(original.derivative)
    frequency = np.fft.fftfreq(SIZE)
    radius = np.hypot(frequency[:, None], frequency[None, :])
    derivative = np.fft.ifft2(plane * gain(radius)).real
    spectrum = frequency_response(derivative, window=False)
    gains = replace(original.record.gain, channels=spectrum.maximum_gain, mean=spectrum.mean_gain)
    arrays = KnownArrays(derivative, spectrum)
    return replace(original, arrays=arrays, record=replace(original.record, gain=gains))


def white() -> np.ndarray:
    """Kernels with a flat spectrum: magnitude 1 and random phase at each frequency."""
    rng = np.random.default_rng(3)
    planes = np.fft.fft2(rng.normal(size=(2, 1, SIZE, SIZE)))
    return np.fft.ifft2(planes / np.abs(planes)).real


def flat(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda radius: np.full_like(radius, factor)


def step(low: float, high: float, db: float) -> Callable[[np.ndarray], np.ndarray]:
    """A gain in dB between two radial frequencies, 0 dB elsewhere."""
    return lambda radius: np.where((radius >= low) & (radius <= high), 10 ** (db / 20), 1.0)


# ------------------------------------------------------------------------------------------------ spectrum
@pytest.mark.parametrize(
    ("gain", "expected"),
    [
        (flat(1.0), "no difference above 0.05 dB"),
        (flat(1.004), "no difference above 0.05 dB"),
        (flat(2.0), "the change sits at all frequencies, +6.0 dB"),
        (flat(0.5), "the change sits at all frequencies, -6.0 dB"),
        (flat(1.007), "the change sits at all frequencies, +0.1 dB"),
        (step(0.25, 1.0, 2.1), "the change sits above 0.25 cycles/pixel, +2.1 dB"),
        (step(0.375, 1.0, -3.0), "the change sits above 0.375 cycles/pixel, -3.0 dB"),
        (step(0.0, 0.124, 4.0), "the change sits below 0.125 cycles/pixel, +4.0 dB"),
        (step(0.125, 0.249, 1.0), "the change sits between 0.125 and 0.25 cycles/pixel, +1.0 dB"),
        (step(0.50001, 1.0, 5.0), "the change sits above 0.5 cycles/pixel, +5.0 dB"),
    ],
)
def test_reading_gives_frequencies_and_size_of_the_change(
    gain: Callable[[np.ndarray], np.ndarray], expected: str
) -> None:
    difference = measured_difference(filtered(flat(1.0)), filtered(gain))
    assert reading(difference) == expected


def test_changes_in_separate_bands_are_named() -> None:
    both = lambda radius: step(0.0, 0.124, 3.0)(radius) * step(0.375, 0.5, 3.0)(radius)
    difference = measured_difference(filtered(flat(1.0)), filtered(both))
    assert reading(difference) == "the change sits in the bands 0-1/8 and 3/8-1/2 cycles/pixel, +3.0 dB"


def test_change_without_a_change_of_level_is_reported_as_rms() -> None:
    """Raises half of the bins and lowers the others."""

    def scrambled(radius: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(5)
        signs = np.fft.fft2(rng.normal(size=radius.shape)).real > 0  # symmetric, as for a real derivative
        return np.where(signs, 10 ** (3 / 20), 10 ** (-3 / 20))

    difference = measured_difference(filtered(flat(1.0)), filtered(scrambled))
    assert "at all frequencies" in reading(difference)
    assert "dB in level, " in reading(difference)
    assert reading(difference).endswith("dB rms from bin to bin")


def test_bands_cover_all_bins_with_correct_levels() -> None:
    gains = {"0-1/8": 1.0, "1/8-1/4": -2.0, "1/4-3/8": 0.0, "3/8-1/2": 4.0, "corners": -6.0}

    def shaped(radius: np.ndarray) -> np.ndarray:
        db = np.select([radius > 0.5, radius >= 0.375, radius >= 0.25, radius >= 0.125], [-6.0, 4.0, 0.0, -2.0], 1.0)
        return 10 ** (db / 20)

    difference = measured_difference(filtered(flat(1.0)), filtered(shaped))
    spectrum = difference.spectrum
    assert spectrum is not None
    assert [band.name for band in spectrum.bands] == [name for name, _, _ in BANDS]
    for band in spectrum.bands:
        assert band.delta_db == pytest.approx(gains[band.name], abs=1e-6)
        assert band.rms_db == pytest.approx(abs(gains[band.name]), abs=1e-6)
    assert sum(band.share for band in spectrum.bands) == pytest.approx(1.0)
    corners = spectrum.bands[-1].share
    assert corners == pytest.approx(1 - np.pi / 4, abs=0.02)
    expected = np.sqrt(sum(band.share * gains[band.name] ** 2 for band in spectrum.bands))
    assert spectrum.rms_db == pytest.approx(expected)


def test_largest_change_is_at_the_changed_bin() -> None:
    def pit(radius: np.ndarray) -> np.ndarray:
        gain = np.ones_like(radius)
        gain[3, 5] = gain[-3, -5] = 10 ** (-7 / 20)
        return gain

    difference = measured_difference(filtered(flat(1.0)), filtered(pit))
    assert difference.spectrum is not None
    largest = difference.spectrum.largest
    assert largest is not None
    assert (largest.fy, largest.fx) == (3 / SIZE, 5 / SIZE)
    assert largest.frequency == pytest.approx(np.hypot(3, 5) / SIZE)
    assert largest.delta_db == pytest.approx(-7.0)
    assert largest.channel == "grey"


def test_zeros_of_a_spectrum_are_ignored() -> None:
    """If both spectra are zero in a bin, the ratio is noise."""

    def holes(level: float) -> Callable[[np.ndarray], np.ndarray]:
        def gain(radius: np.ndarray) -> np.ndarray:
            result = np.ones_like(radius)
            result[::4] = level
            return result

        return gain

    assert reading(measured_difference(filtered(holes(1e-9)), filtered(holes(1e-12)))).startswith("no difference")
    nothing = measured_difference(filtered(flat(0.0)), filtered(flat(0.0)))
    assert nothing.spectrum is None
    assert nothing.derivative is None
    assert nothing.largest_db is None
    assert reading(nothing) == "nothing could be compared"
    assert len(nothing.notes) == 2
    appeared = measured_difference(filtered(flat(0.0)), filtered(flat(1.0)))
    assert appeared.spectrum is not None
    assert reading(appeared).startswith("the change sits at all frequencies, +5")  # from the floor, 60 dB below


def test_tiny_derivatives_do_not_underflow() -> None:
    difference = measured_difference(filtered(flat(1e-200)), filtered(flat(2e-200)))
    assert difference.derivative is not None
    assert difference.derivative.relative_l2 == pytest.approx(1.0)
    assert difference.derivative.cosine == pytest.approx(1.0)


# ------------------------------------------------------------------------------------- logits and derivatives
def test_logit_and_derivative_changes_of_linear_models() -> None:
    """The logits of a linear model at the impulse are its kernels' centres, so a rotation of one gives the distance."""
    rng = np.random.default_rng(0)
    kernels = rng.normal(size=(3, 1, 8, 8))
    other = kernels + 0.1 * rng.normal(size=kernels.shape)
    old, new = measured(linear(kernels))[0], measured(linear(other))[0]
    difference = measured_difference(old, new)
    centred = [side.logits.astype(np.float64) - side.logits.mean(dtype=np.float64) for side in (old, new)]
    p, q = (np.exp(side) / np.exp(side).sum() for side in centred)
    assert difference.logits is not None
    assert difference.derivative is not None
    assert difference.logits.max_abs == pytest.approx(np.abs(centred[1] - centred[0]).max(), rel=1e-6)
    relative = np.linalg.norm(centred[1] - centred[0]) / np.linalg.norm(centred[0])
    assert difference.logits.relative_l2 == pytest.approx(relative, rel=1e-6)
    assert difference.logits.kl == pytest.approx(float((p * np.log(p / q)).sum()), rel=1e-6)
    a, b = old.derivative, new.derivative
    assert difference.derivative.relative_l2 == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a))
    cosine = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
    assert difference.derivative.cosine == pytest.approx(cosine)
    assert 0.5 < cosine < 0.9999


def test_constant_added_to_the_logits_of_a_softmax_is_no_difference() -> None:
    """The same classifier with logits, with softmax and with log-softmax as output."""
    heads = [measured(models.conv_net(head=head)) for head in ("logits", "softmax", "log-softmax", "exp")]
    for other in heads[1:]:
        for old, new in zip(heads[0], other, strict=True):
            difference = measured_difference(old, new)
            assert difference.logits is not None
            assert difference.logits.max_abs < 1e-5
            assert difference.logits.kl < 1e-9
            assert reading(difference) == f"no difference above {NOTICEABLE_DB} dB"


def test_divergence_of_independent_classes() -> None:
    old, new = (replace(filtered(flat(1.0)), logits=np.array(logits, np.float32)) for logits in ([1, -2], [2, -2]))
    shared, separate = (measured_difference(old, new, independent=flag).logits for flag in (False, True))
    p, q = 1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(-2.0))
    assert separate is not None
    assert shared is not None
    assert separate.kl == pytest.approx(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    assert separate.max_abs == pytest.approx(1.0)
    assert separate.relative_l2 == pytest.approx(1 / np.sqrt(5))
    assert shared.max_abs == pytest.approx(0.5)
    extreme = replace(old, logits=np.array([300, -300], np.float32))
    assert measured_difference(extreme, new, independent=True).logits is not None


def test_channels_are_matched_between_rgb_and_bgr() -> None:
    """A BGR model equals an RGB model with reversed weights."""
    rng = np.random.default_rng(1)
    kernels = rng.normal(size=(3, 3, 8, 8))
    old = measured(linear(kernels))
    classifier = describe(
        ir.from_proto(linear(kernels[:, ::-1])), Reading(scale=replace(input_scale("unit"), bgr=True))
    )
    shape, scale = classifier.image.image_shape, classifier.scale
    new = score(classifier, [impulse(shape, scale), noise(shape, scale)], threads=1)
    for before, after in zip(old, new, strict=True):
        difference = measured_difference(before, after)
        assert reading(difference) == f"no difference above {NOTICEABLE_DB} dB"
        assert difference.derivative is not None
        assert difference.derivative.relative_l2 < 1e-5


def test_responses_are_compared_if_the_class_counts_differ() -> None:
    old, new = measured(models.conv_net(classes=5))[0], measured(models.conv_net(classes=7))[0]
    difference = measured_difference(old, new)
    assert difference.logits is None
    assert difference.notes == ("classes, scores and logits cannot be compared: 5 before, 7 after classes",)
    assert difference.spectrum is not None
    assert difference.derivative is not None


# ------------------------------------------------------------------------------------------------- records
def test_reading_from_records() -> None:
    old, new = filtered(flat(1.0)), filtered(step(0.25, 1.0, 2.1))
    change = Change(with_profile(old).record, with_profile(new).record)
    difference = recorded_difference(change)
    assert reading(difference) == "the change sits above 0.25 cycles/pixel, +2.1 dB"
    assert (difference.logits, difference.derivative) == (None, None)
    assert difference.spectrum is not None
    assert difference.spectrum.largest is None
    assert [band.name for band in difference.spectrum.bands] == [name for name, _, _ in BANDS[:-1]]
    shorter = replace(new.record.spectrum, profile_frequency=(0.0,), profile_db=((0.0,),))
    assert recorded_difference(Change(old.record, replace(new.record, spectrum=shorter))).spectrum is None
    holes = replace(new.record.spectrum, profile_frequency=(), profile_db=())
    assert recorded_difference(Change(*[replace(old.record, spectrum=holes)] * 2)).spectrum is None


def with_profile(measurement: Measurement) -> Measurement:
    profile = measurement.spectrum.radial_profile()
    rows = tuple(tuple(map(float, row)) for row in profile.gain_db)
    found = replace(
        measurement.record.spectrum, profile_frequency=tuple(map(float, profile.frequency)), profile_db=rows
    )
    return replace(measurement, record=replace(measurement.record, spectrum=found))


def test_the_summary_is_that_of_the_largest_change() -> None:
    small, large = (measured_difference(filtered(flat(1.0)), filtered(flat(factor))) for factor in (1.1, 1.3))
    assert summary([small, large]) == f"{reading(large)} (at noise:seed=0)"
    assert summary([small]) == reading(small)
    same = measured_difference(filtered(flat(1.0)), filtered(flat(1.0)))
    assert summary([same, same]) == "no difference above 0.05 dB"
    flipped = replace(same, change=Change(same.change.before, replace(same.change.after, class_index=7)))
    assert summary([same, flipped]).endswith("; class 0 became 7 at noise:seed=0") or summary([same, flipped]).endswith(
        "; class 1 became 7 at noise:seed=0"
    )
