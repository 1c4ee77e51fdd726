"""Measurements against an independent float64 reference, and their bookkeeping."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.errors import ModelError, NonFiniteError, OnnxgainError, ZeroGradientError
from onnxgain.gradient.reverse.seed import PROJECTIONS, Projection
from onnxgain.measure import batch_size, gradient_graph
from onnxgain.measure.measure import measure, score
from onnxgain.measure.measurement import Measurement
from onnxgain.measure.request import Request
from onnxgain.measure.spectrum import frequency_response
from onnxgain.model.classifier import Classifier, Reading, describe
from onnxgain.model.input_scale import input_scale
from onnxgain.model.stimulus import Stimulus, impulse, noise
from tests.support import models

SIZE = (8, 7)


def read(model: onnx.ModelProto, scale: str = "unit", **reading: object) -> Classifier:
    return describe(ir.from_proto(model), Reading(scale=input_scale(scale), **reading))  # type: ignore[arg-type]


def noises(classifier: Classifier, count: int) -> list[Stimulus]:
    return [noise(classifier.image.image_shape, classifier.scale, seed=seed) for seed in range(count)]


def reference(classifier: Classifier, stimulus: Stimulus, projection: Projection, i: int) -> tuple[np.ndarray, float]:
    """The derivative per 8-bit level without its factor, and log10 of that factor, from the file's own graph.

    Central differences of the logits, one pixel at a time, in float64; no gradient graph, no seed, no runtime.
    """
    evaluator = Float64Evaluator(classifier.model)
    step = classifier.scale.step(classifier.image.channels)

    def logits(image: np.ndarray) -> np.ndarray:
        feeds = {classifier.image.name: classifier.image.to_input([image], dtype=np.float64)}
        found = evaluator.run(feeds, [classifier.head.output])[classifier.head.output].reshape(-1)
        return np.log(found) if classifier.head.kind == "softmax" else found

    image = stimulus.image.astype(np.float64)
    jacobian = np.zeros((len(logits(image)), *image.shape))
    for index in np.ndindex(*image.shape):
        moved = np.zeros(image.shape)
        moved[index] = 1e-4 * step[index[0]]
        jacobian[:, *index] = (logits(image + moved) - logits(image - moved)) / 2e-4
    found = logits(image)
    if projection == "logit":
        return jacobian[i], 0.0
    total = np.logaddexp.reduce(found)
    others = np.exp(np.delete(found, i) - np.logaddexp.reduce(np.delete(found, i)))
    direction = jacobian[i] - np.tensordot(others, np.delete(jacobian, i, axis=0), axes=1)
    log_rest = np.logaddexp.reduce(np.delete(found, i)) - total
    power = {"1/score": 0, "one": 1, "score": 2}[projection]
    return direction, float((log_rest + power * (found[i] - total)) / np.log(10))


def assert_agrees(measured: Measurement, direction: np.ndarray, exponent: float) -> None:
    expected = direction * 10.0**exponent
    error = np.linalg.norm(measured.derivative - expected)
    assert error <= 1e-5 * np.linalg.norm(expected) + (0 if expected.any() else 1e-300)
    spectrum = frequency_response(direction, window=measured.record.stimulus.windowed)
    for gain, channel in zip(measured.record.gain.channels, spectrum.maximum_gain, strict=True):
        assert channel is not None
        assert gain == pytest.approx(channel + 20 * exponent, abs=1e-3)


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize(
    "options",
    [{}, {"head": "softmax"}, {"layout": "NHWC"}, {"channels": 1}, {"pool": "AveragePool"}],
    ids=str,
)
def test_gains_equal_finite_differences(options: dict[str, object], projection: Projection) -> None:
    classifier = read(models.conv_net(size=SIZE, **options))  # type: ignore[arg-type]
    for stimulus in (impulse(classifier.image.image_shape, classifier.scale), *noises(classifier, 1)):
        (measured,) = score(classifier, [stimulus], projection=projection, threads=1)
        if projection == "logit":  # which softmax removes
            classifier = read(models.conv_net(size=SIZE, **{**options, "head": "logits"}))  # type: ignore[arg-type]
        assert_agrees(measured, *reference(classifier, stimulus, projection, measured.record.class_index))


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("margin", [60.0, 200.0, 1000.0])
@pytest.mark.parametrize("head", ["logits", "softmax"])
def test_saturated_scores_have_their_exact_gain(head: str, margin: float, projection: Projection) -> None:
    """exp(-1000) underflows float64, but its gain in dB is an ordinary number."""
    weights = np.random.default_rng(3).standard_normal((4, 3, *SIZE)) / 50
    bias = np.array([0.0, margin, 0.3, -0.2])
    classifier = read(models.linear(weights, bias, head=head), "raw")
    stimulus = noises(classifier, 1)[0]
    (measured,) = score(classifier, [stimulus], projection=projection, threads=1)

    logits = weights.astype(np.float32).astype(np.float64).reshape(4, -1) @ stimulus.image.reshape(-1) + bias
    assert measured.record.margin == pytest.approx(logits[1] - np.delete(logits, 1).max(), rel=1e-6)
    q = np.exp(np.delete(logits, 1) - np.logaddexp.reduce(np.delete(logits, 1)))
    direction = weights[1] - np.tensordot(q, np.delete(weights, 1, axis=0), axes=1)
    log_rest = np.logaddexp.reduce(np.delete(logits, 1)) - np.logaddexp.reduce(logits)
    if projection == "logit":
        direction, log_rest = weights[1], 0.0
    spectrum = frequency_response(direction, window=False)
    expected = [channel + 20 * log_rest / np.log(10) for channel in spectrum.maximum_gain if channel is not None]
    np.testing.assert_allclose(measured.record.gain.channels, expected, rtol=0, atol=2e-3)
    assert measured.record.gain.mean == pytest.approx(np.mean(expected), abs=2e-3)
    np.testing.assert_allclose(measured.record.spectrum.centroid, spectrum.centroid, rtol=1e-5)


def test_mean_gain_and_steps_per_8_bit_level() -> None:
    model = models.conv_net(size=SIZE)
    (measured,) = score(read(model, "imagenet"), threads=1)
    record = measured.record
    assert record.gain.mean == pytest.approx(np.mean([gain for gain in record.gain.channels if gain is not None]))
    assert record.scale.step == pytest.approx([1 / 255 / std for std in (0.229, 0.224, 0.225)])
    assert record.gain.channels == pytest.approx(measured.spectrum.maximum_gain, abs=1e-9)


def test_the_same_network_in_other_units_has_the_same_gain() -> None:
    """Normalization of 0..255 inside or outside the graph gives the same gain per 8-bit level."""
    inside = read(models.conv_net(size=SIZE, normalize=(1 / 255, 0.5, 0.25)), "raw")
    outside = describe(
        ir.from_proto(models.conv_net(size=SIZE)),
        Reading(scale=input_scale(mean=0.5, std=0.25, scale=1 / 255)),
    )
    (one,), (other,) = (score(c, noises(c, 1), threads=1) for c in (inside, outside))
    np.testing.assert_allclose(one.derivative, other.derivative, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", ["N", None])
def test_flattened_inputs(dtype: type, batch: str | None) -> None:
    classifier = read(models.mlp(dtype=dtype, batch=batch), image_shape=(1, 7, 7))
    stimulus = noises(classifier, 1)[0]
    (measured,) = score(classifier, [stimulus], threads=1)
    direction, exponent = reference(classifier, stimulus, "1/score", measured.record.class_index)
    assert measured.derivative.shape == (1, 7, 7)
    assert_agrees(measured, direction, exponent)


def test_float16_models_are_measured_in_float32() -> None:
    classifier = read(models.conv_net(size=SIZE, dtype=np.float16))
    stimulus = noises(classifier, 1)[0]
    (measured,) = score(classifier, [stimulus], threads=1)
    assert measured.record.interface.dtype == "float16"
    direction, exponent = reference(classifier, stimulus, "1/score", measured.record.class_index)
    assert_agrees(measured, direction, exponent)


def test_missing_runtime_kernels_are_reported() -> None:
    """The runtime has no float64 convolution."""
    with pytest.raises(OnnxgainError, match=r"Could not find an implementation for Conv.*in float32"):
        score(read(models.conv_net(size=SIZE, dtype=np.float64)), threads=1)


@pytest.mark.parametrize("index", [0, 3])
def test_class_can_be_given(index: int) -> None:
    classifier = read(models.conv_net(size=SIZE, head="softmax"))
    stimulus = noises(classifier, 1)[0]
    (measured,) = score(classifier, [stimulus], class_index=index, threads=1)
    assert (measured.record.class_index, measured.record.class_given) == (index, True)
    assert_agrees(measured, *reference(classifier, stimulus, "1/score", index))


@pytest.mark.parametrize("head", ["sigmoid", "ratio", "pair"])
def test_scores_of_sigmoid_and_probability_heads(head: str) -> None:
    classifier = read(models.conv_net(size=SIZE, head=head, classes=1 if head == "pair" else 4))
    stimulus = noises(classifier, 1)[0]
    (measured,) = score(classifier, [stimulus], threads=1)
    output = Float64Evaluator(classifier.model).run({"image": stimulus.image[None].astype(np.float64)})["output"][0]
    assert measured.record.class_index == output.argmax()
    assert measured.record.score == pytest.approx(output.max(), rel=1e-5)


def test_one_column_has_two_classes() -> None:
    model = models.conv_net(size=SIZE, head="sigmoid", classes=1)
    for index in (0, 1):
        classifier = read(model)
        stimulus = noises(classifier, 1)[0]
        (measured,) = score(classifier, [stimulus], class_index=index, threads=1)
        p = Float64Evaluator(classifier.model).run({"image": stimulus.image[None].astype(np.float64)})["output"][0, 0]
        assert measured.record.score == pytest.approx(p if index else 1 - p, rel=1e-5)
        assert measured.record.interface.classes == 2


# --------------------------------------------------------------------------------------------- many stimuli
def singles(classifier: Classifier, stimuli: list[Stimulus]) -> Iterator[Measurement]:
    for stimulus in stimuli:
        yield from score(classifier, [stimulus], threads=1)


@pytest.mark.parametrize("count", [2, 5, 16, 19])
@pytest.mark.parametrize("options", [{}, {"batch": 4}, {"layout": "CHW"}, {"layout": "NHWC", "batch": 1}], ids=str)
def test_batches_equal_singles(options: dict[str, object], count: int) -> None:
    classifier = read(models.conv_net(size=SIZE, pool="MaxPool", **options))  # type: ignore[arg-type]
    stimuli = noises(classifier, count)
    together = score(classifier, stimuli, threads=1)
    assert [m.record.stimulus.parameters["seed"] for m in together] == list(range(count))
    for one, alone in zip(together, singles(classifier, stimuli), strict=True):
        difference = np.linalg.norm(one.derivative - alone.derivative)
        assert difference <= 1e-5 * np.linalg.norm(alone.derivative)
        assert one.record.class_index == alone.record.class_index


def test_models_with_a_fixed_batch_are_measured_one_by_one() -> None:
    classifier = read(models.baked_batch())
    stimuli = noises(classifier, 3)
    for one, alone in zip(score(classifier, stimuli, threads=1), singles(classifier, stimuli), strict=True):
        difference = np.linalg.norm(one.derivative - alone.derivative)
        assert difference <= 1e-5 * np.linalg.norm(alone.derivative)


def test_stimuli_are_read_at_most_one_batch_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large folder must never be in memory at once."""
    monkeypatch.setattr(batch_size, "analysed_together", lambda classifier, batch: 4)
    classifier = read(models.conv_net(size=SIZE))
    read_so_far: list[int] = []
    done: list[int] = []

    class Streamed(Request):
        def stimuli_for(self, classifier: Classifier, *, readers: int = 1) -> Generator[Stimulus]:
            for index, stimulus in enumerate(super().stimuli_for(classifier, readers=readers)):
                read_so_far.append(index)
                yield stimulus

    request = Streamed(stimuli=tuple(noises(classifier, 14)))
    for number, _ in enumerate(measure(classifier, request, threads=1, advance=done.append)):
        assert len(read_so_far) <= 4 * (number // 4 + 2)
    assert number == 13
    assert done == [4, 4, 4, 2]


def test_network_runs_on_the_next_batch_while_spectra_are_analysed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, "analysed_together", lambda classifier, batch: 2)
    classifier = read(models.conv_net(size=SIZE))
    request = Request(stimuli=tuple(noises(classifier, 6)))
    graph = gradient_graph.GradientGraph(classifier, request, 1)
    ran, run = threading.Semaphore(0), graph.run

    def counted(images: Sequence[np.ndarray]) -> list[gradient_graph.Output]:
        outputs = run(images)
        ran.release()
        return outputs

    monkeypatch.setattr(graph, "run", counted)
    measured = measure(classifier, request, threads=1, graph=graph)
    next(measured)
    assert ran.acquire(timeout=60)  # the two images of the current batch
    assert ran.acquire(timeout=60)  # the next two, ahead of their use
    assert len(list(measured)) == 5


def test_measurements_before_a_failure_are_yielded_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, "analysed_together", lambda classifier, batch: 2)
    classifier = read(models.conv_net(size=SIZE))
    stimuli = noises(classifier, 7)
    stimuli[5].image[:] = np.nan
    found = measure(classifier, Request(stimuli=tuple(stimuli)), threads=1)
    received: list[int] = []
    with pytest.raises(NonFiniteError):
        received.extend(measurement.record.stimulus.parameters["seed"] for measurement in found)
    assert received == [stimulus.parameters["seed"] for stimulus in stimuli[:5]]


def test_records_of_a_batch_agree_with_the_spectra_of_their_derivatives() -> None:
    """Records come from responses computed together, `Measurement.spectrum` from one derivative."""
    classifier = read(models.conv_net(size=SIZE))
    stimuli = [impulse(classifier.image.image_shape, classifier.scale), *noises(classifier, 11)]
    for measured in score(classifier, stimuli, threads=1):
        record, spectrum = measured.record, measured.spectrum
        assert record.gain.channels == pytest.approx(spectrum.maximum_gain, abs=1e-9)
        assert record.gain.mean == pytest.approx(spectrum.mean_gain, abs=1e-9)
        assert record.spectrum.bandwidth_3db == pytest.approx(spectrum.bandwidth(3.0), abs=1e-9)
        assert record.spectrum.bandwidth_6db == pytest.approx(spectrum.bandwidth(6.0), abs=1e-9)
        assert record.spectrum.centroid == pytest.approx(spectrum.centroid, abs=1e-9)
        profile = spectrum.radial_profile()
        np.testing.assert_allclose(record.spectrum.profile_db, profile.gain_db, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(record.spectrum.profile_frequency, profile.frequency)
        assert [(p.channel, p.fy, p.fx, p.harmonic) for p in record.spectrum.peaks] == [
            (p.channel, p.fy, p.fx, p.harmonic) for p in spectrum.peaks()
        ]


def test_integer_inputs_are_rounded_not_wrapped() -> None:
    """If the graph begins with a cast to float, pixels are kept; otherwise they are rounded and clipped."""
    classifier = read(models.conv_net(size=SIZE, input_dtype=np.uint8), "raw")
    (measured,) = score(classifier, noises(classifier, 1), threads=1)
    (expected,) = score(read(models.conv_net(size=SIZE), "raw"), noises(classifier, 1), threads=1)
    np.testing.assert_allclose(measured.derivative, expected.derivative, rtol=1e-5, atol=1e-12)
    from onnxgain.measure.gradient_graph import as_declared

    rounded = as_declared(np.array([-3.2, 0.5, 1.5, 254.6, 300.0], np.float32), np.dtype(np.uint8))
    assert rounded.tolist() == [0, 0, 2, 255, 255]


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_recorded(threads: int) -> None:
    (measured,) = score(read(models.conv_net(size=SIZE)), threads=threads)
    assert measured.record.engine.threads == threads


def test_other_inputs_are_fed() -> None:
    model = models.with_inputs(factor=([2], np.float32), flag=([], np.bool_))
    gains = []
    for factor in (1.0, 3.0):
        inputs = {"factor": np.array([factor, 0.0], np.float32), "flag": np.array(True)}
        classifier = read(model, inputs=inputs)
        (measured,) = score(classifier, noises(classifier, 1), projection="logit", class_index=0, threads=1)
        gains.append(measured.record.gain.mean)
    assert gains[1] - gains[0] == pytest.approx(20 * np.log10(3), abs=1e-4)


# ------------------------------------------------------------------------------------------------ no gain
@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (models.dead_relu(), r"all 144 units of Relu '/dead' are off \(dead\)"),
        (models.image_not_used(), "the image input is not used"),
        (models.step_function(), "ends at Sign"),
        (models.saturated_tanh(), "something saturates"),
        (models.alone_in_its_sum(), "every path from the image to the class passes a unit that is off"),
    ],
    ids=["dead", "unused", "steps", "saturated", "alone"],
)
def test_zero_derivative_is_an_error_with_the_reason(model: onnx.ModelProto, reason: str) -> None:
    with pytest.raises(ZeroGradientError, match=reason):
        score(read(model), threads=1)


def test_channel_without_derivative_has_no_gain_and_no_mean() -> None:
    weights = np.random.default_rng(0).standard_normal((3, 3, *SIZE))
    weights[:, 1] = 0
    (measured,) = score(read(models.linear(weights, np.zeros(3))), threads=1)
    assert measured.record.gain.channels[1] is None
    assert measured.record.gain.channels[0] is not None
    assert measured.record.gain.mean is None
    assert measured.record.spectrum.centroid[1] is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_weights_are_named(value: float) -> None:
    with pytest.raises(ModelError, match=r"not finite.*weights 'constant_4' hold NaN or infinity"):
        score(read(models.with_weights(value)), threads=1)


def test_overflow_is_distinguished_from_bad_weights() -> None:
    with pytest.raises(ModelError, match=r"not finite.*its weights are finite, so it overflows"):
        score(read(models.overflowing(), "raw"), threads=1)


def test_the_runtime_must_take_the_model() -> None:
    with pytest.raises(OnnxgainError):
        score("missing.onnx")
